"""What somebody who tried to break `resume` found: a run that goes on is the run it was, and is paid as one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    DefinitionError,
    Graph,
    Join,
    ModelSettings,
    Result,
    Retry,
    StopReason,
    collect,
    run,
    tool,
)
from agentrt.budget import TOOL_CALLS
from agentrt.events import Event, RunResumed, StepStarted
from agentrt.function import FunctionNode, as_node
from agentrt.messages import ToolMessage
from agentrt.testing import FunctionModel, call

pytestmark = pytest.mark.anyio

SMALL = ModelSettings(max_tokens=10)
PATIENT = Retry(attempts=9, backoff=0.01)


async def leaf(x: int) -> int:
    return x


async def stopped(node: Any, value: Any, **options: Any) -> Result[Any]:
    """Run until the budget stops it, and return what can go on."""
    with pytest.raises(BudgetExceeded) as caught:
        await run(node, value, **options)
    assert caught.value.result is not None
    return caught.value.result


async def test_the_last_words_are_no_turn() -> None:
    """E5: a run that had wrapped up goes on where it was refused, not with its wrap-up as the next answer."""

    @tool
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    def reply(request: Any) -> Any:
        if not request.tools:
            return "in a hurry"
        return call("double", x=len(request.messages)) if len(request.messages) < 12 else "done"

    model = FunctionModel(reply)
    agent = Agent("agent", model=model, settings=SMALL, tools=[double])
    result = await run(agent, "x", budget=Budget(model_calls=3, on_exhausted="wrap_up"))
    assert (result.stop_reason, result.output) == (StopReason.WRAPPED_UP, "in a hurry")
    result = await result.resume(budget=Budget(model_calls=30))
    assert (result.stop_reason, result.output) == (StopReason.DONE, "done")
    assert result.usage.model_calls == len(model.requests)
    assert result.usage.tokens == model.bill.tokens


async def test_calls_of_a_limited_node_stay_counted() -> None:
    """B1: `calls=2` is two calls, whether a resumed run makes them or knows their outcome."""
    limited, ran = as_node(leaf).limit(calls=2), []

    async def root(x: int, ctx: Context) -> None:
        for i in range(3):
            ran.append(await ctx.run(limited, i))
            await ctx.run(leaf, i, key="other")

    result = await stopped(root, 1, budget=Budget(steps=4))
    del ran[:]
    with pytest.raises(BudgetExceeded) as caught:
        await result.resume(budget=Budget(steps=40))
    assert (caught.value.dimension, ran) == ("calls", [0, 1])


async def test_a_limited_node_keeps_its_account_however_deep_it_is() -> None:
    """B1: a limit is for an activation, and going on is the same activation."""

    async def many(x: int, ctx: Context) -> None:
        for i in range(20):
            await ctx.run(leaf, i)

    async def middle(x: int, ctx: Context) -> None:
        await ctx.run(as_node(many).limit(steps=8), x)

    async def root(x: int, ctx: Context) -> None:
        await ctx.run(middle, x)

    result = await stopped(root, 1, budget=Budget(steps=6))
    with pytest.raises(BudgetExceeded) as caught:
        await result.resume(budget=Budget(steps=100))
    assert (caught.value.scope, caught.value.limit, caught.value.spent) == ("root/middle/many", 8, 8)
    assert caught.value.result is not None
    assert caught.value.result.usage.steps == 2 + 8


async def test_branches_keep_their_accounts() -> None:
    """B11: the cap of a branch holds up to the join, for both parts of a run together."""
    events: list[Event] = []

    async def many(x: int, ctx: Context) -> None:
        for i in range(20):
            await ctx.run(leaf, i)

    graph = Graph("graph", input=list[int])
    graph.edge(START, many, each=True, budget=Budget(steps=8))
    graph.edge(many, END, join=collect)
    result = await stopped(graph, [1], budget=Budget(steps=6), observers=[events.append])
    with pytest.raises(BudgetExceeded) as caught:
        await result.resume(budget=Budget(steps=100))
    assert (caught.value.scope, caught.value.spent) == ("graph/many[0]", 8)
    assert len({e.path for e in events if isinstance(e, StepStarted)}) == 1 + 8


async def test_branches_share_what_was_raised() -> None:
    """B11: equal parts are those of what is left when the run goes on, besides what each branch has spent."""
    left: list[float] = []

    async def work(x: int, ctx: Context) -> None:
        await ctx.run(leaf, x)
        left.append(ctx.budget.remaining["steps"])
        await anyio.sleep(2)
        await ctx.run(leaf, x)

    async def eater(x: int, ctx: Context) -> None:
        await anyio.sleep(1)
        await ctx.map(leaf, [1, 2, 3, 4, 5])

    graph = Graph("graph", input=list[int])
    graph.edge(START, work, each=True, budget=Budget(share="equal"))
    graph.edge(work, END, join=collect)

    async def root(x: int, ctx: Context) -> None:
        await ctx.gather([(graph, [0, 1]), (as_node(eater), x)])

    result = await stopped(root, 1, budget=Budget(steps=12))
    assert left == [3, 3]  # of 10, less the two steps each has taken
    await result.resume(budget=Budget(steps=20))
    assert left[2:] == [4, 4]  # of the 8 that are left


async def test_a_retry_after_going_on_is_paid() -> None:
    """B2: only the attempt that was under way is known and paid; what a later one starts counts again."""
    attempts = 0

    async def flaky(x: int) -> int:
        if attempts <= 4:
            raise ConnectionError
        return x

    async def middle(x: int, ctx: Context) -> int:
        nonlocal attempts
        attempts += 1
        return await ctx.run(flaky, x)

    async def root(x: int, ctx: Context) -> int:
        return await ctx.run(middle, x)

    node = FunctionNode(root, retry=PATIENT)
    result = await stopped(node, 1, budget=Budget(steps=2))
    result = await result.resume(budget=Budget(steps=100))
    assert attempts == 5
    assert result.usage.steps == 3 * 4  # the first attempt is one, before and after


async def test_a_retry_after_going_on_begins_anew() -> None:
    """E5: another attempt calls what failed again, and does not meet the outcome an earlier one knew."""
    ran: Counter[str] = Counter()

    async def flaky(x: int) -> int:
        ran["flaky"] += 1
        if ran["flaky"] == 1:
            raise ConnectionError
        return x

    async def root(x: int, ctx: Context) -> int:
        try:
            value = await ctx.run(flaky, x)
        except ConnectionError:
            value = -1
        await ctx.run(leaf, x)
        if value < 0:
            raise ConnectionError
        return value

    result = await stopped(FunctionNode(root, retry=PATIENT), 1, budget=Budget(steps=2))
    assert (await result.resume(budget=Budget(steps=100))).output == 1
    assert ran["flaky"] == 2


async def test_an_agent_keeps_its_branch_s_conversation() -> None:
    """E5: what a branch keeps for its nodes is known as their outcomes are."""
    writer = Agent("writer", model=FunctionModel(lambda r: f"seen {len(r.messages)}"), history="branch", settings=SMALL)

    async def critic(text: str) -> str:
        return text

    graph = Graph("graph", input=str, output=str)
    graph.edge(START, writer)
    graph.edge(writer, critic, times=1)
    graph.edge(writer, END)
    graph.edge(critic, writer)
    assert (await run(graph, "x")).output == "seen 3"
    result = await stopped(graph, "x", budget=Budget(steps=3))
    assert (await result.resume(budget=Budget(steps=30))).output == "seen 3"


async def test_the_record_tells_the_raised_limits() -> None:
    """`RunResumed.limits` are those the run goes on under."""
    events: list[Event] = []

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(leaf, [1, 2, 3])

    result = await stopped(root, 1, budget=Budget(steps=2, tokens=9), observers=[events.append])
    await result.resume(budget=Budget(steps=20))
    assert [e.limits for e in events if isinstance(e, RunResumed)] == [{"steps": 20, "tokens": 9}]


async def slow_once(x: int) -> int:
    """Take long the first time, and no time when asked again."""
    SLOW.append(x)
    await anyio.sleep(10 if len(SLOW) == 1 else 0)
    return x


SLOW: list[int] = []


@pytest.fixture
def slow() -> FunctionNode[int]:
    """Return a step that its own limit stops the first time, and would not stop a second time."""
    SLOW.clear()
    return as_node(slow_once).limit(seconds=1)


async def test_who_catches_a_denial_has_gone_on_from_it(slow: FunctionNode[int]) -> None:
    """E5: what came after a denial that code caught is an answer to it, so the step denied does not run again."""
    asked: list[Any] = []

    async def later(value: int | None) -> int | None:
        asked.append(value)
        return value

    async def root(x: int, ctx: Context) -> list[int | None]:
        value: int | None
        try:
            value = await ctx.run(slow, x)
        except BudgetExceeded:
            value = None
        return [value, await ctx.run(later, value), await ctx.run(leaf, x)]

    result = await stopped(root, 1, budget=Budget(steps=3))
    result = await result.resume(budget=Budget(steps=30))
    assert (result.output, asked, SLOW) == ([None, None, 1], [None], [1])
    assert result.usage.steps == 4


async def test_a_join_that_drops_a_denial_has_gone_on_from_it(slow: FunctionNode[int]) -> None:
    """E5, G9: what the join sent on did not count the branch that its own limit had stopped."""
    joined: list[Any] = []

    async def total(values: list[int]) -> int:
        joined.append(values)
        return sum(values)

    graph = Graph("graph", input=int)
    graph.edge(START, [slow, leaf])
    graph.edge([slow, leaf], total, join=Join(collect, errors="drop"))
    graph.edge(total, leaf_again := FunctionNode(leaf, name="again"))
    graph.edge(leaf_again, END)
    result = await stopped(graph, 2, budget=Budget(steps=4))
    result = await result.resume(budget=Budget(steps=40))
    assert (result.output, joined, SLOW) == (2, [[2]], [2])
    assert [failure.path for failure in result.dropped] == ["graph/slow_once[0]"]


async def test_an_agent_has_gone_on_from_its_tool_s_denial(slow: FunctionNode[int]) -> None:
    """E1, E5: the model was told that the tool may use no more, and answered that."""

    def reply(request: Any) -> Any:
        return ["done", call("other", x=2), call("slow_once", x=1)][len(request.tools) - len(told(request))]

    def told(request: Any) -> list[str]:
        return [m.text for m in request.messages if isinstance(m, ToolMessage)]

    @tool
    async def other(x: int) -> int:
        """Do something else."""
        return x

    node = tool(slow_once).limit(seconds=1)
    agent = Agent("agent", model=(model := FunctionModel(reply)), settings=SMALL, tools=[node, other])
    result = await stopped(agent, "go", budget=Budget(model_calls=2))
    result = await result.resume(budget=Budget(model_calls=20))
    assert (result.output, SLOW) == ("done", [1])
    assert told(model.requests[-1])[0] == "this tool may use no more seconds; go on without it"


async def test_a_denial_by_a_budget_around_that_was_caught_is_an_outcome() -> None:
    """E5: whoever caught it has gone on, with other steps that were still paid."""
    asked: list[Any] = []
    free = FunctionModel(lambda request: "said")
    chat = Agent("chatter", model=free, settings=SMALL)

    async def after(value: str) -> str:
        asked.append(value)
        return value

    async def root(x: int, ctx: Context) -> str:
        try:
            value = await ctx.run(chat, "x")
        except BudgetExceeded:
            value = "nothing"
        await ctx.run(after, value)
        return await ctx.run(chat, "y")

    result = await stopped(root, 1, budget=Budget(model_calls=0))
    assert (await result.resume(budget=Budget(model_calls=5))).output == "said"
    assert (asked, len(free.requests)) == (["nothing"], 1)


async def test_a_map_that_was_denied_and_caught_stays_denied() -> None:
    """E5: one denial is what the code was told for the whole map, none of whose steps starts later."""
    ran: list[int] = []

    async def paid(x: int, ctx: Context) -> int:
        ran.append(x)
        ctx.spend(TOOL_CALLS)
        await anyio.sleep(x)
        return x

    async def root(x: int, ctx: Context) -> str:
        try:
            await ctx.map(paid, [3, 1, 2, 4], limit=3)
        except BudgetExceeded:
            await ctx.run(leaf, x)
        return str(await ctx.run(paid, 0))

    result = await stopped(root, 1, budget=Budget(tool_calls=1))
    assert ran == [3, 1, 0]
    assert (await result.resume(budget=Budget(tool_calls=9))).output == "0"
    assert ran == [3, 1, 0, 0]


async def test_what_was_denied_while_a_plan_drained_runs_again() -> None:
    """E2, E5: of several denials one is passed on; none of them has anybody gone on from."""
    ran: list[int] = []

    async def paid(x: int, ctx: Context) -> int:
        ran.append(x)
        await anyio.sleep(x)
        ctx.spend(TOOL_CALLS)
        return x

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(paid, [1, 2, 3])

    result = await stopped(root, 1, budget=Budget(tool_calls=1))
    assert (await result.resume(budget=Budget(tool_calls=9))).output == [1, 2, 3]
    assert Counter(ran) == {1: 1, 2: 2, 3: 2}


async def test_all_denials_of_a_task_group_run_again() -> None:
    """E7: a group of denials carries each of them out of the step."""

    async def paid(x: int, ctx: Context) -> int:
        ctx.spend(TOOL_CALLS)
        return x

    async def root(x: int, ctx: Context) -> list[int]:
        values: list[int] = []

        async def one(i: int) -> None:
            with anyio.CancelScope(shield=True):
                values.append(await ctx.run(paid, i, key=f"k{i}"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, 1)
            tasks.start_soon(one, 2)
        return sorted(values)

    result = await stopped(root, 1, budget=Budget(tool_calls=0))
    assert (await result.resume(budget=Budget(tool_calls=9))).output == [1, 2]


async def test_the_deadline_of_a_draining_plan_is_not_its_outcome() -> None:
    """E5: a map cancelled by a deadline before it could tell its denial is gone on with, not denied again."""

    async def paid(x: int, ctx: Context) -> int:
        if x:
            ctx.spend(TOOL_CALLS)
        else:
            await anyio.sleep(10)
        return x

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(paid, [0, 1])

    result = await stopped(root, 1, budget=Budget(tool_calls=0, seconds=2))
    assert (await result.resume(budget=Budget(tool_calls=9, seconds=20))).output == [0, 1]


async def test_a_step_s_own_limit_can_be_raised_where_nobody_caught_it(slow: FunctionNode[int]) -> None:
    """E5: a denial that travelled left the step unfinished, under the limit that the result raises."""

    async def root(x: int, ctx: Context) -> int:
        return await ctx.run(leaf, await ctx.run(slow, x))

    result = await stopped(root, 7, budget=Budget(steps=9))
    result = await result.resume(budget=Budget(seconds=100))
    assert (result.output, SLOW, result.usage.steps) == (7, [7, 7], 3)


async def test_a_denial_is_the_same_outcome_however_often_a_run_goes_on(slow: FunctionNode[int]) -> None:
    """E5: and it can still be raised in the end, by whoever does not catch it any more."""
    patience = 2

    async def root(x: int, ctx: Context) -> int:
        nonlocal patience
        patience -= 1
        try:
            await ctx.run(slow, x)
        except BudgetExceeded:
            if patience < 0:
                raise
        return await ctx.run(leaf, await ctx.run(leaf, x, key="first"))

    result = await stopped(root, 7, budget=Budget(steps=2))
    result = await stopped_again(result, Budget(steps=3))
    result = await stopped_again(result, Budget(steps=30))
    assert SLOW == [7]
    assert (await result.resume(budget=Budget(seconds=100))).output == 7
    assert SLOW == [7, 7]


async def stopped_again(result: Result[Any], budget: Budget) -> Result[Any]:
    with pytest.raises(BudgetExceeded) as caught:
        await result.resume(budget=budget)
    assert caught.value.result is not None
    return caught.value.result


@pytest.mark.parametrize("budget", [Budget(steps=2), Budget(share="equal")])
async def test_a_branch_that_was_refused_goes_on_under_a_higher_limit(budget: Budget) -> None:
    """E5, B11: its own limit is raised; the other branches keep theirs, and what had finished is not run again."""

    async def many(x: int, ctx: Context) -> int:
        for i in range(x):
            await ctx.run(leaf, i)
        return x

    graph = Graph("graph", input=list[int])
    graph.edge(START, many, each=True, budget=budget)
    graph.edge(many, END, join=collect)
    result = await stopped(graph, [1, 5], budget=Budget(steps=12))
    with pytest.raises(DefinitionError, match=r"'graph/many\[1\]' ran out of steps"):
        await result.resume(budget=Budget(steps=1))
    result = await result.resume(budget=Budget(steps=6))
    assert (result.output, result.usage.steps) == ([1, 5], 1 + 2 + 6)


async def test_where_nothing_was_kept_it_is_said_what_to_do(slow: FunctionNode[int]) -> None:
    """E5: a run without a budget keeps nothing, and `calls` belongs to the node."""
    result = await stopped(caller_of(slow), 1)
    with pytest.raises(RuntimeError, match=r"give the run a budget, too: run\(…, budget=Budget\(…\)\)"):
        await result.resume(budget=Budget(seconds=100))
    result = await stopped(caller_of(as_node(leaf).limit(calls=0)), 1, budget=Budget(steps=9))
    with pytest.raises(RuntimeError, match=r"raise it there, limit\(calls=…\) for 'root/leaf'"):
        await result.resume(budget=Budget(calls=100))


def caller_of(node: Any) -> Any:
    async def root(x: int, ctx: Context) -> int:
        value: int = await ctx.run(node, x)
        return value

    return root
