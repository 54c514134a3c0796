"""The bounds of graphs: every run lies within them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import (
    END,
    START,
    Agent,
    AgentrtError,
    Bounds,
    Budget,
    BudgetTooSmall,
    Cached,
    Fallback,
    FunctionNode,
    Graph,
    Join,
    Model,
    ModelRequest,
    ModelSettings,
    ModelUnavailable,
    Node,
    Price,
    Priced,
    Retried,
    Retry,
    Tool,
    Usage,
    collect,
    first,
    guarded,
    run,
    vote,
    walks,
)
from agentrt.budget import DIMENSIONS, USD, OnExhausted
from agentrt.events import RunFailed, RunFinished
from agentrt.forecast import foresee
from agentrt.least import least_of_call, least_of_step
from agentrt.messages import ToolCall
from agentrt.model import Models
from agentrt.parts import walk
from agentrt.testing import FunctionModel, Reply, call
from agentrt.usage import PICO
from tests.cases import cases
from tests.randomgraphs import Builder, digest


async def fine(value: object) -> bool:
    return True


class MixedBuilder(Builder):
    """Build graphs of functions, agents with tools and sub-graphs, some with limits of their own."""

    def __init__(self, seed: int, failing: int = 5, size: int = 5, depth: int = 0) -> None:
        super().__init__(seed, failing, size)
        self.depth = depth
        self.graph = Graph("g", wrap_up=FunctionNode(self._function("last"), name="last"))
        self.price = Price.per_million(input=1, output=3, cached=0.1)
        self.model = FunctionModel(self._reply, price=self.price, window=400)

    def _node(self) -> Any:
        self._names += 1
        name = f"n{self._names}"
        kind = self.random.random()
        if kind < 0.1 and self.depth < 2:
            return self._sub_graph(name)
        node = self._agent(name) if kind < 0.5 else FunctionNode(self._function(name), name=name, retry=self._retry())
        if self.random.random() < 0.2:
            node = guarded(node, before=[fine], after=[fine, self._agent("judge")][: self.random.randint(0, 2)])
        return node if self.random.random() < 0.8 else node.limit(calls=self.random.randint(1, 3))

    def _edge(self, source: Any, target: Any, before: list[Any], **options: Any) -> None:
        if (isinstance(target, list) or "each" in options) and self.random.random() < 0.3:
            options["budget"] = Budget(steps=self.random.randint(1, 20), share=self.random.choice([None, "equal"]))
        super()._edge(source, target, before, **options)

    def _retry(self) -> Retry | None:
        return Retry(attempts=2, backoff=0, on=ValueError) if self.random.random() < 0.3 else None

    def _sub_graph(self, name: str) -> Graph[Any, Any]:
        inner = MixedBuilder(self.random.randrange(1 << 30), size=3, depth=self.depth + 1)
        graph = inner.build()
        graph.name, graph.budget, graph.retry = name, self._budget(["raise", "partial", "wrap_up"]), self._retry()
        return graph

    def _function(self, name: str) -> Callable[[Any], Any]:
        failed: list[str] = []

        async def step(value: Any) -> int:
            if digest(self.outcomes.seed, name, value, len(failed)) % 100 < self.outcomes.failing:
                failed.append(name)
                raise ValueError(name)
            return digest(self.outcomes.seed, value, name) % 24

        return step

    def _agent(self, name: str) -> Node[Any, Any]:
        async def look(word: str) -> str:
            """Look a word up."""
            return f"{word} means nothing"

        return Agent(
            name,
            input=object,
            output=bool if name == "judge" else int,
            model=self._wrapped(self.model),
            instructions="Think of a number" if self.random.random() < 0.5 else "",
            tools=[Tool(look, budget=self._budget())] if self.random.random() < 0.5 else [],
            settings=ModelSettings(max_tokens=self.random.choice([20, 1000])),
            max_turns=self.random.randint(1, 4),
            history=self.random.choice(["fresh", "branch"]),
            budget=self._budget(["raise", "partial", "wrap_up"]),
        )

    def _budget(self, policies: Sequence[OnExhausted] = ("raise",)) -> Budget | None:
        if self.random.random() < 0.6:
            return None
        name = self.random.choice(["tokens", "input_tokens", "output_tokens", "model_calls", "tool_calls", "steps"])
        limit: Any = {name: self.random.randint(1, 60 if "tokens" in name else 6)}
        return Budget(on_exhausted=self.random.choice(policies), **limit)

    def _wrapped(self, model: Model) -> Model:
        again = Retry(attempts=self.random.randint(1, 3), backoff=0)
        wrap = [
            lambda: Retried(model, again),
            lambda: Fallback(model, self.model),
            lambda: Cached(model),
            lambda: Priced(model, Price(5, 1, request=7)),
        ]
        return model if self.random.random() < 0.6 else self._wrapped(self.random.choice(wrap)())

    def _reply(self, request: ModelRequest) -> Reply:
        if digest(len(self.model.requests)) % 6 == 0:
            return ModelUnavailable("busy", billed=self.random.choice([True, False]))
        if request.output_schema and request.output_schema["title"] == "judge":
            return '{"result": true}'
        said = digest(self.outcomes.seed, request.messages, len(self.model.requests))
        if request.tools and said % 3 == 0:
            return [ToolCall("", "look", json.dumps({"word": f"w{i}"})) for i in range(said % 4)] or "nothing"
        return json.dumps({"result": said % 24}) if said % 5 else "no number"


def usage_of(node: Node[Any, Any], value: object, budget: Budget | None = None) -> tuple[bool, Usage]:
    """Run a node and return whether it succeeded, and what it used."""
    closing: list[RunFinished | RunFailed] = []

    def observe(event: object) -> None:
        if isinstance(event, RunFinished | RunFailed):
            closing.append(event)

    async def main() -> None:
        try:
            await run(node, value, budget=budget, observers=[observe])
        except BudgetTooSmall:
            assert not foresee(node, value, budget, widths=three_items(node)).fits
        except AgentrtError:
            assert isinstance(closing[0], RunFailed)

    anyio.run(main)
    return (isinstance(closing[0], RunFinished), closing[0].usage) if closing else (False, Usage())


def assert_within(bounds: Bounds, usage: Usage, *, succeeded: bool) -> None:
    for name, bound in bounds.items():
        used = getattr(usage, name)
        assert used <= bound.greatest <= bound.uncapped, name
        assert bound.least <= used or not succeeded, name


budgets = st.one_of(
    st.none(),
    st.builds(
        lambda name, n, policy: Budget(**{name: n}, on_exhausted=policy),
        st.sampled_from(DIMENSIONS[1:]),
        st.integers(1, 300),
        st.sampled_from(["raise", "partial", "wrap_up"]),
    ),
)


def three_items(graph: Node[Any, Any]) -> dict[str, int]:
    """Return the widths of the forks over what `items` makes."""
    return {name: 3 for part, _ in walk(graph, lambda node: node.parts) for name in part.forks}


@cases(10)
@given(st.integers(0, 1 << 30), budgets)
def test_every_run_lies_within_its_bounds(seed: int, budget: Budget | None) -> None:
    """Whatever the graph, its agents and its budget: least <= used if it succeeds, used <= greatest in any case."""
    graph = MixedBuilder(seed).build()
    bounds = graph.bounds(seed % 24, budget, widths=three_items(graph))
    succeeded, usage = usage_of(graph, seed % 24, budget)
    assert_within(bounds, usage, succeeded=succeeded)
    assert bounds.fits or not succeeded


@cases(15)
@given(st.integers(0, 1 << 30), st.sampled_from(range(len(DIMENSIONS))))
def test_the_structure_alone_tells_no_more_than_the_bounds(seed: int, d: int) -> None:
    """What is asked before each run is below the least, and is the same where no input is known."""
    graph, models = MixedBuilder(seed).build(), Models(None)
    agents = [node for node, _ in walk(graph, lambda node: node.parts) if isinstance(node, Agent)]
    found = least_of_step(graph, d, {agent: least_of_call(agent, d, models, None) for agent in agents})
    least = getattr(graph.bounds(seed % 24), DIMENSIONS[d]).least
    assert found / (PICO if d == USD else 1) <= least


@cases(50)
@given(st.integers(0, 1 << 30))
def test_functions_with_loops_and_forks_are_bounded(seed: int) -> None:
    """Every loop of these graphs has `times` and every fork a width, so that their steps have a bound."""

    class Plain(MixedBuilder):
        def _node(self) -> Any:
            self._names += 1
            return FunctionNode(self._function(f"n{self._names}"), name=f"n{self._names}")

    graph = Plain(seed, failing=0, size=8).build()
    bounds = graph.bounds(1, widths=three_items(graph))
    succeeded, usage = usage_of(graph, 1)
    assert bounds.steps.greatest < math.inf
    assert_within(bounds, usage, succeeded=succeeded)


async def one(x: object) -> int:
    return 1


async def two(x: object) -> int:
    return 1


async def three(x: object) -> int:
    return 1


def steps(graph: Graph[Any, Any], value: object = 1, **options: Any) -> tuple[float, float]:
    bound = graph.bounds(value, **options).steps
    return bound.least, bound.greatest


def test_a_sequence_adds() -> None:
    """A chain takes exactly its steps and its own."""
    graph = Graph("g")
    graph.chain(START, one, two, three, END)
    assert steps(graph) == (4, 4)


def test_a_choice_takes_the_least_and_the_greatest() -> None:
    """One way is a step shorter."""
    graph = Graph("g")
    graph.edge(START, one)
    graph.edge(one, END, when=bool)
    graph.chain(one, two, three, END)
    assert steps(graph) == (2, 4)


def test_a_loop_multiplies() -> None:
    """Nobody knows how often `when` holds; without it every round is sure."""
    for when, least in ((bool, 3), (None, 9)):
        graph = Graph("g")
        graph.chain(START, one, two)
        graph.edge(two, one, times=3, when=when)
        graph.edge(two, END)
        assert steps(graph) == (least, 9)


def test_loops_inside_each_other_share_their_rounds() -> None:
    """`times` counts a branch's whole way, so that rounds add."""
    graph = Graph("g")
    graph.chain(START, one, two)
    graph.edge(two, two, times=5, when=bool)
    graph.edge(two, one, times=3, when=bool)
    graph.edge(two, END)
    assert steps(graph) == (3, 1 + 2 + 5 + 3 * 2)


