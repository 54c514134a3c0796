"""The plan, without an event loop: rules G1-G11 and the paths, by cases and against a recursive interpreter."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import (
    END,
    START,
    AgentrtError,
    BudgetExceeded,
    DeadEnd,
    Graph,
    Join,
    Node,
    NothingArrived,
    best,
    collect,
    first,
    vote,
)
from agentrt.edge import Edge
from agentrt.plan import MOST_LINKS, Activation, BatchPlan, Failure, GraphPlan, Plan
from tests.randomgraphs import Builder, Outcomes


class Named(Node[Any, Any]):
    async def invoke(self, ctx: Any, value: Any, /) -> Any:
        raise NotImplementedError


def named(names: str) -> list[Any]:
    return [Named(name) for name in names.split()]


class Driver:
    """Drive a plan by hand: everything that became ready runs at once, in order, unless told otherwise."""

    def __init__(self, graph: Graph[Any, Any], value: Any = 0, does: Callable[[str, Any], Any] | None = None) -> None:
        self.plan = GraphPlan("g", graph.compile(), START, END, value)
        self.does = does or (lambda path, value: value)
        self.ready: list[Activation] = list(self.plan.start())
        self.started: list[Activation] = list(self.ready)

    @property
    def paths(self) -> list[str]:
        return [a.path for a in self.started]

    def end(self, path: str, outcome: Any) -> list[str]:
        """End one step; return the paths that became ready."""
        activation = next(a for a in self.ready if a.path == path)
        self.ready.remove(activation)
        became: Sequence[Activation] = ()
        if isinstance(outcome, BudgetExceeded) and self.plan.path.startswith(outcome.scope):
            self.plan.refused(activation, Failure(path, activation.value, outcome))
        elif isinstance(outcome, Exception):
            became = self.plan.failed(activation, Failure(path, activation.value, outcome))
        else:
            became = self.plan.succeeded(activation, outcome)
        self.ready += became
        self.started += became
        return [a.path for a in became]

    def run(self) -> Driver:
        while self.ready and not self.plan.finished:
            self.end(self.ready[0].path, self.does(self.ready[0].path, self.ready[0].value))
        return self

    @property
    def cancelled(self) -> list[str]:
        return sorted(a.path for a in self.plan.cancelling)


def test_a_chain_runs_one_by_one_to_end() -> None:
    """G1, G10: one branch from START to END, whose value is the output."""
    a, b = named("a b")
    graph = Graph("g")
    graph.chain(START, a, b, END)
    driver = Driver(graph, 1, lambda path, value: value + 1).run()
    assert driver.paths == ["g/a", "g/b"]
    assert driver.plan.output == 3


@pytest.mark.parametrize(("value", "expected"), [(1, "small"), (5, "middle"), (9, "rest")])
def test_the_first_edge_that_holds_is_taken(value: int, expected: str) -> None:
    """G2: edges are tried in declared order."""
    a, small, middle, rest = named("a small middle rest")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, small, when=lambda v: v < 3)
    graph.edge(a, middle, when=lambda v: v < 7)
    graph.edge(a, rest)
    graph.edge([small, middle, rest], END)
    assert Driver(graph, value).run().paths == ["g/a", f"g/{expected}"]


def test_a_loop_is_taken_at_most_times() -> None:
    """G3: after n times the edge no longer holds."""
    a, b = named("a b")
    graph = Graph("g")
    graph.chain(START, a, b)
    graph.edge(b, a, times=2)
    graph.edge(b, END)
    assert Driver(graph).run().paths == ["g/a", "g/b", "g/a#2", "g/b#2", "g/a#3", "g/b#3"]


def test_an_edge_whose_when_fails_is_not_counted_as_taken() -> None:
    """G3: only taking the edge counts."""
    a, b = named("a b")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, a, when=lambda v: v % 2 == 1, times=2)
    graph.edge(a, b, when=lambda v: v < 9, times=5)
    graph.edge(b, a)
    graph.edge(a, END)
    values = iter([0, 0, 1, 0, 0, 10])
    driver = Driver(graph, 0, lambda path, value: next(values)).run()
    assert driver.paths == ["g/a", "g/b", "g/a#2", "g/a#3", "g/b#2", "g/a#4"]


def test_each_branch_counts_its_own_times() -> None:
    """G3: the cap is a branch's own."""
    a, b, c = named("a b c")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, b, each=True)
    graph.edge(b, b, times=1)
    graph.edge(b, c, join=collect)
    graph.edge(c, END)
    driver = Driver(graph, [1, 2]).run()
    assert driver.paths == ["g/a", "g/b[0]", "g/b[1]", "g/b[0]#2", "g/b[1]#2", "g/c"]


