"""A limited model in runs: waiting, refusals, cancellation."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentrt import (
    Budget,
    Context,
    DefinitionError,
    Limited,
    ModelRequest,
    ModelSettings,
    RateLimited,
    Retry,
    StepFailed,
    run,
    run_sync,
)
from agentrt import events as ev
from agentrt.messages import UserMessage
from agentrt.model import Chat
from agentrt.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio
REQUEST = ModelRequest(messages=(UserMessage("one two"),), settings=ModelSettings(max_tokens=10))


class Busy:
    """Answer after a few turns of the event loop, noting how many are asked at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, request: ModelRequest) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        self.now -= 1
        return "x"


async def fan_out(model: Limited, n: int, **options: Any) -> list[Any]:
    """Ask n times at once; return the events."""
    events: list[Any] = []

    async def several(n: int, ctx: Context) -> None:
        await ctx.map(Chat(model), [REQUEST] * n)

    await run(several, n, observers=[events.append], **options)
    return events


async def test_no_more_calls_at_once_than_allowed() -> None:
    """The others wait in line and are told so."""
    busy = Busy()
    model = Limited(FunctionModel(busy), concurrency=3)
    events = await fan_out(model, 10)
    assert busy.most == 3
    assert sum(isinstance(e, ev.RateLimitWaited) for e in events) == 7
    assert model.statistics() == {"waiting": 0, "in_flight": 0, "started": 10, "refused": 0, "concurrency": 3}


async def test_calls_keep_to_the_minute() -> None:
    """Sixty thousand a minute is one a millisecond, once the bucket is empty."""
    model = Limited(FunctionModel(lambda r: "x"), rpm=60_000)
    await fan_out(model, 1)
    model._limiter._requests._level = 0.0  # type: ignore[union-attr]
    began = anyio.current_time()
    await fan_out(model, 10)
    assert anyio.current_time() - began >= 0.009


async def test_waiting_holds_no_budget() -> None:
    """B9: a budget for one call at a time is enough for all, and nothing is clamped or waits for it."""
    model = Limited(FunctionModel(lambda r: "x"), concurrency=1)
    events = await fan_out(model, 5, budget=Budget(tokens=4 * 4 + 13))
    assert not any(isinstance(e, ev.BudgetWaited | ev.BudgetClamped) for e in events)


async def test_tokens_are_limited_by_worst_case_and_settled() -> None:
    """Of 26 a minute two calls of 13 may start at once; each gives back what it did not use."""
    busy = Busy()
    await fan_out(Limited(FunctionModel(busy), tpm=26), 4)
    assert busy.most == 2


async def test_a_refused_call_is_tried_again() -> None:
    """By itself, and it is no error of the run's."""
    model = ScriptedModel([RateLimited("slow"), RateLimited("slow", retry_after=0.01), "x"])
    limited = Limited(model, concurrency="adaptive", retry=Retry(attempts=3, backoff=0, on=RateLimited))
    began = anyio.current_time()
    events = await fan_out(limited, 1)
    assert [(e.attempt, e.delay) for e in events if isinstance(e, ev.StepRetried)] == [(1, 0), (2, 0.01)]
    assert anyio.current_time() - began >= 0.01
    assert limited.statistics()["refused"] == 2
    assert limited.statistics()["concurrency"] == 2, "halved twice from 4, and one more for the success"


async def test_refusals_without_end_are_raised() -> None:
    """Once the retry gives up."""
    model = ScriptedModel([RateLimited("slow")] * 2)
    with pytest.raises(StepFailed, match="slow"):
        await fan_out(Limited(model, retry=Retry(attempts=2, backoff=0, on=RateLimited)), 1)


async def test_cancelling_leaves_nothing_behind() -> None:
    """Neither a place in the queue nor one of the calls allowed at once."""

    async def hang(request: ModelRequest) -> str:
        await anyio.sleep_forever()
        return ""

    model = Limited(FunctionModel(hang), concurrency=2)
    with anyio.move_on_after(0.02):
        await fan_out(model, 50)
    stats = model.statistics()
    assert (stats["waiting"], stats["in_flight"]) == (0, 0)


async def test_a_failed_call_makes_room() -> None:
    """Whatever it failed of, a denial by the budget included."""
    model = Limited(ScriptedModel([ValueError("a bug"), "x"]), concurrency=1)
    with pytest.raises(StepFailed):
        await fan_out(model, 1)
    with pytest.raises(Exception, match="budget"):
        await fan_out(model, 1, budget=Budget(tokens=1))
    await fan_out(model, 1)
    assert model.statistics()["in_flight"] == 0


def test_runs_one_after_another_share_it() -> None:
    """In event loops of their own."""
    model = Limited(FunctionModel(lambda r: "x"), rpm=100, concurrency=1)
    for _ in range(2):
        run_sync(Chat(model), REQUEST)
    assert model.statistics()["started"] == 2


@pytest.mark.parametrize("limits", [{"rpm": 0}, {"tpm": -1}, {"concurrency": 0}])
def test_limits_that_let_nothing_through_are_refused(limits: dict[str, Any]) -> None:
    """Naming the limit."""
    with pytest.raises(DefinitionError, match=next(iter(limits))):
        Limited("openai/x", **limits)


@pytest.mark.parametrize("limits", [{"concurrency": "many"}, {"concurrency": 0}, {"rpm": 0}, {"tpm": -1}])
def test_limits_that_cannot_be_kept_are_refused(limits: dict[str, Any]) -> None:
    """Where they are written, by name."""
    with pytest.raises(DefinitionError, match=f"Limited.{next(iter(limits))}="):
        Limited(ScriptedModel([]), **limits)