def test_a_loop_without_times_is_named() -> None:
    """Nothing but a budget bounds it."""
    graph = Graph("g")
    graph.chain(START, one, two)
    graph.edge(two, one, when=bool)
    graph.edge(two, END)
    found = graph.bounds(1, Budget(steps=50)).steps
    assert (found.greatest, found.uncapped, found.dominant) == (50, math.inf, "g/one")
    assert dict(found.unbounded) == {"g/one": "is in a loop without times=: one → two"}


def test_a_fork_over_the_input_has_its_width() -> None:
    """The list is there already, also for a graph inside another."""
    inner = Graph("inner")
    inner.edge(START, one, each=True)
    inner.edge(one, END, join=collect)
    graph = Graph("g")
    graph.chain(START, inner, END)
    assert steps(graph, [1, 2, 3]) == (5, 5)
    assert steps(graph, []) == (2, 2)


def test_a_fork_over_what_a_node_gives_needs_a_width() -> None:
    """Without it the node is named; a number is the most, a pair the least and the most."""
    graph = Graph("g")
    graph.chain(START, one)
    graph.edge(one, two, each=lambda value: [value] * 3)
    graph.edge(two, END, join=collect)
    assert steps(graph) == (2, math.inf)
    assert "widths={'two': …}" in graph.bounds(1).steps.unbounded["g/two"]
    assert steps(graph, widths={"two": 4}) == (2, 6)
    assert steps(graph, widths={"two": (3, 4)}) == (5, 6)


