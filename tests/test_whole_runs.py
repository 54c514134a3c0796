"""Whole runs: whatever fails, dawdles or is cancelled under whatever budget, what was promised of them holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    BudgetTooSmall,
    Context,
    Graph,
    Join,
    ModelRequest,
    ModelSettings,
    ModelUnavailable,
    Node,
    Price,
    StepFailed,
    collect,
    first,
)
from agentrt import events as ev
from agentrt.ledger import Account, Ledger
from agentrt.runs import Run
from agentrt.testing import FunctionModel, call
from tests.cases import cases
from tests.steploop import StepLoop, run_stepwise
from tests.test_scheduler import check_record

PRICE = Price.per_million(input=1, output=10)


class Accounts(Ledger):
    """Remember every account that was opened."""

    def __init__(self, scope: str) -> None:
        super().__init__(scope, None)
        self.opened = [self.root]

    def open(self, parent: Account, budget: Budget, scope: str, spent: Sequence[int] = ()) -> Account:
        self.opened.append(super().open(parent, budget, scope, spent))
        return self.opened[-1]


def within(account: Account) -> bool:
    """Say whether the invariant holds: nothing is negative, and spent + reserved <= limit."""
    return all(
        min(account.spent[d], account.reserved[d]) >= 0 and account.spent[d] + account.reserved[d] <= limit
        for d, limit in account.bounded
    )


class World:
    """Make one run out of a seed: its graph, what its model says and how long that takes, its budgets."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.events: list[Any] = []
        self.model = FunctionModel(self._reply, price=PRICE)
        self.names = 0
        self.broken: list[Any] = []
        self.is_refused = False
        self.run = Run(self._graph(2), "go", {"budget": self._budget(900), "observers": [self._observe]})
        self.run.concurrency = self.random.choice([1, 2, 5, 1000])
        self.run.ledger = self.ledger = Accounts(self.run.node.name)

    def _observe(self, event: Any) -> None:
        self.events.append(event)
        self.broken += [
            (a, event) for a in self.ledger.opened if not within(a)
        ]  # an observer's own error would be lost

    def check(self) -> None:
        """Check what must hold once the run has ended; the bill of a call that was cut is the most it could be."""
        if self.is_refused:
            assert self.events == self.model.requests == []
            return
        check_record(self.events)
        assert self.broken == []
        usage, bill = self.ledger.usage(), self.model.bill
        assert all(a.reserved == [0] * 7 and a.claims == 0 for a in self.ledger.opened)
        assert (usage.input_tokens, usage.output_tokens, usage.cost) == (
            bill.input_tokens,
            bill.output_tokens,
            bill.cost,
        )
        assert usage.model_calls >= len(self.model.requests)
        recorded = sum(e.usage.tokens for e in self.events if isinstance(e, ev.UsageRecorded))
        assert recorded == usage.tokens

    async def _reply(self, request: ModelRequest) -> Any:
        chance = self.random.random()
        for _ in range(self.random.choice([0, 0, 1, 4])):
            await anyio.lowlevel.checkpoint()
        if chance < 0.05:
            await anyio.sleep_forever()
        if chance < 0.15:
            return ModelUnavailable("down", billed=self.random.choice([None, False]))
        if chance < 0.2:
            return ValueError("no error of a model")
        if request.tools and chance < 0.7:
            return [call(tool.name, input="x") for tool in request.tools for _ in range(self.random.randint(0, 2))]
        return " ".join(["word"] * self.random.choice([1, 5, 30, 200]))

    def _budget(self, most: int) -> Budget | None:
        if self.random.random() < 0.3:
            return None
        return Budget(
            tokens=self._maybe(most),
            output_tokens=self._maybe(most),
            usd=self._maybe(most) and self.random.randint(0, most) / 1e5,
            model_calls=self._maybe(12),
            steps=self._maybe(60),
        )

    def _maybe(self, most: int) -> int | None:
        return self.random.randint(0, most) if self.random.random() < 0.5 else None

    def _name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def _settings(self) -> ModelSettings:
        most = self.random.choice([20, 100, 300])
        return ModelSettings(max_tokens=most, min_tokens=self.random.choice([1, most]))

    def _node(self, depth: int) -> Node[Any, Any]:
        kind = self.random.choice(["agent", "agent", "caller", "plain", *(["graph"] if depth else [])])
        if kind == "graph":
            return self._graph(depth - 1)
        if kind == "agent":
            tools = [self._node(0) for _ in range(self.random.randint(0, 2))] if depth else []
            return Agent(
                self._name("agent"),
                model=self.model,
                tools=tools,
                description="helps",
                settings=self._settings(),
                budget=self._budget(400),
            )
        calls = self._node(depth - 1) if kind == "caller" and depth else None
        return Step(self._name(kind), self.random, calls)

    def _graph(self, depth: int) -> Graph[Any, Any]:
        graph = Graph(self._name("graph"), description="does it all", budget=self._budget(600))
        last: Any = START
        for _ in range(self.random.randint(1, 2)):
            branches = [self._node(depth) for _ in range(self.random.choice([1, 2, 4]))]
            after = Step(self._name("after"), self.random, None)
            graph.edge(last, branches if len(branches) > 1 else branches[0])
            join = self.random.choice([collect, first(), first(2), Join(collect, errors="drop")])
            for branch in branches:
                graph.edge(branch, after, **({"join": join} if len(branches) > 1 else {}))
            last = after
        if self.random.random() < 0.4:
            graph.edge(last, branches if len(branches) > 1 else branches[0], times=1)
        graph.edge(last, END)
        return graph


