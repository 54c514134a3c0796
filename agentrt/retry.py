"""Retries: which errors are tried again, how often, and how long to wait before; and the loop that does it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio

from agentrt.errors import BudgetExceeded, DefinitionError, ModelUnavailable, RateLimited, StepTimeout
from agentrt.group import errors_in

if TYPE_CHECKING:
    from agentrt.node import Context

T = TypeVar("T")
Retryable: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
TRANSIENT: tuple[type[Exception], ...] = (RateLimited, ModelUnavailable, StepTimeout, ConnectionError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try a step again when it fails.

    attempts: how often it may start, the first time included.
    backoff: seconds before the second attempt, doubled before each one after it, at most `longest`; a provider's
        `retry_after` counts where it is longer. Up to half of it is taken off at random, so that steps that failed
        together do not come back together.
    on: the errors to try again: classes, or a function of the error. A denial by a budget never is.

    Every attempt is charged; waiting holds no budget (rule B9). Raises `DefinitionError` for numbers out of range.
    """

    attempts: int = 3
    backoff: float = 1.0
    longest: float = 60.0
    on: Retryable = TRANSIENT

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff < 0 or self.longest < 0:
            raise DefinitionError(f"{self}: at least one attempt, and no negative time")

    def delay(self, attempt: int, error: Exception) -> float | None:
        """Return how many seconds to wait after this attempt (from 1) failed, or None to give up."""
        if attempt >= self.attempts or not self.covers(error):
            return None
        wait = min(self.backoff * 2.0 ** min(attempt - 1, 64), self.longest)
        wait *= random.uniform(0.5, 1.0)
        asked = error.retry_after if isinstance(error, RateLimited) else None
        return max(wait, asked or 0.0)

    def covers(self, error: Exception) -> bool:
        """Say whether this is an error to try again."""
        if any(isinstance(one, BudgetExceeded) for one in errors_in(error)):
            return False
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return self.on(error)


async def persist(
    ctx: Context,
    retry: Retry,
    once: Callable[[], Awaitable[T]],
    *,
    failed: Callable[[], None] = lambda: None,
    made: int = 0,
) -> T:
    """Do something until it succeeds, as often as `retry` says; raises its last error.

    `failed` is called before each wait, and `made` attempts have been made before. Waiting holds no slot: other steps
    run meanwhile.
    """
    attempt = made
    while True:
        attempt += 1
        try:
            return await once()
        except Exception as error:
            if (delay := retry.delay(attempt, error)) is None:
                raise
            ctx.retrying(error, delay=delay, attempts=retry.attempts)
        failed()
        await ctx.wait(partial(anyio.sleep, delay))