@pytest.mark.parametrize(
    ("join", "least"), [(collect, 5), (first(), 3), (first(2), 2), (Join(len, errors="drop"), 2), (Join(len, 2), 4)]
)
def test_a_join_says_which_branches_must_end(join: Any, least: int) -> None:
    """All of them, unless some are cancelled or may fail; then the cheapest that it needs."""
    graph = Graph("g")
    graph.edge(START, one)
    graph.edge(one, [two, two, two])
    graph.edge(two, END, join=join)
    assert steps(graph) == (least, 5)


def test_a_branch_that_may_die_is_cheap() -> None:
    """It dies where no edge need hold."""
    graph = Graph("g")
    graph.edge(START, [one, one])
    graph.edge(one, two, when=bool)
    graph.edge(two, END, join=vote)
    assert steps(graph) == (3, 5)


def test_prompts_side_by_side_may_be_billed_once() -> None:
    """Equal draws share a prompt: of tokens only one branch's are sure, of calls every one's."""
    graph = Graph("g")
    graph.edge(START, [Agent("a", model=FunctionModel(lambda _: "x"))] * 4)
    graph.edge(graph.nodes[0], END, join=collect)
    bounds = graph.bounds("three words here")
    assert (bounds.tokens.least, bounds.model_calls.least) == (3, 4)