def fan(join: Any = collect, each: Any = True) -> Graph[Any, Any]:
    split, work, merge = named("split work merge")
    graph = Graph("g")
    graph.edge(START, split)
    graph.edge(split, work, each=each)
    graph.edge(work, merge, join=join)
    graph.edge(merge, END)
    return graph


def test_a_fork_over_items_joins_in_branch_order() -> None:
    """G4, G5, G7: the order of arrival does not matter."""
    driver = Driver(fan(), 0)
    driver.end("g/split", ["a", "b", "c"])
    for i in (2, 0):
        assert driver.end(f"g/work[{i}]", i * 10) == []
    assert driver.end("g/work[1]", 10) == ["g/merge"]
    assert driver.started[-1].value == [0, 10, 20]
    assert driver.started[-1].join == (3, 3)


@pytest.mark.parametrize("items", ["text", {1, 2}, 7, None, iter([1]), {"a": 1}])
def test_only_lists_and_tuples_fork(items: Any) -> None:
    """G4: each= takes a list or a tuple, never a string or set; anything else is an error of the source."""
    driver = Driver(fan(), 0)
    driver.end("g/split", items)
    assert driver.plan.failure is not None
    assert driver.plan.failure.path == "g/split"
    assert isinstance(driver.plan.failure.error, AgentrtError)


def test_a_tuple_forks() -> None:
    """G4: a tuple is as good as a list."""
    driver = Driver(fan(), 0)
    assert driver.end("g/split", (1, 2)) == ["g/work[0]", "g/work[1]"]


def test_a_function_selects_the_items() -> None:
    """G4: each=fn forks over what the function makes of the value."""
    driver = Driver(fan(each=lambda v: [v, v * 2]), 3)
    assert driver.end("g/split", 3) == ["g/work[0]", "g/work[1]"]
    assert [a.value for a in driver.ready] == [3, 6]


def test_several_targets_fork_in_their_order() -> None:
    """G4: one branch a target, all with the same value; paths count branches, not targets."""
    a, b, c, d = named("a b c d")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, [b, c, b])
    graph.edge([b, c], d, join=collect)
    graph.edge(d, END)
    driver = Driver(graph, 1, lambda path, value: path if path != "g/a" else value).run()
    assert driver.paths == ["g/a", "g/b[0]", "g/c[1]", "g/b[2]", "g/d"]
    assert driver.started[-1].value == ["g/b[0]", "g/c[1]", "g/b[2]"]


def test_each_with_several_targets_forks_item_by_item() -> None:
    """G4: the branches of one item stand together."""
    a, b, c, d = named("a b c d")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, [b, c], each=True)
    graph.edge([b, c], d, join=collect)
    graph.edge(d, END)
    assert Driver(graph, [1, 2]).run().paths == ["g/a", "g/b[0]", "g/c[1]", "g/b[2]", "g/c[3]", "g/d"]


def test_start_may_fork_and_a_join_may_lead_to_end() -> None:
    """G4, G7, G10: the markers stand at both ends of a fork."""
    a, b = named("a b")
    graph = Graph("g")
    graph.edge(START, [a, b])
    graph.edge([a, b], END, join=sum)
    driver = Driver(graph, 4).run()
    assert driver.paths == ["g/a[0]", "g/b[1]"]
    assert driver.plan.output == 8


def test_an_empty_fork_closes_at_once() -> None:
    """G7: the join's target starts even if nothing arrived."""
    driver = Driver(fan(), 0)
    assert driver.end("g/split", []) == ["g/merge"]
    assert driver.started[-1].value == []
    assert driver.started[-1].after == ("g/split",)


