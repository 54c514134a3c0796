"""A run that is stopped by its budget again and again ends as one that never was (rule E5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentrt import Budget, BudgetExceeded, BudgetTooSmall, Context, Result, StepFailed, StopReason, run
from agentrt.events import Event, StepFinished, StepStarted
from agentrt.testing import run_virtual
from tests.cases import cases
from tests.randomgraphs import Builder, Step, digest


async def leaf(value: Any, ctx: Context) -> Any:
    return digest(value, ctx.path) % 24


class Caller(Step):
    """Call others, one by one and side by side, before giving what the outcomes say."""

    async def invoke(self, ctx: Context, value: Any, /) -> Any:
        calls = digest(self.outcomes.seed, "calls", ctx.path) % 3
        for _ in range(calls):
            await ctx.run(leaf, value)
        await ctx.map(leaf, list(range(calls)), limit=2)
        return await super().invoke(ctx, value)


class CallingBuilder(Builder):
    def _node(self) -> Step:
        self._names += 1
        return Caller(f"n{self._names}", self.outcomes)


async def undisturbed(seed: int, failing: int) -> Any:
    try:
        return (await run(CallingBuilder(seed, failing, size=6).build(), 7)).output
    except StepFailed as error:
        return error.path, repr(error.cause)


class Watch:
    """Note which steps have started and finished, and what was done again that had been done."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.finished: set[str] = set()
        self.again: list[Event] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted | StepFinished) and event.path in self.finished:
            self.again.append(event)
        if isinstance(event, StepStarted):
            self.started.add(event.path)
        elif isinstance(event, StepFinished) and event.path != "g":  # a partial result finishes the graph, each time
            self.finished.add(event.path)


async def stopped_again_and_again(seed: int, failing: int, first: int, more: int, watch: Watch) -> Any:
    """Return what the run came to, having raised its limit each time it was stopped."""
    graph, steps = CallingBuilder(seed, failing, size=6).build(), first
    budget = Budget(steps=steps, on_exhausted="partial" if seed % 2 else "raise")
    result: Result[Any] | None = None
    while True:
        try:
            if result is None:
                result = await run(graph, 7, budget=budget, observers=[watch])
            else:
                result = await result.resume(budget=Budget(steps=steps))
        except BudgetTooSmall:  # before anything ran: there is nothing to go on with
            steps += more
            budget = replace(budget, steps=steps)
            continue
        except BudgetExceeded as denial:
            result = denial.result
        except StepFailed as error:
            return error.path, repr(error.cause)
        assert result is not None
        assert result.usage.steps <= steps
        assert not watch.again
        assert result.usage.steps <= len(watch.started)
        if result.stop_reason is StopReason.DONE:
            assert result.usage.steps == len(watch.started)
            return result.output
        steps += more


@cases(25)
@given(seed=st.integers(0, 2**32), failing=st.sampled_from([0, 0, 5]), first=st.integers(0, 20), more=st.integers(2, 9))
def test_a_run_stopped_again_and_again_ends_as_one_that_never_was(
    seed: int, failing: int, first: int, more: int
) -> None:
    """No step that had finished starts again, every step is paid once, and without a race the output is the same."""
    watch = Watch()
    outcome = run_virtual(stopped_again_and_again, seed, failing, first, more, watch, seed=seed)
    assert not watch.again
    races = any(
        e.join is not None and e.join.first is not None for e in CallingBuilder(seed, failing, size=6).build().edges
    )
    if not races and not failing:
        assert outcome == run_virtual(undisturbed, seed, failing, seed=seed + 1)