def test_a_limit_of_calls_holds_in_a_loop() -> None:
    """The node takes no more than its calls, whoever else goes round."""
    graph = Graph("g")
    limited = FunctionNode(one, name="limited").limit(calls=2)
    graph.chain(START, limited, two)
    graph.edge(two, limited, times=5, when=bool)
    graph.edge(two, END)
    assert steps(graph)[1] == 1 + 2 + 6


def test_a_node_that_cannot_fit_its_own_limit_is_avoided() -> None:
    """The least is that of the other way; with no other way no run can succeed, and the node is named."""
    graph = Graph("g")
    graph.edge(START, one)
    graph.edge(one, FunctionNode(two, name="tight", budget=Budget(steps=0)))
    graph.edge(graph.nodes[1], END)
    bounds = graph.bounds(1)
    assert not bounds.fits
    with pytest.raises(BudgetTooSmall, match="g/tight needs at least 1 steps, and its own budget is 0"):
        bounds.check()


def test_guardrails_are_steps_of_their_node() -> None:
    """Those of the output run again after wrapping up."""
    graph = Graph("g")
    graph.chain(START, guarded(one, before=[two], after=[three]), END)
    assert steps(graph) == (4, 4)
    agent = Agent("a", model=FunctionModel(lambda _: "x"), max_turns=2, budget=Budget(tokens=9, on_exhausted="wrap_up"))
    graph = Graph("g")
    graph.chain(START, guarded(agent, after=[three]), END)
    assert steps(graph) == (2, 1 + 1 + 2 + 1 + 2)


def test_handoffs_are_edges_without_times() -> None:
    """Two agents that hand over to each other may do so for ever."""
    ask, answer = (Agent(n, model=FunctionModel(lambda _: "x"), handoffs=[m]) for n, m in ("ab", "ba"))
    graph = Graph("g")
    graph.chain(START, ask, answer, END)
    assert steps(graph) == (5, math.inf)
    assert "is in a loop without times=: a → b" in graph.bounds("x").steps.unbounded["g/a"]


def test_the_reply_of_the_fake_is_a_call() -> None:
    """The fakes of this page do use their tools."""
    model = FunctionModel(lambda request: "done" if len(request.messages) > 1 else call("one", x=1))
    _, usage = usage_of(Agent("a", model=model, tools=[Tool(one, description="One.")]), "hi")
    assert (usage.tool_calls, usage.model_calls) == (1, 2)


def test_a_way_that_may_not_be_taken_counts_all_the_same() -> None:
    """Where no edge holds the run fails, and bounds are of runs that succeed."""
    graph = Graph("g")
    graph.edge(START, one)
    graph.edge(one, two, when=lambda value: value == 1)
    graph.edge(two, END)
    assert steps(graph) == (1 + 1 + 1, 1 + 1 + 1)


def test_loops_beyond_counting_are_walked_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least stays one, only smaller: what takes too long to find out is left out."""
    graph = Graph("g")
    graph.edge(START, one)
    graph.edge(one, two)
    graph.edge(two, one, times=3)
    graph.edge(two, END)
    exact, greatest = steps(graph)
    assert exact == greatest == 1 + 4 * 2
    monkeypatch.setattr(walks, "_MOST_STATES", 2)
    assert steps(graph) == (1 + 2, greatest)
