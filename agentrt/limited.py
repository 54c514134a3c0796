"""A model asked no faster than its provider allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import anyio

from agentrt.errors import BudgetExceeded, DefinitionError, RateLimited
from agentrt.events import RateLimitWaited
from agentrt.limiter import Adaptive, Limiter, Place
from agentrt.model import Model, ModelRequest, ModelResponse, Wrapper, ask, is_unbilled
from agentrt.node import Context
from agentrt.retry import Retry, persist

_RETRY: Final = Retry(attempts=8, backoff=1.0, on=RateLimited)


class Limited(Wrapper):
    """Hold back calls of a model so that its provider need not refuse them, in one queue, in order of arrival.

    rpm, tpm: requests and tokens a minute. Unused ones are saved up, a minute's worth at most, as providers do. A
        call takes its prompt and `max_tokens` at first, and gives back what it did not use.
    concurrency: how many calls may be under way at once; "adaptive" finds out: more while all goes well, half as many
        once the provider refuses.
    retry: how a call that failed is tried again, in its old place; without it, one that the provider refused all the
        same (429). Nobody starts before the provider's `retry_after` is over.

    Share one `Limited` among all who share the quota: agents, and runs one after another. A call that waits holds no
    budget and no slot. Put other wrappers around it, not inside: what it limits is one call of the model within.
    Raises `DefinitionError` for limits below one.
    """

    spares = False

    def __init__(
        self,
        model: Model | str,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        concurrency: int | Literal["adaptive"] | None = None,
        retry: Retry = _RETRY,
    ) -> None:
        super().__init__(model)
        for name, limit in (("rpm", rpm), ("tpm", tpm), ("concurrency", concurrency)):
            if isinstance(limit, int) and limit < 1:
                raise DefinitionError(f"Limited({name}={limit}): at this limit no call could ever start")
        if isinstance(concurrency, str) and concurrency != "adaptive":
            raise DefinitionError(f'Limited(concurrency={concurrency!r}): write a number, or "adaptive"')
        self.retry = retry
        self.attempts = retry.attempts
        self._limiter = Limiter(
            rpm=rpm, tpm=tpm, concurrency=Adaptive() if isinstance(concurrency, str) else concurrency
        )

    def statistics(self) -> Mapping[str, float]:
        """Return how many calls wait, are in flight, have started and were refused, and how many may be at once."""
        return self._limiter.statistics()

    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        place = self._limiter.arrive(await self._most_tokens(request))
        return await persist(ctx, self.retry, lambda: self._in_turn(ctx, place, request))

    async def _in_turn(self, ctx: Context, place: Place, request: ModelRequest) -> ModelResponse:
        await self._start(ctx, place)
        return await self._call(ctx, place, request)

    async def _most_tokens(self, request: ModelRequest) -> int:
        if not self._limiter.counts_tokens:
            return 0
        prompt = await self.model.count_tokens(request)
        return prompt + max(0, min(request.settings.max_tokens, self.model.max_output(request, prompt)))

    async def _start(self, ctx: Context, place: Place) -> None:
        """Let the call start once it may; waiting lends the step's slot, since who is before it may need one."""
        limiter, began = self._limiter, anyio.current_time()
        limiter.queue(place)
        if limiter.start(place, began) == 0:
            return
        try:
            await ctx.wait(lambda: self._started(place))
        except BaseException:
            if place.waits:
                limiter.withdraw(place)
            else:
                limiter.unsent(place, anyio.current_time())
            raise
        ctx.record(RateLimitWaited(path=ctx.path, at=ctx.clock(), seconds=place.started - began))

    async def _started(self, place: Place) -> None:
        while (wait := self._limiter.start(place, anyio.current_time())) > 0:
            notified = anyio.Event()
            place.notify = notified.set
            with anyio.move_on_after(wait):
                await notified.wait()

    async def _call(self, ctx: Context, place: Place, request: ModelRequest) -> ModelResponse:
        """Ask once, and tell the limiter how it ended."""
        limiter, now = self._limiter, anyio.current_time
        try:
            response = await ask(ctx, self.model, request)
        except RateLimited as error:
            limiter.refuse(place, now(), error.retry_after)
            raise
        except BudgetExceeded:
            limiter.unsent(place, now())
            raise
        except BaseException as error:
            limiter.fail(place, now(), billed=not is_unbilled(error))
            raise
        limiter.finish(place, now(), response.usage.tokens)
        return response
