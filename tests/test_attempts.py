"""A model asked again, and another asked instead: each attempt paid for on its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import (
    Budget,
    BudgetExceeded,
    Cached,
    Context,
    DefinitionError,
    Fallback,
    Limited,
    ModelRequest,
    ModelSettings,
    ModelUnavailable,
    RateLimited,
    Retried,
    Retry,
    StepFailed,
    UnknownPrice,
    Usage,
    run,
    run_sync,
)
from agentrt import events as ev
from agentrt.function import FunctionNode, as_node
from agentrt.messages import UserMessage
from agentrt.model import Chat, Model
from agentrt.testing import FunctionModel, ScriptedModel
from tests.cases import cases

pytestmark = pytest.mark.anyio
REQUEST = ModelRequest(messages=(UserMessage("one two"),), settings=ModelSettings(max_tokens=10, min_tokens=4))
AT_ONCE = Retry(attempts=3, backoff=0)
DOWN = ModelUnavailable("down")


async def ask(model: Model, **options: Any) -> tuple[str, list[Any], Any]:
    """Ask once; return the answer, the retries and the usage."""
    events: list[Any] = []
    result = await run(Chat(model), REQUEST, observers=[events.append], **options)
    return result.output.message.text, [e for e in events if isinstance(e, ev.StepRetried)], result.usage


async def test_every_attempt_is_charged() -> None:
    """B9: what failed with an unknown bill costs its whole reservation, and each is a model call."""
    model = ScriptedModel([DOWN, RateLimited("slow"), "x y"])
    said, retries, usage = await ask(Retried(model, AT_ONCE))
    assert said == "x y"
    assert [(e.attempt, e.error.type, e.model) for e in retries] == [
        (1, "ModelUnavailable", None),
        (2, "RateLimited", None),
    ]
    assert (usage.model_calls, usage.tokens, usage.uncertain) == (3, 13 + 0 + 5, 13)


async def test_a_failed_attempt_is_settled_before_the_next_is_reserved() -> None:
    """B9: one call's budget is enough where the failure is known to be free."""
    model = ScriptedModel([RateLimited("slow"), "x"])
    assert (await ask(Retried(model, AT_ONCE), budget=Budget(tokens=13)))[0] == "x"


async def test_attempts_end_where_the_budget_does() -> None:
    """A denial is never tried again."""
    model = ScriptedModel([DOWN])
    with pytest.raises(BudgetExceeded):
        await ask(Retried(model, AT_ONCE), budget=Budget(tokens=14))
    with pytest.raises(BudgetExceeded, match="model_calls"):
        await ask(Retried(ScriptedModel([DOWN]), AT_ONCE), budget=Budget(model_calls=1))
    model.check()


async def test_the_last_attempts_error_is_raised() -> None:
    """And others are raised at once."""
    model = ScriptedModel([DOWN, DOWN, ModelUnavailable("still down")])
    with pytest.raises(StepFailed, match="still down"):
        await ask(Retried(model, AT_ONCE))
    with pytest.raises(StepFailed, match="a bug"):
        await ask(Retried(ScriptedModel([ValueError("a bug")]), AT_ONCE))


async def test_another_model_is_asked_instead() -> None:
    """Its name is told with the error that led to it."""
    models = [ScriptedModel([error], name=f"test/{i}") for i, error in enumerate([DOWN, RateLimited("slow"), "yes"])]
    said, retries, usage = await ask(Fallback(*models))
    assert (said, usage.model_calls) == ("yes", 3)
    assert [(e.attempt, e.model, e.delay) for e in retries] == [(1, "test/1", 0), (2, "test/2", 0)]


@pytest.mark.parametrize("error", [ValueError("a bug"), UnknownPrice("no price")])
async def test_only_errors_of_one_model_lead_on(error: Exception) -> None:
    """A mistake of the user's is not hidden; neither is a denial."""
    other = ScriptedModel([])
    with pytest.raises(StepFailed):
        await ask(Fallback(ScriptedModel([error]), other))
    with pytest.raises(BudgetExceeded):
        await ask(Fallback(FunctionModel(lambda r: "x"), other, on=Exception), budget=Budget(tokens=3))
    other.check()


async def test_wrappers_nest() -> None:
    """The attempts of one step are numbered through."""
    first = Retried(ScriptedModel([DOWN, DOWN], name="test/a"), Retry(attempts=2, backoff=0))
    said, retries, _ = await ask(Fallback(first, ScriptedModel(["yes"], name="test/b")))
    assert said == "yes"
    assert [(e.attempt, e.model) for e in retries] == [(1, None), (2, "test/b")]


def test_a_fallback_needs_a_model() -> None:
    """To fall back on."""
    with pytest.raises(DefinitionError):
        Fallback()


FAULTS = st.sampled_from(["x y", DOWN, RateLimited("slow"), ModelUnavailable("never sent", billed=False)])