def test_empty_forks_in_a_loop_need_no_stack() -> None:
    """G4: a fork is opened by a step, so ten thousand empty ones in a row nest nothing."""
    loop, work = named("loop work")
    graph = Graph("g")
    graph.edge(START, loop)
    graph.edge(loop, END, when=lambda v: v == "stop")
    graph.edge(loop, work, each=True)
    graph.edge(work, loop, join=collect)
    visits = iter([*([[]] * 10_000), "stop"])
    assert len(Driver(graph, 0, lambda path, value: next(visits)).run().paths) == 10_001


def test_a_branch_without_an_edge_dies_inside_a_fork() -> None:
    """G6, G7: death is no error; the join gets what arrived."""
    a, b, c, d = named("a b c d")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, b, each=True)
    graph.edge(b, c, when=lambda v: v > 1)
    graph.edge(c, d, join=collect)
    graph.edge(d, END)
    driver = Driver(graph, [1, 2, 3]).run()
    assert driver.plan.output == [2, 3]
    assert driver.plan.died == [("g/b[0]", None)]
    assert driver.started[-1].join == (2, 3)


def test_every_branch_may_die() -> None:
    """G7: the target starts even if none arrived."""
    a, b, c = named("a b c")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, b, each=True)
    graph.edge(b, c, join=len, when=lambda v: v > 9)
    graph.edge(c, END)
    assert Driver(graph, [1, 2]).run().plan.output == 0


def test_outside_every_fork_no_edge_is_a_dead_end() -> None:
    """G6: the error names the step and holds its output."""
    a, b = named("a b")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, b, when=lambda v: v > 1)
    graph.edge(b, END)
    failure = Driver(graph, 1).run().plan.failure
    assert failure is not None
    assert (failure.path, failure.input, type(failure.error)) == ("g/a", 1, DeadEnd)


@pytest.mark.parametrize("reducer", [vote, best(int), first()])
def test_vote_best_and_first_need_an_arrival(reducer: Any) -> None:
    """G7, G8: on none they raise NothingArrived, in the name of the step that could not start."""
    driver = Driver(fan(reducer), 0)
    driver.end("g/split", [])
    assert driver.plan.failure is not None
    assert isinstance(driver.plan.failure.error, NothingArrived)
    assert driver.plan.failure.path == "g/merge"


def test_first_closes_at_the_nth_arrival_and_cancels_the_rest() -> None:
    """G8: at once; late results are ignored."""
    driver = Driver(fan(first(2)), 0)
    driver.end("g/split", [1, 2, 3, 4])
    driver.end("g/work[3]", "d")
    late = driver.ready[1]
    assert driver.end("g/work[0]", "a") == ["g/merge"]
    assert driver.started[-1].value == ["a", "d"]
    assert driver.cancelled == ["g/work[1]", "g/work[2]"]
    assert driver.plan.succeeded(late, "b") == ()
    assert driver.plan.failed(late, Failure(late.path, 0, ValueError())) == ()


def test_first_closes_with_fewer_when_all_have_ended() -> None:
    """G8: failed branches die, and are listed as dropped."""
    driver = Driver(fan(first(2)), 0)
    driver.end("g/split", [1, 2])
    driver.end("g/work[0]", ValueError("x"))
    assert driver.end("g/work[1]", "b") == ["g/merge"]
    assert driver.started[-1].value == ["b"]
    assert [f.path for f in driver.plan.dropped] == ["g/work[0]"]
    assert [path for path, error in driver.plan.died if error is not None] == ["g/work[0]"]


def test_first_cancels_forks_inside() -> None:
    """G8, G9: cancelling a branch ends what its inner forks run, too."""
    driver = Driver(nested(inner=collect, outer=first()), 0)
    driver.end("g/a", [1, 2])
    driver.end("g/b[0]", [1, 2])
    driver.end("g/b[1]", [])
    driver.end("g/d[1]", "won")
    assert driver.cancelled == ["g/c[0][0]", "g/c[0][1]"]


