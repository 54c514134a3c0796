"""litellm against a server on this machine that speaks OpenAI's protocol."""

import gc
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest

from agentrt import END, START, Agent, Graph, StepFailed, collect, run
from agentrt.errors import (
    AuthenticationFailed,
    ContextOverflow,
    ModelError,
    ModelUnavailable,
    RateLimited,
    RequestRefused,
    UnknownModel,
)
from agentrt.events import Event, RunFailed
from agentrt.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, ToolSpec, UserMessage
from agentrt.model import Model, ModelRequest, ModelResponse, ModelSettings
from agentrt.models.litellm import LitellmModel, _messages
from agentrt.models.provider import KEYS, load
from agentrt.models.tokens import count_request, count_text, vocabulary
from agentrt.usage import FREE, Price, Usage

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Accessing the .model_:DeprecationWarning"),  # litellm 1.100 with pydantic 2.14
]


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Import litellm before the first test, which should not pay for it: some seconds."""
    load()


SEARCH = ToolSpec("search", "Search.", {"type": "object", "properties": {"query": {"type": "string"}}})
ERRORS: dict[str, tuple[int, str, dict[str, str]]] = {
    "e401": (401, "Incorrect API key provided", {}),
    "e404": (404, "The model `e404` does not exist", {}),
    "e429": (429, "Rate limit reached", {"retry-after": "7"}),
    "busy": (429, "Rate limit reached", {}),
    "e400": (400, "top_p must be at most 1", {}),
    "long": (400, "This model's maximum context length is 128 tokens", {}),
    "e500": (500, "boom", {}),
    "e503": (503, "overloaded", {}),
}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 6,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
CALL_DELTAS = [
    {"index": 0, "id": "c1", "type": "function", "function": {"name": "search", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"query": '}},
    {"index": 0, "function": {"arguments": '"bells"}'}},
    {"index": 1, "id": "c2", "type": "function", "function": {"name": "search", "arguments": "{}"}},
]


class FakeProvider(ThreadingHTTPServer):
    """Speak OpenAI's protocol; what is answered depends on the model's name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeProvider

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        if body["model"] in ERRORS:
            status, message, headers = ERRORS[body["model"]]
            self.reply(status, {"error": {"message": message, "type": "invalid_request_error"}}, headers)
        elif self.path.endswith("/messages"):
            self.anthropic()
        elif body.get("stream"):
            try:
                self.stream(body)
            except OSError:
                self.server.hung_up.set()
        else:
            self.whole(body["model"], body["n"])

    def anthropic(self) -> None:
        """Stream as Anthropic does: what was read at first, what was written at the end."""
        read = {"input_tokens": 100, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200}
        message = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": []}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for event in (
            {"type": "message_start", "message": message | {"usage": read | {"output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "blue"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}},
            {"type": "message_stop"},
        ):
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def reply(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def whole(self, model: str, n: int) -> None:
        choices = [
            {"index": i, "message": {"role": "assistant", "content": "word " * (i + 1)}, "finish_reason": "stop"}
            for i in range(n)
        ]
        usage = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
        self.reply(
            200,
            {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": choices, "usage": usage},
        )

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        deltas: list[dict[str, Any]] = [{"content": piece} for piece in ("blue ", "is ", "nice")]
        if body.get("tools"):
            deltas = [{"tool_calls": [delta]} for delta in CALL_DELTAS]
        for delta in deltas:
            self.event(body, delta, None)
        if body["model"] == "endless":
            self.until_hung_up(body)
            return
        self.event(body, {}, "tool_calls" if body.get("tools") else "stop")
        self.event(body, None, None, USAGE)
        self.wfile.write(b"data: [DONE]\n\n")

    def event(
        self,
        body: dict[str, Any],
        delta: dict[str, Any] | None,
        reason: str | None,
        usage: dict[str, Any] | None = None,
    ) -> None:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": choices}
        self.wfile.write(b"data: " + json.dumps(chunk | ({"usage": usage} if usage else {})).encode() + b"\n\n")
        self.wfile.flush()

    def until_hung_up(self, body: dict[str, Any]) -> None:
        while not self.server.hung_up.wait(0.01):
            self.event(body, {"content": "on "}, None)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.hung_up.set()
        server.shutdown()
        thread.join()


@pytest.fixture
async def named(provider: FakeProvider) -> AsyncIterator[Callable[[str], LitellmModel]]:
    """Build models that ask the fake provider."""
    models: list[LitellmModel] = []

    def build(name: str) -> LitellmModel:
        models.append(LitellmModel(name, api_base=provider.url, api_key="key"))
        return models[-1]

    yield build
    for model in models:
        await model.aclose()


def ignore(_text: str) -> None: ...


def ask(*, seed: int | None = None, **parts: Any) -> ModelRequest:
    settings = ModelSettings(max_tokens=20, seed=seed)
    return ModelRequest(**{"messages": (UserMessage("hi"),), "settings": settings, **parts})


async def test_text_streams_and_usage_is_the_bill(named: Callable[[str], LitellmModel], provider: FakeProvider) -> None:
    pieces: list[str] = []
    response = await named("openai/any").generate(ask(), pieces.append)
    assert [piece for piece in pieces if piece] == ["blue ", "is ", "nice"]
    assert response.message == AssistantMessage("blue is nice")
    usage = response.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens) == (10, 4, 6, 2)
    assert response.first_chunk is not None
    assert provider.asked[0]["max_tokens"] == 20


async def test_anthropics_cache_is_counted(named: Callable[[str], LitellmModel], provider: FakeProvider) -> None:
    """What is read from it and what is written to it are parts of the input."""
    model = LitellmModel("anthropic/claude-sonnet-4-5", api_base=provider.url.removesuffix("/v1"), api_key="key")
    response = await model.generate(ask(), ignore)
    await model.aclose()
    usage = response.usage
    assert response.message.text == "blue"
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (1300, 1000, 200)
    assert usage.output_tokens == 50


async def test_calls_of_tools_are_put_together(named: Callable[[str], LitellmModel], provider: FakeProvider) -> None:
    heard: list[str] = []
    response = await named("openai/any").generate(ask(tools=(SEARCH,)), heard.append)
    assert len(heard) >= 4, "chunks without text show that the stream is alive"
    assert not any(heard)
    assert response.message.tool_calls == (
        ToolCall("c1", "search", '{"query": "bells"}'),
        ToolCall("c2", "search", "{}"),
    )
    assert response.finish_reason == "tool_calls"
    assert provider.asked[0]["tools"][0]["function"]["name"] == "search"


async def test_a_conversation_keeps_its_roles(named: Callable[[str], LitellmModel], provider: FakeProvider) -> None:
    call = ToolCall("c1", "search", "{}")
    said = (SystemMessage("s"), UserMessage("u"), AssistantMessage("", (call,)), ToolMessage("c1", "search", "r", True))
    schema = {"type": "object", "properties": {}}
    await named("openai/gpt-4o").generate(ask(messages=said, output_schema=schema), ignore)
    asked = provider.asked[0]
    assert [m["role"] for m in asked["messages"]] == ["system", "user", "assistant", "tool"]
    assert asked["messages"][2]["tool_calls"][0]["id"] == asked["messages"][3]["tool_call_id"] == "c1"
    assert asked["messages"][3]["content"] == "Error: r"
    assert asked["response_format"]["json_schema"]["schema"] == schema


async def test_reasoning_models_get_their_own_name_for_max_tokens(
    named: Callable[[str], LitellmModel], provider: FakeProvider
) -> None:
    await named("openai/gpt-5-mini").generate(ask(), ignore)
    assert provider.asked[0]["max_completion_tokens"] == 20


async def test_draws_at_once_are_one_request(named: Callable[[str], LitellmModel], provider: FakeProvider) -> None:
    """The bill is split without losing a token: the prompt to the first, the output by length."""
    model = named("openai/any")
    drawn: dict[int, ModelResponse] = {}

    async def one(seed: int) -> None:
        drawn[seed] = await model.generate(ask(seed=seed), ignore)

    async with anyio.create_task_group() as tasks:
        for seed in range(3):
            tasks.start_soon(one, seed)
    assert [body["n"] for body in provider.asked] == [3]
    assert [drawn[i].message.text.strip() for i in range(3)] == ["word", "word word", "word word word"]
    assert [drawn[i].usage.input_tokens for i in range(3)] == [10, 0, 0]
    assert sum(drawn[i].usage.output_tokens for i in range(3)) == 7


@pytest.mark.parametrize(
    ("name", "kind", "says", "billed"),
    [
        ("e401", AuthenticationFailed, "Incorrect API key", False),
        ("e404", UnknownModel, "does not exist", False),
        ("e429", RateLimited, "Rate limit", False),
        ("e400", RequestRefused, "top_p", False),
        ("long", ContextOverflow, "128 tokens", False),
        ("e500", ModelUnavailable, "boom", None),
        ("e503", ModelUnavailable, "overloaded", False),
    ],
)
async def test_errors_are_this_packages(
    named: Callable[[str], LitellmModel], name: str, kind: type[ModelError], says: str, billed: bool | None
) -> None:
    with pytest.raises(kind, match=says) as failure:
        await named(f"openai/{name}").generate(ask(), ignore)
    assert failure.value.billed is billed
    assert failure.value.__cause__ is not None
    assert "\n" not in str(failure.value)
    if isinstance(failure.value, RateLimited):
        assert failure.value.retry_after == 7.0


async def test_a_refused_connection_is_not_billed() -> None:
    model = LitellmModel("openai/any", api_base="http://127.0.0.1:9/v1", api_key="key")
    with pytest.raises(ModelUnavailable, match="cannot be reached") as failure:
        await model.generate(ask(), ignore)
    assert failure.value.billed is False
    await model.aclose()


@pytest.mark.parametrize(
    ("name", "variable"), [("openai/gpt-5-mini", "OPENAI_API_KEY"), ("anthropic/any", "ANTHROPIC_API_KEY")]
)
async def test_a_missing_key_is_named(name: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    model = LitellmModel(name)
    with pytest.raises(AuthenticationFailed, match=f"set the environment variable {variable}"):
        await model.generate(ask(), ignore)
    await model.aclose()


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (v for variables in KEYS.values() for v in variables):
        monkeypatch.delenv(variable, raising=False)


async def arrived(provider: FakeProvider, name: str) -> bool:
    """Say whether a call reaches the provider, whatever it answers."""
    model = LitellmModel(name, api_base=provider.url)
    with suppress(ModelError):
        await model.generate(ask(), ignore)
    await model.aclose()
    await close_what_litellm_left()
    return bool(provider.asked)


async def close_what_litellm_left() -> None:
    """Close the sessions that litellm makes for some providers and forgets; they complain as the process ends."""
    import aiohttp

    for session in [o for o in gc.get_objects() if isinstance(o, aiohttp.ClientSession) and not o.closed]:
        await session.close()


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("name", list(KEYS))
async def test_without_a_key_litellm_would_send_nothing(
    name: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is refused that would work."""
    monkeypatch.setattr("agentrt.models.provider.KEYS", {})
    assert not await arrived(provider, f"{name}/any")


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize(("name", "variable"), [(n, v) for n, variables in KEYS.items() for v in variables])
async def test_each_variable_may_hold_the_key(
    name: str, variable: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "key")
    assert await arrived(provider, f"{name}/any")


@pytest.mark.usefixtures("keyless")
async def test_a_key_that_litellm_was_given_is_one(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load(), "openai_key", "key")
    assert await arrived(provider, "openai/any")


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("name", ["mistral/any", "groq/any", "hosted_vllm/any", "ollama_chat/any"])
async def test_others_may_do_without_a_key(name: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{name.partition('/')[0].upper()}_API_KEY", raising=False)
    assert await arrived(provider, name)


@pytest.mark.usefixtures("keyless")
async def test_branches_without_a_key_are_charged_nothing() -> None:
    """One fails and the others are cancelled, none of them half-way into a call."""
    agent = Agent("agent", model="openai/gpt-5-mini", settings=ModelSettings(max_tokens=100))
    graph = Graph("graph", input=list[str])
    graph.edge(START, agent, each=True)
    graph.edge(agent, END, join=collect)
    events: list[Event] = []
    with pytest.raises(StepFailed, match="OPENAI_API_KEY"):
        await run(graph, list("abcdefgh"), observers=[events.append])
    (end,) = (e for e in events if isinstance(e, RunFailed))
    assert end.usage.tokens == 0
    gc.collect()  # a coroutine that was never awaited would warn now


async def test_an_unknown_provider_is_told_what_to_write() -> None:
    with pytest.raises(UnknownModel, match="provider/model"):
        await LitellmModel("nosuch/any").count_tokens(ask())


async def test_a_setting_the_model_does_not_take_is_refused(named: Callable[[str], LitellmModel]) -> None:
    request = ask(settings=ModelSettings(max_tokens=20, temperature=0.5))
    with pytest.raises(RequestRefused, match="temperature"):
        await named("openai/gpt-5-mini").generate(request, ignore)


async def test_cancelling_hangs_up(named: Callable[[str], LitellmModel], provider: FakeProvider) -> None:
    model = named("openai/endless")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model.generate, ask(), lambda _: tasks.cancel_scope.cancel())
    assert await anyio.to_thread.run_sync(provider.hung_up.wait, 10)


async def test_counting_never_counts_too_few(named: Callable[[str], LitellmModel]) -> None:
    """The count is an upper estimate, more so where the vocabulary is not known, whatever the provider's name."""
    request = ask(messages=(UserMessage("hello world " * 50),))
    ours = await named("openai/gpt-4o").count_tokens(request)
    other = await named("anthropic/any").count_tokens(request)
    assert 100 <= ours < other == await named("openai/my-own-server").count_tokens(request)
    long = ask(messages=(UserMessage("hello world " * 20_000),))
    assert await named("openai/gpt-4o").count_tokens(long) >= 40_000


async def test_a_closed_model_can_be_used_again(named: Callable[[str], LitellmModel]) -> None:
    model = named("openai/any")
    await model.generate(ask(), ignore)
    await model.aclose()
    assert (await model.generate(ask(), ignore)).message.text == "blue is nice"


def test_prices_need_neither_litellm_nor_a_network() -> None:
    """Loading litellm takes seconds; a graph is validated without it."""
    code = (
        "import sys; from agentrt.models.litellm import LitellmModel as M; "
        "print(M('openai/gpt-5-mini').price, M('ollama/any').price, M('openai/nosuch').price, 'litellm' in sys.modules)"
    )
    prices: Sequence[Price | None] = (Price(250_000, 2_000_000, 25_000), FREE, None)
    assert run_python(code) == " ".join(map(str, prices)) + " False\n"


def run_python(code: str) -> str:
    import subprocess

    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_window_and_the_longest_answer_are_the_tables() -> None:
    assert LitellmModel("openai/gpt-4o").max_output(ask(), 1000) == 16_384
    assert LitellmModel("openai/gpt-4o").max_output(ask(), 127_990) == 10
    assert LitellmModel("openai/gpt-4o").max_output(ask(), 200_000) < 1
    assert LitellmModel("openai/nosuch").max_output(ask(), 1000) == 20


def test_a_count_is_the_vocabularys_own() -> None:
    """Not English text counts for less in the newer one, and each model is counted in its own."""
    words = "Привет мир, как дела? 你好世界。" * 20
    load()
    new, old = (count_text(f"openai/{name}", words) for name in ("gpt-5-mini", "gpt-3.5-turbo"))
    assert new < old == count_text("ollama/any", words)
    assert [vocabulary(n) for n in ("azure/gpt-4o", "openrouter/openai/o3", "openai/llama")] == ["o200k_base"] * 2 + [
        None
    ]


async def test_a_stream_without_usage_is_charged_its_worst_case(named: Callable[[str], LitellmModel]) -> None:
    """Marked uncertain: reasoning may be billed that never showed."""
    request = ask()
    usage = named("openai/any")._worst_usage(request)
    prompt = await named("openai/any").count_tokens(request)
    assert usage == Usage(input_tokens=prompt, output_tokens=20, uncertain=prompt + 20)


def test_what_the_model_said_and_called_is_counted() -> None:
    """Its words, and the names and arguments of its calls, are part of the next prompt."""
    question, called = UserMessage("hi"), ToolCall("c1", "search", '{"query": "the bells of the old town"}')
    counts = [
        count_request("openai/gpt-4o", ask(messages=(question, *said)))
        for said in ([], [AssistantMessage("let me see")], [AssistantMessage("let me see", (called,))])
    ]
    assert counts[0] + 3 <= counts[1]
    assert counts[1] + 10 <= counts[2]


def test_it_is_a_model() -> None:
    assert isinstance(LitellmModel("openai/any"), Model)


def test_a_raw_prompt_is_what_the_user_says() -> None:
    """A request with a prompt sends that, and not the conversation it was written from."""
    request = ModelRequest(messages=(UserMessage("question"),), prompt="examples\nquestion")
    assert _messages(request, schema_in_prompt=False) == [{"role": "user", "content": "examples\nquestion"}]


def test_a_price_of_ones_own_goes_over_the_tables() -> None:
    """Providers and contracts are more than tables know."""
    assert LitellmModel("openai/gpt-5-mini", price=Price(1, 2)).price == Price(1, 2)


async def test_what_a_model_takes_is_asked_once(
    named: Callable[[str], LitellmModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though many ask at once, and again later: it takes litellm a while to load."""
    litellm, asked = load(), list[str]()
    supported = litellm.get_supported_openai_params

    def look_up(name: str) -> list[str]:
        asked.append(name)
        return supported(name)  # type: ignore[no-any-return]

    monkeypatch.setattr(litellm, "get_supported_openai_params", look_up)
    model = named("openai/any")
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(model.count_tokens, ask())
    await model.count_tokens(ask())
    assert asked == ["openai/any"]


def test_a_model_that_takes_no_schema_is_told_in_words() -> None:
    """In front of what was said; the answer is read and checked as every other."""
    request = ask(output_schema={"type": "object", "required": ["x"]})
    told, *rest = _messages(request, schema_in_prompt=True)
    assert told["role"] == "system"
    assert '"required": ["x"]' in told["content"]
    assert rest == _messages(request, schema_in_prompt=False)


async def test_a_provider_need_not_say_when_to_come_back(named: Callable[[str], LitellmModel]) -> None:
    """Then the back-off decides."""
    with pytest.raises(RateLimited) as refused:
        await named("openai/busy").generate(ask(), ignore)
    assert refused.value.retry_after is None
