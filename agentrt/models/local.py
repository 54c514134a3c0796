"""The embedded model: a GGUF file run in this process, on its cores, by llama.cpp's server.

The server is spoken to over its own HTTP address. Its direct calls would be shorter, but with them Ctrl-C waits for
the end of the generation, errors get lost and leaving with a call in flight crashes the process.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from agentrt.errors import ContextOverflow, ModelError, ModelUnavailable, RequestRefused, UnknownModel
from agentrt.model import ModelRequest, ModelResponse
from agentrt.models import weights
from agentrt.models.coalesce import Coalescer, Draw, is_greedy
from agentrt.models.constraint import read_answer, render_messages, schema_of
from agentrt.models.llama import Server, new_client, require_extra, running_server
from agentrt.models.prefix import Slot, SlotTable
from agentrt.usage import FREE, Price, Usage

if TYPE_CHECKING:
    import httpx

SLOTS: Final = 8
CONTEXT: Final = 2048
"""Tokens of context a slot; eight times that takes about 500 MB with the embedded model."""
_COUNTS_KEPT: Final = 512


class LocalModel:
    """Run `local/NAME`, an embedded model whose weights are fetched on first use, or `local/PATH.gguf`.

    It answers `slots` draws at once, each with `context` tokens; more wait in turn. Draws of one prompt whose seeds
    follow one another are read once: llama.cpp gives draw i of a request the seed `seed + i`, so each gets the answer
    it would get alone. Requests with tools or an `output_schema` are constrained to fit. Processes share nothing, all
    models of one file in a process share one server. A `LocalModel` belongs to one event loop.

    Raises `UnknownModel` if there is no such model or file, or `agentrt[local]` is not installed.
    """

    def __init__(self, name: str, *, slots: int = SLOTS, context: int = CONTEXT) -> None:
        self._name = name
        self._source = name.removeprefix("local/")
        self._is_path = self._source.endswith(".gguf")
        self._slots, self._context = slots, context
        require_extra(name)
        if self._is_path:
            self._check_file(Path(self._source).expanduser())
        else:
            weights.find(self._source)
        self._client: httpx.AsyncClient | None = None
        self._server: Server | None = None
        self._starting = anyio.Lock()
        self._saving = anyio.Lock()
        self._counts: OrderedDict[tuple[object, ...], int] = OrderedDict()
        self._counting: dict[tuple[object, ...], anyio.Lock] = {}
        self._draws = Coalescer(self._send, most=slots, slots=slots, consecutive=True, share_greedy=True)

    @property
    def name(self) -> str:
        return self._name

    @property
    def price(self) -> Price:
        return FREE

    def __repr__(self) -> str:
        return f"<LocalModel {self._name!r}>"

    async def count_tokens(self, request: ModelRequest) -> int:
        """Return how many tokens the prompt has with its template; raises what `generate` raises."""
        key = (request.prompt,) if request.prompt is not None else (request.messages, json.dumps(_asked(request)))
        # Draws of one prompt wait for one count, so that they are ready together afterwards and become one request.
        lock = self._counting.setdefault(key, anyio.Lock(fast_acquire=True))
        try:
            async with lock:
                if key not in self._counts:
                    self._counts[key] = await self._count(request)
        finally:
            if not lock.statistics().tasks_waiting:
                self._counting.pop(key, None)
        self._counts.move_to_end(key)
        if len(self._counts) > _COUNTS_KEPT:
            self._counts.popitem(last=False)
        return self._counts[key]

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        """Return what is left of a slot's context."""
        return self._context - input_tokens

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer, from one request with the concurrent draws of the same prompt.

        Raises `ContextOverflow`, `RequestRefused` and `ModelUnavailable`.
        """
        if request.prompt is not None:
            await self._connect()
            self._table.announce(request.prompt)
        return await self._draws.generate(request, on_text)

    async def aclose(self) -> None:
        """Close the connections; the server stays for other models of the same file, until the process ends."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _count(self, request: ModelRequest) -> int:
        client = await self._connect()
        if request.prompt is not None:
            path, body = "/tokenize", {"content": request.prompt, "add_special": True, "parse_special": True}
        else:
            path, body = "/v1/chat/completions/input_tokens", {"messages": render_messages(request)}
        with _Mapped(self._name):
            reply = await client.post(path, json=body)
        if reply.status_code != 200:
            raise _refusal(self._name, reply.status_code, reply.content)
        answer = reply.json()
        return len(answer["tokens"]) if request.prompt is not None else int(answer["input_tokens"])

    @property
    def _table(self) -> SlotTable:
        assert self._server is not None
        return self._server.table

    async def _send(self, request: ModelRequest, draws: Sequence[Draw]) -> None:
        client = await self._connect()
        table, prompt = self._table, request.prompt
        slot = None if prompt is None else table.take(prompt)
        if slot is None or prompt is None:
            await self._ask(client, request, draws, None)
            table.forget()
            return
        try:
            await self._prepare(client, prompt, slot)
            await self._ask(client, request, draws, slot)
        finally:
            table.give_back(slot, prompt)
            if len(_shares(request, draws)) > 1:  # the other draws were given slots by the server
                table.forget()

    async def _prepare(self, client: httpx.AsyncClient, prompt: str, slot: Slot) -> None:
        """Give the slot what is saved of the prompt, saving first what it shares with others."""
        table = self._table
        if table.worth_saving(prompt):
            async with self._saving:  # the others with this beginning wait for it, instead of all reading it
                if text := table.worth_saving(prompt):
                    await self._save(client, text, slot)
        if (known := table.saved(prompt)) and table.is_worth_restoring(known[0], slot, prompt):
            if await self._act(client, slot, "restore", known[1]):
                slot.text = known[0]
            else:
                table.drop(known[0])

    async def _save(self, client: httpx.AsyncClient, text: str, slot: Slot) -> None:
        with _Mapped(self._name):
            reply = await client.post("/v1/completions", json={"prompt": text, "max_tokens": 1, "id_slot": slot.id})
        if reply.status_code != 200:
            raise _refusal(self._name, reply.status_code, reply.content)
        slot.text = text
        file = self._table.save(text)
        if not await self._act(client, slot, "save", file):
            self._table.drop(text)

    async def _act(self, client: httpx.AsyncClient, slot: Slot, action: str, file: str) -> bool:
        with _Mapped(self._name):
            reply = await client.post(f"/slots/{slot.id}", params={"action": action}, json={"filename": file})
        return reply.status_code == 200

    async def _ask(
        self, client: httpx.AsyncClient, request: ModelRequest, draws: Sequence[Draw], slot: Slot | None
    ) -> None:
        shares = _shares(request, draws)
        answers = [_Answer(share, request, self._name, first=i == 0) for i, share in enumerate(shares)]
        path, body = _asking(request, len(shares))
        if slot is not None:
            body["id_slot"] = slot.id
        async with self._streamed(client, path, body) as chunks:
            ended: _Answer | None = None
            async for chunk in chunks:
                for choice in chunk["choices"]:
                    answer = answers[choice["index"]]
                    if answer.add(choice):
                        ended = answer
                # Each draw ends with a count of its own, in the same chunk or the next; only there are they apart.
                if ended is not None and "usage" in chunk:
                    ended.finish(chunk["id"], chunk["usage"])
                if all(draw.over for draw in draws):
                    return

    @asynccontextmanager
    async def _streamed(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        with _Mapped(self._name):
            async with client.stream("POST", path, json=body) as reply:
                if reply.status_code != 200:
                    raise _refusal(self._name, reply.status_code, await reply.aread())
                yield self._chunks(reply)

    async def _chunks(self, reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        async for line in reply.aiter_lines():
            field, _, data = line.partition(": ")
            if field == "error":
                raise _refusal(self._name, 500, data.encode())
            if field != "data" or data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                raise _refusal(self._name, int(chunk["error"].get("code", 500)), data.encode())
            yield chunk

    async def _connect(self) -> httpx.AsyncClient:
        async with self._starting:
            if self._server is None:
                self._server = await self._start()
            if self._client is None:
                self._client = new_client(self._server)
            return self._client

    async def _start(self) -> Server:
        cancelled = threading.Event()
        try:
            return await anyio.to_thread.run_sync(self._load, cancelled, abandon_on_cancel=True)
        finally:
            cancelled.set()  # a download under way in the thread stops

    def _load(self, cancelled: threading.Event) -> Server:
        path = Path(self._source).expanduser() if self._is_path else weights.pull(self._source, cancelled=cancelled)
        self._check_file(path)
        return running_server(self._name, path.resolve(), self._slots, self._context)

    def _check_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise UnknownModel(f"cannot read {path}: {error.strerror}", model=self._name) from error
        if magic != b"GGUF":
            raise UnknownModel(f"{path} is not a GGUF file", model=self._name)


class _Answer:
    """Gather from the stream the answer of one draw, or of several that are sure to be the same."""

    def __init__(self, draws: Sequence[Draw], request: ModelRequest, model: str, *, first: bool) -> None:
        self._draws, self._request, self._model, self._first = draws, request, model, first
        self._pieces: list[str] = []
        self._reason = "stop"
        self._asked = perf_counter()
        self._first_chunk: float | None = None

    def add(self, choice: dict[str, Any]) -> bool:
        """Take a chunk's choice; return whether it is the draw's last."""
        piece = choice["text"] if "text" in choice else choice["delta"].get("content")
        if piece:
            if self._first_chunk is None:
                self._first_chunk = perf_counter() - self._asked
            self._pieces.append(piece)
            # With tools it is JSON of our own making: told once it is read, and till then that it goes on.
            self._tell("" if self._request.tools else piece)
        if (reason := choice["finish_reason"]) is not None:
            self._reason = reason
        return reason is not None

    def finish(self, id: str, usage: dict[str, Any]) -> None:
        seed = self._draws[0].seed or 0
        message = read_answer("".join(self._pieces), self._request, f"{id}-{seed}")
        if self._request.tools and message.text:
            self._tell(message.text)
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        response = ModelResponse(
            message=message,
            usage=Usage(
                input_tokens=usage["prompt_tokens"] if self._first else 0,
                cached_tokens=cached if self._first else 0,
                output_tokens=usage["completion_tokens"],
            ),
            finish_reason="tool_calls" if message.tool_calls else self._reason,
            model=self._model,
            id=id,
            first_chunk=self._first_chunk,
        )
        waiting = [draw for draw in self._draws if not draw.over]
        for i, draw in enumerate(waiting):
            draw.finish(response if i == 0 else replace(response, usage=Usage()))

    def _tell(self, piece: str) -> None:
        for draw in self._draws:
            draw.text(piece)


def _shares(request: ModelRequest, draws: Sequence[Draw]) -> list[Sequence[Draw]]:
    """Return which draws share an answer: at temperature 0 all of them, since they cannot differ."""
    return [draws] if is_greedy(request) else [[draw] for draw in draws]


def _asking(request: ModelRequest, n: int) -> tuple[str, dict[str, Any]]:
    """Return the path and the body that ask for n draws."""
    settings = request.settings
    body: dict[str, Any] = {
        "n": n,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": None if settings.seed is None else settings.seed % 2**31,
        "stop": list(settings.stop) or None,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = {key: value for key, value in body.items() if value is not None}
    if request.prompt is not None:
        schema = {"json_schema": request.output_schema} if request.output_schema else {}
        return "/v1/completions", body | {"prompt": request.prompt} | schema
    return "/v1/chat/completions", body | _asked(request) | {"messages": render_messages(request)}


def _asked(request: ModelRequest) -> dict[str, Any]:
    schema = schema_of(request)
    if schema is None:
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


class _Mapped:
    """Map httpx's errors to this package's, once."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import httpx

        if isinstance(error, httpx.TransportError):
            raise ModelUnavailable(
                f"the model's server is gone ({error!r})", model=self._model, billed=False
            ) from error


def _refusal(model: str, status: int, body: bytes) -> ModelError:
    try:
        error = json.loads(body)["error"]
        kind, message = str(error.get("type", "")), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        kind, message = "", body.decode(errors="replace")[:200]
    if kind == "exceed_context_size_error" or "context size" in message.lower():
        return ContextOverflow(f"{message}; shorten the prompt or give the model more context", model=model)
    if 400 <= status < 500:
        return RequestRefused(message, model=model)
    return ModelUnavailable(message or f"status {status}", model=model, billed=False)
