"""The embedded model's adapter against a server that does what llama.cpp's does in bad times. It loads nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from agentrt.errors import ContextOverflow, ModelError, ModelUnavailable, RequestRefused, UnknownModel
from agentrt.messages import ToolSpec, UserMessage
from agentrt.model import ModelRequest, ModelSettings
from agentrt.models import local
from agentrt.models.llama import Server
from agentrt.models.local import LocalModel
from agentrt.models.prefix import WORTH, SlotTable

pytestmark = pytest.mark.anyio

SEARCH = ToolSpec("search", "Search.", {"type": "object", "properties": {"query": {"type": "string"}}})
CHAT = ModelRequest(messages=(UserMessage("hi"),))
"""The server chooses its slot, so that nobody knows what any holds afterwards."""
EXAMPLES = "Question: who?\nAnswer: me\n" * (WORTH // 20)


class FakeServer:
    """Answer as the server does; `broken` says what to answer on a path instead, `lines` what to stream."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: dict[str, tuple[int, bytes]] = {}
        self.gone = False
        self.lines = streamed("blue")
        self.client = httpx.AsyncClient(base_url="http://server", transport=httpx.MockTransport(self._answer))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        action = request.url.params.get("action")
        path = request.url.path if action is None else action
        body = json.loads(request.content)
        self.asked.append("read" if body.get("max_tokens") == 1 else path)
        await anyio.lowlevel.checkpoint()
        if self.gone:
            raise httpx.ConnectError("refused", request=request)
        if self.asked[-1] in self.broken:
            status, content = self.broken[self.asked[-1]]
            return httpx.Response(status, content=content)
        if path == "/tokenize":
            return httpx.Response(200, json={"tokens": body["content"].split()})
        if path.endswith("input_tokens"):
            return httpx.Response(200, json={"input_tokens": 7})
        return httpx.Response(200, content="\n".join(self.lines).encode())


