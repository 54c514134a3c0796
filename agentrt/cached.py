"""A model that remembers its answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from os import PathLike
from pkgutil import resolve_name
from typing import Final, Protocol

import anyio

from agentrt.errors import DefinitionError
from agentrt.events import CacheHit
from agentrt.model import Model, ModelRequest, ModelResponse, Wrapper, ask
from agentrt.node import Context
from agentrt.usage import Usage

_FILE: Final = "agentrt.stores.answers:SqliteAnswers"


class Answers(Protocol):
    """Keep responses by key, for as long as there is room."""

    async def get(self, key: str) -> ModelResponse | None: ...

    async def put(self, key: str, response: ModelResponse) -> None: ...

    async def aclose(self) -> None: ...


class Cached(Wrapper):
    """Answer an equal request with the same response, at no cost and without asking the model.

    Requests are equal if the model's name and everything asked are, the settings included: give draws that should
    differ different seeds. Equal requests at the same time wait for the first one's answer. Errors are not kept, nor
    an answer that the budget cut short.

    size: how many answers are kept in memory; the one unused for longest goes first.
    path: keeps the answers in this SQLite file instead, across processes, without a bound.
    """

    attempts = 1

    def __init__(self, model: Model | str, *, size: int = 1000, path: str | PathLike[str] | None = None) -> None:
        super().__init__(model)
        if size < 1:
            raise DefinitionError(f"Cached(size={size}): keep at least one answer")
        self._answers = _InMemory(size) if path is None else _in_file(path)
        self._busy: dict[str, tuple[anyio.Lock, list[None]]] = {}
        self._tally = {"hits": 0, "misses": 0}

    def statistics(self) -> Mapping[str, int]:
        """Return how many requests were answered from the cache, and how many were not."""
        return dict(self._tally)

    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        key = _key(self.name, request)
        async with self._alone(ctx, key):
            if (known := await self._answers.get(key)) is not None:
                return self._hit(ctx, known)
            response = await ask(ctx, self.model, request)
            self._tally["misses"] += 1
            if not _was_cut(request, response):
                await self._answers.put(key, response)
            return response

    async def aclose(self) -> None:
        await self._answers.aclose()
        await super().aclose()

    def _hit(self, ctx: Context, known: ModelResponse) -> ModelResponse:
        self._tally["hits"] += 1
        ctx.record(CacheHit(path=ctx.path, at=ctx.clock(), model=self.name))
        ctx.text_delta(known.message.text)
        return replace(known, usage=Usage(), first_chunk=None)

    @asynccontextmanager
    async def _alone(self, ctx: Context, key: str) -> AsyncIterator[None]:
        """Let one request of a key in at a time; the lock is gone with the last one.

        Who waits lends the step's slot: the one inside may need it to go on.
        """
        lock, inside = self._busy.setdefault(key, (anyio.Lock(), []))
        inside.append(None)
        is_in = False

        async def enter() -> None:
            nonlocal is_in
            await lock.acquire()
            is_in = True

        try:
            await (ctx.wait(enter) if lock.locked() else enter())
            yield
        finally:
            if is_in:
                lock.release()
            inside.pop()
            if not inside:
                del self._busy[key]


def _key(name: str, request: ModelRequest) -> str:
    # All parts are frozen dataclasses and plain JSON values, so that their repr tells them apart, types and all.
    import hashlib  # 5 ms that importing agentrt should not take

    return hashlib.sha256(repr((name, request)).encode("utf-8", "surrogatepass")).hexdigest()


def _was_cut(request: ModelRequest, response: ModelResponse) -> bool:
    """Say whether the answer ended for want of tokens that the request would have allowed."""
    return response.finish_reason == "length" and response.usage.output_tokens < request.settings.max_tokens


class _InMemory:
    """Keep the answers used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, ModelResponse] = OrderedDict()

    async def get(self, key: str) -> ModelResponse | None:
        if (known := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
        return known

    async def put(self, key: str, response: ModelResponse) -> None:
        self._kept[key] = response
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    async def aclose(self) -> None:
        """Keep everything: closing a model releases connections, and this has none."""


def _in_file(path: str | PathLike[str]) -> Answers:
    answers: Answers = resolve_name(_FILE)(path)
    return answers