def nested(inner: Any = collect, outer: Any = collect) -> Graph[Any, Any]:
    """Fork a into b, b into c; join c into d (inner), d into e (outer)."""
    a, b, c, d, e = named("a b c d e")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, b, each=True)
    graph.edge(b, c, each=True)
    graph.edge(c, d, join=inner)
    graph.edge(d, e, join=outer)
    graph.edge(e, END)
    return graph


def test_forks_nest() -> None:
    """G5: a join closes the innermost fork."""
    lists = {"g/a": [1, 2], "g/b[0]": [10, 11], "g/b[1]": [20]}
    driver = Driver(nested(inner=sum), 0, lists.get).run()
    assert driver.plan.output == [21, 20]
    assert "g/c[1][0]" in driver.paths
    assert "g/d[1]" in driver.paths


def test_an_error_cancels_its_forks_and_travels_outward() -> None:
    """G9: the run ends with the first error, everything else is cancelled."""
    driver = Driver(nested(), 0)
    driver.end("g/a", [1, 2])
    driver.end("g/b[0]", [1, 2])
    driver.end("g/c[0][1]", ValueError("x"))
    assert driver.plan.failure is not None
    assert driver.plan.failure.path == "g/c[0][1]"
    assert driver.cancelled == ["g/b[1]", "g/c[0][0]"]


def test_a_join_that_drops_stops_an_error_on_its_way_out() -> None:
    """G9: the failed branch of the outer fork dies, with everything inside it, and the rest goes on."""
    driver = Driver(nested(outer=Join(collect, errors="drop")), 0)
    driver.end("g/a", [1, 2])
    driver.end("g/b[0]", [1, 2])
    driver.end("g/b[1]", [])
    driver.end("g/c[0][1]", ValueError("x"))
    assert driver.cancelled == ["g/c[0][0]"]
    assert driver.end("g/d[1]", "fine") == ["g/e"]
    assert driver.started[-1].value == ["fine"]
    assert [f.path for f in driver.plan.dropped] == ["g/c[0][1]"]


def test_errors_of_edges_are_errors_of_the_branch() -> None:
    """V5, G9: exceptions in `when`, `each` and reducers travel like a step's own."""

    def broken(value: Any) -> Any:
        raise ZeroDivisionError

    for graph, path in [(fan(each=broken), "g/split"), (fan(broken), "g/merge")]:
        driver = Driver(graph, 0)
        driver.end("g/split", [])
        assert driver.plan.failure is not None
        assert (driver.plan.failure.path, type(driver.plan.failure.error)) == (path, ZeroDivisionError)


def test_a_denial_from_outside_drains() -> None:
    """E2: nothing more becomes ready, what runs may end, and no join drops the denial (E1)."""
    driver = Driver(fan(first()), 0)
    driver.end("g/split", [1, 2])
    denial = BudgetExceeded(scope="g", dimension="tokens", needed=1, spent=1, limit=1, path="g/work[0]/chat")
    assert driver.end("g/work[0]", denial) == []
    assert driver.end("g/work[1]", "late") == []
    assert driver.plan.exhausted is not None
    assert driver.plan.exhausted.error is denial
    assert not driver.plan.finished
    assert not driver.plan.cancelling


def test_a_denial_owned_inside_the_fork_is_dropped() -> None:
    """E1: the branch whose own budget refused dies like any other that failed."""
    driver = Driver(fan(first()), 0)
    driver.end("g/split", [1, 2])
    denial = BudgetExceeded(scope="g/work[0]", dimension="tokens", needed=1, spent=1, limit=1, path="g/work[0]/chat")
    driver.end("g/work[0]", denial)
    assert [f.error for f in driver.plan.dropped] == [denial]