@cases(12)  # each is a whole run, in an event loop of its own
@given(st.lists(FAULTS, max_size=12), st.lists(FAULTS, max_size=12), st.integers(10, 80), st.integers(1, 6))
def test_the_bill_is_paid_and_the_limit_holds_whatever_fails(
    one: list[Any], two: list[Any], tokens: int, calls: int
) -> None:
    """Through all wrappers at once: what is spent is what the providers billed, and never above a limit."""
    replies = [iter(one), iter(two)]
    models = [FunctionModel(lambda request, r=r: next(r, "z")) for r in replies]  # type: ignore[misc]
    retry = Retry(attempts=2, backoff=0)
    limited = (Limited(Retried(m, retry), concurrency=2, tpm=10**6, retry=retry) for m in models)
    chat = Chat(Cached(Fallback(*limited)))
    usages: list[Usage] = []

    async def several(n: int, ctx: Context) -> None:
        requests = [replace(REQUEST, settings=replace(REQUEST.settings, seed=seed % 2)) for seed in range(n)]
        await ctx.map(chat, requests)

    with suppress(BudgetExceeded, StepFailed):
        run_sync(several, calls, budget=Budget(tokens=tokens, model_calls=9), observers=[_last_usage(usages)])
    bill = models[0].bill + models[1].bill
    assert (usages[-1].tokens, usages[-1].model_calls) == (bill.tokens, sum(len(m.requests) for m in models))
    assert bill.tokens <= tokens
    assert usages[-1].model_calls <= 9


def _last_usage(usages: list[Usage]) -> Callable[[ev.Event], None]:
    return lambda event: usages.append(event.usage) if isinstance(event, ev.RunFinished | ev.RunFailed) else None


async def order_of(*calls: tuple[Any, Any], concurrency: int = 1, **options: Any) -> list[str]:
    """Run these side by side, one slot for all; return the steps as they ended or were tried again."""
    seen: list[str] = []

    def note(event: Any) -> None:
        if isinstance(event, ev.StepFinished | ev.StepRetried):
            seen.append(event.path.removeprefix("root/"))

    async def root(x: int, ctx: Context) -> None:
        await ctx.gather([(as_node(node), value) for node, value in calls])

    with anyio.fail_after(1000):
        await run(root, 1, observers=[note], concurrency=concurrency, **options)
    return seen[:-1]


def asks(name: str, model: Model) -> Any:
    async def asker(x: int, ctx: Context) -> str:
        return (await ctx.run(Chat(model), REQUEST)).message.text

    return FunctionNode(asker, name=name)


async def quick(x: int) -> int:
    return x


async def test_a_pause_lends_the_slot() -> None:
    """B12: other steps run meanwhile, even where only one may at a time."""
    model = Retried(ScriptedModel([DOWN, "x"]))
    assert await order_of((asks("a", model), 1), (quick, 1)) == ["a/chat", "quick", "a/chat", "a"]


async def test_waiting_in_a_limiters_queue_lends_the_slot() -> None:
    """B12: the second call of the minute waits, and what needs no call does not wait for it."""
    model = Limited(ScriptedModel(["x", "y"]), rpm=1)
    seen = await order_of((asks("a", model), 1), (asks("b", model), 1), (quick, 1))
    assert seen == ["a/chat", "a", "quick", "b/chat", "b"]


async def test_who_waits_for_an_equal_request_lends_the_slot() -> None:
    """B12: the one before it may pause, and needs a slot to go on."""
    model = Cached(Retried(ScriptedModel([DOWN, "x"])))
    seen = await order_of((asks("a", model), 1), (asks("b", model), 1))
    assert seen == ["a/chat", "a/chat", "a", "b/chat", "b"]


async def test_who_is_cancelled_before_it_has_a_slot_again_leaves_no_place_in_flight() -> None:
    """The limiter lets it start at its turn, but all slots are taken until the deadline."""

    async def second(request: ModelRequest) -> str:
        await anyio.sleep(1)
        return "x"

    model = Limited(FunctionModel(second), concurrency=1)

    async def asks_and_works(x: int, ctx: Context) -> None:
        await ctx.run(Chat(model), REQUEST)
        await anyio.sleep(10)

    async def works(x: int) -> None:
        await anyio.sleep(10)

    calls = ((asks_and_works, 1), (asks("b", model), 1), (works, 1))
    with pytest.raises(BudgetExceeded, match="its time of 5 s is over"):
        await order_of(*calls, budget=Budget(seconds=5), concurrency=2)
    numbers = model.statistics()
    assert (numbers["started"], numbers["in_flight"], numbers["waiting"]) == (2, 0, 0)


async def test_a_limited_model_is_tried_again_as_its_retry_says() -> None:
    """Any error it covers, and events say how often at most."""
    model = Limited(ScriptedModel([DOWN, RateLimited("slow"), "x"]), concurrency=1, retry=AT_ONCE)
    said, retries, _ = await ask(model)
    assert (said, [(e.error.type, e.attempts) for e in retries]) == (
        "x",
        [("ModelUnavailable", 3), ("RateLimited", 3)],
    )
    with pytest.raises(StepFailed, match="down"):
        await ask(Limited(ScriptedModel([DOWN]), concurrency=1))