def streamed(*pieces: str) -> list[str]:
    """Return the lines of one draw's answer."""
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "text": p, "finish_reason": None}]} for p in pieces]
    chunks.append({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 5, "completion_tokens": len(pieces)}
    return [*(f"data: {json.dumps(c | {'id': 'x'})}" for c in chunks[:-1]), _last(chunks[-1], usage), "data: [DONE]"]


def _last(chunk: dict[str, Any], usage: dict[str, int]) -> str:
    return f"data: {json.dumps(chunk | {'id': 'x', 'usage': usage})}"


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    running = Server("http://server", "key", slots=2, context=100, handle=None, table=SlotTable(2))
    monkeypatch.setattr(local, "running_server", lambda *_: running)
    monkeypatch.setattr(local, "new_client", lambda _: fake.client)
    yield fake
    await fake.client.aclose()


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    return LocalModel(f"local/{file}", slots=2, context=100)


def ask(prompt: str = "what colour?", **parts: Any) -> ModelRequest:
    return ModelRequest(messages=(), prompt=prompt, settings=ModelSettings(max_tokens=20, min_tokens=1), **parts)


def ignore(_text: str) -> None: ...


async def test_it_answers(server: FakeServer, model: LocalModel) -> None:
    """In good times."""
    response = await model.generate(ask(), ignore)
    assert (response.message.text, response.usage.input_tokens, response.usage.output_tokens) == ("blue", 5, 1)


async def test_draws_of_one_prompt_wait_for_one_count(server: FakeServer, model: LocalModel) -> None:
    """And what was counted is known, as long as it is among the last."""
    counts: list[int] = []

    async def count(prompt: str) -> None:
        counts.append(await model.count_tokens(ask(prompt)))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(count, "one two three")
    await count("one two three")
    assert (counts, server.asked) == ([3, 3, 3, 3], ["/tokenize"])


async def test_the_counts_that_are_kept_are_the_last(
    server: FakeServer, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that asks for ever does not grow."""
    monkeypatch.setattr(local, "_COUNTS_KEPT", 2)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        await model.count_tokens(ask(prompt))
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (
            400,
            b'{"error": {"type": "exceed_context_size_error", "message": "105 > 100"}}',
            ContextOverflow,
            "105 > 100",
        ),
        (500, b'{"error": {"message": "the context size is exceeded"}}', ContextOverflow, "shorten the prompt"),
        (400, b'{"error": {"message": "no such field"}}', RequestRefused, "no such field"),
        (503, b"still loading", ModelUnavailable, "still loading"),
        (500, b'["odd"]', ModelUnavailable, "odd"),
        (502, b"", ModelUnavailable, "status 502"),
    ],
)
@pytest.mark.parametrize("path", ["/tokenize", "/v1/completions"])
async def test_what_the_server_refuses_is_this_packages_error(
    server: FakeServer, model: LocalModel, path: str, status: int, body: bytes, kind: type[ModelError], says: str
) -> None:
    """With what the server says; nothing is ever billed."""
    server.broken[path] = (status, body)
    with pytest.raises(kind, match=says) as refused:
        await (model.count_tokens(ask()) if path == "/tokenize" else model.generate(ask(), ignore))
    assert refused.value.billed is False


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('error: {"message": "slot is gone"}', ModelUnavailable),
        ('data: {"error": {"code": 400, "message": "the grammar is too large"}}', RequestRefused),
        ('data: {"error": {"message": "out of memory"}}', ModelUnavailable),
    ],
)
async def test_an_answer_that_breaks_off_says_why(
    server: FakeServer, model: LocalModel, line: str, kind: type[ModelError]
) -> None:
    """Though it began well."""
    server.lines = [server.lines[0], "", line]
    heard: list[str] = []
    with pytest.raises(kind):
        await model.generate(ask(), heard.append)
    assert heard == ["blue"]


@pytest.mark.parametrize("counting", [True, False])
async def test_a_server_that_is_gone_is_unavailable(server: FakeServer, model: LocalModel, counting: bool) -> None:
    """And has billed nothing."""
    server.gone = True
    with pytest.raises(ModelUnavailable, match="server is gone") as failure:
        await (model.count_tokens(ask()) if counting else model.generate(ask(), ignore))
    assert failure.value.billed is False


@pytest.mark.parametrize("broken", [False, True])
async def test_a_beginning_that_cannot_be_restored_is_forgotten(
    server: FakeServer, model: LocalModel, broken: bool
) -> None:
    """The prompt is read whole, and answered."""
    where, when, which, why = (f"{EXAMPLES}Question: {w}?\nAnswer:" for w in ("where", "when", "which", "why"))
    for prompt in (where, when):
        await model.generate(ask(prompt), ignore)
    if broken:
        server.broken["restore"] = (400, b"{}")
    for prompt in (which, why):
        await model.generate(CHAT, ignore)
        assert (await model.generate(ask(prompt), ignore)).message.text == "blue"
    restored, saved = server.asked.count("restore"), server.asked.count("save")
    assert (restored, saved) == ((1, 2) if broken else (2, 1))


async def test_a_beginning_that_cannot_be_saved_does_no_harm(server: FakeServer, model: LocalModel) -> None:
    """As on a full disk."""
    server.broken["save"] = (500, b"{}")
    for word in ("where", "when", "which"):
        response = await model.generate(ask(f"{EXAMPLES}Question: {word}?\nAnswer:"), ignore)
        assert response.message.text == "blue"
        await model.generate(CHAT, ignore)
    assert server.asked.count("save") == 2
    assert "restore" not in server.asked


async def test_a_beginning_that_cannot_be_read_is_the_prompts_error(server: FakeServer, model: LocalModel) -> None:
    """The prompt holds it."""
    server.broken["read"] = (400, b'{"error": {"message": "not text"}}')
    await model.generate(ask(f"{EXAMPLES}Question: where?\nAnswer:"), ignore)
    with pytest.raises(RequestRefused, match="not text"):
        await model.generate(ask(f"{EXAMPLES}Question: when?\nAnswer:"), ignore)


async def test_an_answer_beside_tools_is_told_once_it_is_read(server: FakeServer, model: LocalModel) -> None:
    """Till then it is JSON of the adapter's own making, and only says that it goes on."""
    server.lines = streamed('{"answer": ', '"blue"}')
    heard: list[str] = []
    request = ModelRequest(messages=(UserMessage("what colour?"),), tools=(SEARCH,))
    response = await model.generate(request, heard.append)
    assert (response.message.text, response.message.tool_calls) == ("blue", ())
    assert heard == ["", "", "blue"]


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnknownModel, match=r"pip install 'agentrt\[local\]'"):
        LocalModel("local/smollm2-135m")
