"""Draws: concurrent requests that differ in the seed alone, sent as one request.

A prompt asked for eight answers in eight requests is read, and billed, eight times; in one request with `n=8` once.
So callers that are ready at the same time share a request: the first leads it, in its own task, and the others wait.
When the leader is cancelled another caller takes over and asks again for what is missing, so no task is without a
parent and nobody's cancellation hurts anybody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import replace
from typing import Final, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from agentrt.errors import ModelError, ModelUnavailable
from agentrt.model import ModelRequest, ModelResponse, unbilled

IDLE_TICKS: Final = 5
"""Turns of the event loop without a newcomer after which a request is sent: no timer, so an idle loop loses nothing."""


class Draw:
    """Be one caller's part of a shared request; the sender feeds it `text` and then, once, `finish`."""

    __slots__ = ("_on_text", "error", "group", "over", "response", "seed", "woken")

    def __init__(self, seed: int | None, on_text: Callable[[str], None]) -> None:
        self.seed = seed
        self.over = False
        self.response: ModelResponse | None = None
        self.error: Exception | None = None
        self.woken = anyio.Event()
        self.group: _Group
        self._on_text = on_text

    def text(self, piece: str) -> None:
        """Pass on a piece of the answer, unless the caller has gone."""
        if not self.over:
            self._on_text(piece)

    def finish(self, response: ModelResponse) -> None:
        """Hand the caller its answer, unless it has gone."""
        if not self.over:
            self.response = response
            self.end()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.end()

    def end(self) -> None:
        self.over = True
        self.group.draws.remove(self)
        self.woken.set()


class _Group:
    """Hold the callers of one request that have no answer yet; while there are any, one of them leads.

    `is_sent` says that somebody may be billed for it.
    """

    __slots__ = ("draws", "is_sent", "leader", "request")

    def __init__(self, request: ModelRequest, draws: list[Draw]) -> None:
        self.request = request
        self.draws = draws
        self.leader = draws[0]
        self.is_sent = False
        for draw in draws:
            draw.group = self

    def add(self, draw: Draw) -> None:
        draw.group = self
        self.draws.append(draw)

    def leave(self, draw: Draw) -> None:
        """Let a caller go, answered or not; if it led, the next one that waits takes over."""
        if not draw.over:
            draw.end()
        if self.leader is draw and self.draws:
            self.leader = self.draws[0]
            self.leader.woken.set()

    def fail(self, error: Exception) -> None:
        for draw in tuple(self.draws):
            draw.fail(error)


Send: TypeAlias = Callable[[ModelRequest, Sequence[Draw]], Awaitable[None]]
"""Ask for as many answers as there are draws, the request's seed being the first one's, and finish every draw. The
first draw is charged the prompt, the others are not. A sender may stop as soon as all draws are `over`."""


class Coalescer:
    """Send concurrent requests that differ in the seed alone as one, of at most `most` draws.

    With `slots` at most so many draws are under way at once; requests wait in turn, and can still be joined then.
    With `share_greedy` the sender gives all draws at temperature 0 one answer, which takes one slot. With
    `consecutive` only seeds that follow one another share a request: for a server that gives draw i the seed
    `seed + i`, an answer then does not depend on who else was asking.
    """

    def __init__(
        self,
        send: Send,
        *,
        most: int,
        slots: int | None = None,
        consecutive: bool = False,
        share_greedy: bool = False,
    ) -> None:
        self._send = send
        self._most = most if slots is None else min(most, slots)
        self._consecutive = consecutive
        self._share_greedy = share_greedy
        self._open: dict[Hashable, _Group] = {}
        self._turn = anyio.Lock()
        self._slots = None if slots is None else anyio.Semaphore(slots, fast_acquire=True)

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Return this caller's own answer; raises what the shared request raises."""
        draw = Draw(request.settings.seed, on_text)
        self._join(request, draw)
        try:
            with unbilled(still=lambda: not draw.group.is_sent):
                while not draw.over:
                    if draw.group.leader is draw:
                        await self._lead(draw.group)
                    else:
                        await draw.woken.wait()
        finally:
            draw.group.leave(draw)
        return _outcome(draw)

    def _join(self, request: ModelRequest, draw: Draw) -> None:
        key = _key(request)
        group = self._open.get(key)
        if group is None or len(group.draws) >= self._most:
            self._open[key] = _Group(request, [draw])
        elif _same(group.request, request):
            group.add(draw)
        else:  # the key leaves out what cannot be hashed; such near twins are rare and go alone
            _Group(request, [draw])

    async def _lead(self, group: _Group) -> None:
        await _until_nobody_joins(group)
        try:
            async with self._admitted(group):
                group.is_sent = True
                settings = replace(group.request.settings, seed=group.draws[0].seed)
                await self._send(replace(group.request, settings=settings), tuple(group.draws))
            if group.draws:
                group.fail(ModelUnavailable("the answer ended before it was complete"))
        except Exception as error:
            group.fail(error)
            if group.leader.error is not error:  # it has its own answer already, so nobody else would see the error
                return
            raise

    @asynccontextmanager
    async def _admitted(self, group: _Group) -> AsyncIterator[None]:
        """Wait for as many slots as there are draws; until its turn comes the group can be joined."""
        taken = 0
        try:
            # Only the holder of the turn takes slots: two groups that each hold half of what they need would wait
            # for each other for ever.
            async with self._turn:
                self._close(group)
                while self._slots is not None and taken < self._needed(group):
                    await self._slots.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                assert self._slots is not None
                self._slots.release()

    def _needed(self, group: _Group) -> int:
        return 1 if self._share_greedy and is_greedy(group.request) else len(group.draws)

    def _close(self, group: _Group) -> None:
        key = _key(group.request)
        if self._open.get(key) is group:
            del self._open[key]
        if not self._consecutive:
            return
        mine = _run_of_seeds(group.draws, group.leader)
        if rest := [d for d in group.draws if d not in mine]:
            group.draws[:] = mine
            others = _Group(group.request, rest)
            self._open.setdefault(key, others)
            others.leader.woken.set()
        else:
            group.draws[:] = mine


def is_greedy(request: ModelRequest) -> bool:
    """Say whether all draws of a request must be the same."""
    return request.settings.temperature == 0


async def _until_nobody_joins(group: _Group) -> None:
    joined = 0
    while joined != len(group.draws):
        joined = len(group.draws)
        for _ in range(IDLE_TICKS):
            await checkpoint()


def _run_of_seeds(draws: Sequence[Draw], leader: Draw) -> list[Draw]:
    """Return the draws whose seeds make an unbroken row with the leader's, in order; without seeds, all of them."""
    if leader.seed is None:
        return [d for d in draws if d.seed is None]
    by_seed = {d.seed: d for d in draws if d.seed is not None}
    by_seed[leader.seed] = leader
    low = high = leader.seed
    while low - 1 in by_seed:
        low -= 1
    while high + 1 in by_seed:
        high += 1
    return [by_seed[seed] for seed in range(low, high + 1)]


def _key(request: ModelRequest) -> Hashable:
    tools = tuple(tool.name for tool in request.tools)
    return request.prompt, request.messages, tools, replace(request.settings, seed=None)


def _same(one: ModelRequest, other: ModelRequest) -> bool:
    return one.tools == other.tools and one.output_schema == other.output_schema


def _outcome(draw: Draw) -> ModelResponse:
    if draw.response is not None:
        return draw.response
    error = draw.error
    assert error is not None
    if not isinstance(error, ModelError):
        raise error
    own = copy(error)  # one instance raised in several tasks would collect all their tracebacks
    own.__cause__ = error.__cause__
    raise own