class Step(Node[Any, Any]):
    """Dawdle, now and then fail, hang or call another node, in one of the ways there are."""

    def __init__(self, name: str, chance: random.Random, calls: Node[Any, Any] | None) -> None:
        super().__init__(name, input=str, description="does something")
        self.random = chance
        self.calls = calls

    async def invoke(self, ctx: Context, value: Any, /) -> Any:
        for _ in range(self.random.randint(0, 3)):
            await anyio.lowlevel.checkpoint()
        chance = self.random.random()
        if chance < 0.04:
            raise ValueError("broken")
        if chance < 0.06:
            await anyio.sleep_forever()
        if self.calls is None:
            return "value"
        if chance < 0.5:
            return await ctx.map(self.calls, ["a", "b", "c"], limit=self.random.choice([None, 1, 2]))
        try:
            return await ctx.run(self.calls, "x", budget=Budget(tokens=self.random.randint(0, 300)))
        except BudgetExceeded:
            return "did without"


class Driven:
    """Run a world to its end, in a task and a scope of its own, which may be cancelled from outside."""

    def __init__(self, world: World, at: int, native: bool) -> None:
        self.world = world
        self.native = native
        self.task: asyncio.Task[None] | None = None
        self.scope: anyio.CancelScope | None = None
        run_stepwise(self._main, StepLoop(at, self._interfere))

    def _interfere(self) -> None:
        if self.native and self.task is not None:
            self.task.cancel()
        elif self.scope is not None:
            self.scope.cancel()

    async def _execute(self) -> None:
        with anyio.CancelScope() as self.scope:
            try:
                await self.world.run.execute()
            except BudgetTooSmall:
                self.world.is_refused = True
            except (StepFailed, BudgetExceeded):
                pass

    async def _main(self) -> None:
        before = asyncio.all_tasks()
        self.task = asyncio.create_task(self._execute())
        await asyncio.wait([self.task], timeout=1000)  # on the loop's own clock: what hangs is cancelled in the end
        self.task.cancel()
        await asyncio.wait([self.task])
        assert asyncio.all_tasks() == before
        if not self.task.cancelled():
            self.task.result()


@cases(30)
@given(seed=st.integers(0, 2**32), at=st.one_of(st.just(0), st.integers(3, 400)), native=st.booleans())
def test_what_is_promised_of_a_run(seed: int, at: int, native: bool) -> None:
    """Within every budget at every event, no step twice, one end each, and spent is what the provider bills.

    Cancelled before the third callback of the loop, a run has not begun.
    """
    world = World(seed)
    Driven(world, at, native)
    world.check()