def test_latest_is_seen_inward_and_never_sideways() -> None:
    """G11: own and enclosing branches; siblings and closed forks are invisible."""
    graph = nested()
    a, b, c, d, _ = graph.nodes
    driver = Driver(graph, 0)
    driver.end("g/a", [1, 2])
    driver.end("g/b[0]", [5])
    driver.end("g/c[0][0]", "inner")
    branch = driver.ready[-1].branch
    assert driver.ready[-1].path == "g/d[0]"
    assert branch is not None
    assert (branch.lookup(a), branch.lookup(b), branch.lookup(START)) == ([1, 2], [5], 0)
    for invisible in (c, d):
        with pytest.raises(LookupError, match=invisible.name):
            branch.lookup(invisible)


def test_send_passes_on_an_earlier_output() -> None:
    """G11: also into forks and joins."""
    a, b, c, d = named("a b c d")
    graph = Graph("g")
    graph.edge(START, a)
    graph.edge(a, b, each=True)
    graph.edge(b, c)
    graph.edge(c, d, join=collect, send=b)
    graph.edge(d, END, send=START)
    driver = Driver(graph, "input", lambda path, value: path if path != "g/a" else [1, 2]).run()
    assert driver.started[-1].value == ["g/b[0]", "g/b[1]"]
    assert driver.plan.output == "input"


def test_an_activation_names_what_it_follows() -> None:
    """A join follows its branches' last steps, at most as many as a trace keeps."""
    driver = Driver(fan(), list(range(300)), lambda path, value: value).run()
    assert driver.started[1].after == ("g/split",)
    assert driver.started[-1].after[:2] == ("g/work[0]", "g/work[1]")
    assert len(driver.started[-1].after) == MOST_LINKS


def paths_of(rounds: int) -> list[str]:
    """Nest two forks inside a loop, and loops inside the branches."""
    plan, research, split, look, merge, write = named("planner researcher split summarise merge writer")
    graph = Graph("brief")
    graph.chain(START, plan)
    graph.edge(plan, research, each=True)
    graph.edge(research, research, times=1)
    graph.edge(research, split)
    graph.edge(split, look, each=True)
    graph.edge(look, look, times=3)
    graph.edge(look, merge, join=collect)
    graph.edge(merge, split, times=1)
    graph.edge(merge, write, join=collect)
    graph.edge(write, plan, times=rounds)
    graph.edge(write, END)
    forks = ("g/planner", "g/split")
    return Driver(graph, 0, lambda path, value: [1, 2, 3, 4] if path.startswith(forks) else value).run().paths


@pytest.mark.parametrize(
    "path",
    [
        "g/planner",
        "g/writer#2",
        "g/researcher[3]#2",
        "g/researcher#2[3]",
        "g/summarise[3]#2[0]#4",
        "g/summarise#2[3]#2[0]#4",
        "g/merge[0]#2",
    ],
)
def test_every_row_of_the_table_of_paths(path: str) -> None:
    """Paths: chain, cycles at the top and in a branch, forks opened again, nested rounds and visits."""
    assert path in paths_of(1)


def test_paths_are_unique() -> None:
    """Paths: no two activations of a run share one."""
    assert max(Counter(paths_of(2)).values()) == 1


def batch(n: int, **options: Any) -> tuple[BatchPlan, list[Activation]]:
    activations = [Activation(node, i, f"p/{node.name}") for i, node in enumerate(named(" ".join("abcdefgh"[:n])))]
    return BatchPlan("p", activations, **options), activations


def test_a_batch_keeps_order_and_limit() -> None:
    """At most `limit` at once; the outputs are in the order of the calls."""
    plan, calls = batch(4, limit=2)
    assert list(plan.start()) == calls[:2]
    assert list(plan.succeeded(calls[1], "b")) == [calls[2]]
    assert list(plan.succeeded(calls[0], "a")) == [calls[3]]
    assert not plan.succeeded(calls[3], "d")
    assert not plan.succeeded(calls[2], "c")
    assert plan.output == ["a", "b", "c", "d"]


def test_an_empty_batch_is_finished_at_once() -> None:
    """Nothing to do is no reason to wait."""
    plan, _ = batch(0)
    assert list(plan.start()) == []
    assert plan.finished
    assert plan.output == []


def test_the_first_error_of_a_batch_cancels_the_others() -> None:
    """What was not started never starts, and late outcomes are ignored."""
    plan, calls = batch(4, limit=2)
    plan.start()
    assert not plan.failed(calls[0], Failure("p/a", 0, ValueError()))
    assert plan.finished
    assert plan.cancelling == [calls[1]]
    assert plan.succeeded(calls[1], "late") == ()


def test_a_batch_may_keep_errors() -> None:
    """Then every call contributes, a failed one its failure."""
    plan, calls = batch(2, keep_errors=True)
    plan.start()
    failure = Failure("p/a", 0, ValueError())
    plan.failed(calls[0], failure)
    plan.succeeded(calls[1], "b")
    assert plan.output == [failure, "b"]


# A slow recursive interpreter of the rules, and the comparison with it.


@dataclass
class Trace:
    """What happened on a branch, with times: steps started, branches that died, failures dropped."""

    started: list[tuple[float, str, str, Any]] = field(default_factory=list)
    died: list[tuple[float, str]] = field(default_factory=list)
    dropped: list[tuple[float, str]] = field(default_factory=list)

    def until(self, time: float, other: Trace) -> None:
        """Add what the other did up to a time."""
        for name in ("started", "died", "dropped"):
            getattr(self, name).extend(entry for entry in getattr(other, name) if entry[0] <= time)


@dataclass
class End:
    """How a branch ended: `arrived` (value), `died` (path), `error` (path, error) or `done` (output)."""

    time: float
    kind: str
    value: Any = None
    path: str = ""
    last: str = ""


@dataclass
class Thread:
    label: str
    around: Thread | None
    trace: Trace = field(default_factory=Trace)
    latest: dict[Any, Any] = field(default_factory=dict)
    counts: Counter[Any] = field(default_factory=Counter)
    last: str = ""

    def lookup(self, node: Any) -> Any:
        return self.latest[node] if node in self.latest else self.around.lookup(node)  # type: ignore[union-attr]


class Reference:
    """Interpret a graph recursively: every fork runs its branches to their ends, and only then looks at the clock."""

    def __init__(self, graph: Graph[Any, Any], outcomes: Outcomes) -> None:
        self.edges = graph.edges
        self.outcomes = outcomes

    def run(self, value: Any) -> tuple[End, Trace]:
        root = Thread("", None, latest={START: value})
        return self.leave(root, START, value, "g", 0.0), root.trace

    def visit(self, thread: Thread, node: Any, value: Any, time: float, join: Any = None) -> End:
        if node is END:
            return End(time, "done", value)
        thread.counts[node] += 1
        visit = f"#{thread.counts[node]}" if thread.counts[node] > 1 else ""
        path = f"g/{node.name}{thread.label}{visit}"
        thread.trace.started.append((time, path, repr(value), join))
        time += self.outcomes.duration(path)
        outcome = self.outcomes(path, value)
        thread.last = path
        if isinstance(outcome, Exception):
            return End(time, "error", outcome, path, path)
        thread.latest[node] = outcome
        return self.leave(thread, node, outcome, path, time)

    def leave(self, thread: Thread, node: Any, value: Any, path: str, time: float) -> End:
        edge = self.choose(thread, node, value)
        if edge is None and thread.around is not None:
            thread.trace.died.append((time, path))
            return End(time, "died")
        if edge is None:
            return End(time, "error", DeadEnd(), path)
        payload = value if edge.send is None else thread.lookup(edge.send)
        if edge.join is not None:
            return End(time, "arrived", payload)
        if not edge.forks:
            return self.visit(thread, edge.targets[0], payload, time)
        parts: Any = edge.each(payload) if callable(edge.each) else [payload]
        if not isinstance(parts, (list, tuple)):
            return End(time, "error", AgentrtError(), path)
        return self.fork(thread, edge, [(t, part) for part in parts for t in edge.targets], time)

    def choose(self, thread: Thread, node: Any, value: Any) -> Edge | None:
        for edge in self.edges:
            if edge.source is not node or (edge.times is not None and thread.counts[edge] >= edge.times):
                continue
            if edge.when is None or edge.when(value):
                thread.counts[edge] += 1
                return edge
        return None

    def closer(self, fork: Edge) -> tuple[Any, Join[Any, Any]]:
        """Follow first targets to the join at the fork's own level."""
        seen, todo = set(), [(t, 0) for t in fork.targets]
        while todo:
            node, level = todo.pop()
            for edge in (e for e in self.edges if e.source is node):
                if edge.join is not None and level == 0:
                    return edge.targets[0], edge.join
                state = (edge.targets, level + (1 if edge.forks else -1 if edge.join is not None else 0))
                if state not in seen:
                    seen.add(state)
                    todo += [(t, state[1]) for t in edge.targets]
        raise AssertionError(fork)

    def fork(self, thread: Thread, edge: Edge, starts: Sequence[tuple[Any, Any]], time: float) -> End:
        target, join = self.closer(edge)
        turn = thread.counts["round", target, join] = thread.counts["round", target, join] + 1
        prefix = f"{thread.label}#{turn}" if turn > 1 else thread.label
        children = [Thread(f"{prefix}[{i}]", thread) for i in range(len(starts))]
        ends = [self.visit(c, n, v, time) for c, (n, v) in zip(children, starts, strict=True)]
        arrived: dict[int, Any] = {}
        for i in sorted(range(len(ends)), key=lambda i: ends[i].time):
            end = ends[i]
            time = end.time
            if end.kind == "arrived":
                arrived[i] = end.value
            elif end.kind == "error" and join.errors == "raise":
                self.cut(thread, children, time)
                return end
            elif end.kind == "error":
                thread.trace.died.append((time, children[i].last))
                thread.trace.dropped.append((time, end.path))
            if join.first is not None and len(arrived) >= join.first:
                break
        self.cut(thread, children, time)
        try:
            value = join.reduce([arrived[i] for i in sorted(arrived)])
        except NothingArrived as error:
            return End(time, "error", error, f"g/{target.name}{thread.label}")
        return self.visit(thread, target, value, time, (len(arrived), len(starts)))

    def cut(self, thread: Thread, children: Iterable[Thread], time: float) -> None:
        for child in children:
            thread.trace.until(time, child.trace)


def simulate(plan: Plan, outcomes: Outcomes) -> list[tuple[str, str, Any]]:
    """Drive a plan by the clock of the outcomes; late outcomes of cancelled steps are delivered all the same."""
    queue: list[tuple[float, int, Activation]] = []
    started = []

    def push(ready: Iterable[Activation], now: float) -> None:
        for a in ready:
            started.append((a.path, repr(a.value), a.join))
            heapq.heappush(queue, (now + outcomes.duration(a.path), len(started), a))

    push(plan.start(), 0.0)
    while queue and not plan.finished:
        now, _, activation = heapq.heappop(queue)
        outcome = outcomes(activation.path, activation.value)
        if isinstance(outcome, Exception):
            push(plan.failed(activation, Failure(activation.path, activation.value, outcome)), now)
        else:
            push(plan.succeeded(activation, outcome), now)
    return started


@given(seed=st.integers(0, 2**32), clocks=st.lists(st.integers(0, 2**16), min_size=3, max_size=3), failing=st.just(4))
def test_the_plan_does_what_the_reference_does(seed: int, clocks: list[int], failing: int) -> None:
    """G1-G11, paths: the same steps start on the same inputs, and the run ends alike, whatever the timing."""
    builder = Builder(seed, failing)
    graph = builder.build()
    for clock in clocks:
        outcomes = Outcomes(clock, failing)
        plan = GraphPlan("g", graph.compile(), START, END, 7)
        started = simulate(plan, outcomes)
        end, trace = Reference(graph, outcomes).run(7)
        assert Counter(started) == Counter(entry[1:] for entry in trace.started)
        assert sorted(path for path, _ in plan.died) == sorted(path for _, path in trace.died)
        assert sorted(f.path for f in plan.dropped) == sorted(path for _, path in trace.dropped)
        if plan.failure is None:
            assert (end.kind, repr(end.value)) == ("done", repr(plan.output))
        else:
            assert (end.kind, end.path, type(end.value)) == ("error", plan.failure.path, type(plan.failure.error))
