"""Validation: rules V1-V4, all problems at once, each naming its nodes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import END, START, Budget, FunctionNode, Graph, GraphError, Join, Node, Partial, collect, first, vote
from tests.randomgraphs import Builder


class Named(Node[Any, Any]):
    async def invoke(self, ctx: Any, value: Any, /) -> Any:
        raise NotImplementedError


A, B, C, D, E, F = (Named(name) for name in "abcdef")


def problems(*edges: tuple[Any, ...]) -> list[str]:
    """Return the problems of a graph written as (source, target, options) triples."""
    graph = Graph("g")
    for source, target, *options in edges:
        graph.edge(source, target, **(options[0] if options else {}))
    return graph_problems(graph)


def graph_problems(graph: Graph[Any, Any]) -> list[str]:
    try:
        graph.validate()
    except GraphError as error:
        return list(error.problems)
    return []


FORK = (A, [B, C])
JOIN = ((B, C), D, {"join": collect})


def yes(value: Any) -> bool:
    return True


@pytest.mark.parametrize(
    "edges",
    [
        [(START, A), (A, END)],
        [(START, END)],
        [(START, A), FORK, JOIN, (D, END)],
        [(START, A), FORK, ((B, C), END, {"join": collect})],
        [(START, A), (A, B, {"each": True}), (B, B, {"times": 1}), (B, C, {"join": vote}), (C, END)],
        [(START, A), (A, A, {"when": yes}), (A, END)],
        [(START, A), (A, B, {"each": True}), (B, C, {"join": first(2)}), (C, END)],
        [(START, A), (A, [B] * 3), (B, C, {"join": collect}), (C, A, {"times": 2}), (C, END)],
    ],
)
def test_these_are_valid(edges: list[Any]) -> None:
    """Loops, forks, nested or not, closed by one join each."""
    assert problems(*edges) == []


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([(START, A), (A, END), (B, END)], ["b: cannot be reached from START"]),
        ([(START, A), (A, B, {"when": yes}), (A, END)], ["b: no way leads from it to END"]),
        ([(START, A), (A, B), (B, A)], ["END cannot be reached", "a: no way leads", "b: no way leads"]),
        ([(START, A), (A, END), (A, START, {"when": yes})], ["a -> START: nothing may lead into START"]),
        ([(START, A), (A, END), (END, A)], ["END -> a: nothing may lead out of END"]),
        ([(START, A), (A, END), (A, B), (B, END)], ["a -> b: never taken", "a -> END"]),
        ([(START, A), (A, A, {"times": 0}), (A, END)], ["a -> a: times=0"]),
        ([(START, A), (A, [])], ["has no target"]),
    ],
)
def test_v1_every_node_and_edge_has_a_use(edges: list[Any], words: list[str]) -> None:
    """V1: unreachable nodes, no way to END, edges never taken, edges into START or out of END."""
    found = "\n".join(problems(*edges))
    for expected in words:
        assert expected in found


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([(START, A), (A, B, {"join": collect}), (B, END)], ["a -> b: joins where no fork is open", "START -> a"]),
        ([(START, A), FORK, ((B, C), END)], ["END is reached inside a fork", "START -> a =fork=> b -> END"]),
        (
            [(START, A), (A, [B, C], {"when": yes}), (A, D), ((B, C), D, {"join": collect}), (D, B, {"when": yes}),
             (D, END)],
            ["b: reached inside 1 forks", "inside 0 by way of START -> a -> d -> b"],
        ),
        ([(START, A), (A, [B, END])], ["a fork cannot lead to END"]),
        ([(START, A), FORK, (B, [D, E], {"join": collect}), (C, D, {"join": collect}), ((D, E), END)],
         ["b -> d, e: one edge cannot both fork and join"]),
    ],
)  # fmt: skip
def test_v2_every_node_has_one_fork_depth(edges: list[Any], words: list[str]) -> None:
    """V2: START 0, fork +1, join -1, END 0; the error names both ways."""
    found = "\n".join(problems(*edges))
    for expected in words:
        assert expected in found


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        (
            [(START, A), FORK, (B, D, {"join": collect}), (C, E, {"join": collect}), (D, E), (E, END)],
            ["a -> b, c: its branches join in more than one way: d (collect), e (collect)"],
        ),
        (
            [(START, A), FORK, (B, D, {"join": collect}), (C, D, {"join": first(2)}), (D, END)],
            ["d (collect), d (first(2))"],
        ),
        ([(START, A), FORK, (B, B), (C, C), (A, END)], ["a -> b, c: its branches never join"]),
    ],
)
def test_v3_every_fork_has_one_closer(edges: list[Any], words: list[str]) -> None:
    """V3: exactly one target and reducer."""
    found = "\n".join(problems(*edges))
    for expected in words:
        assert expected in found


def test_v3_equal_joins_are_one() -> None:
    """V3: two `first(2)` are the same reducer; an inner fork's join is not the outer one's."""
    inner: Callable[[], Join[Any, Any]] = lambda: first(2)  # noqa: E731
    assert not problems((START, A), FORK, (B, D, {"join": inner()}), (C, D, {"join": inner()}), (D, END))
    assert not problems(
        (START, A), (A, B, {"each": True}), (B, C, {"each": True}), (C, D, {"join": collect}),
        (D, E, {"join": vote}), (E, END),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("edges", "legal"),
    [
        ([(START, A), (A, B), (B, END, {"send": A})], True),
        ([(START, A), (A, END, {"send": START})], True),
        ([(START, A), FORK, ((B, C), D, {"join": collect, "send": A}), (D, END, {"send": A})], True),
        ([(START, A), FORK, JOIN, (D, END, {"send": B})], False),
        ([(START, A), FORK, (B, D, {"join": collect, "send": C}), (C, D, {"join": collect}), (D, END)], False),
        ([(START, A), (A, B, {"when": yes}), (A, C), ((B, C), D), (D, END, {"send": B})], False),
        ([(START, A), (A, B), (B, END, {"send": F})], False),
    ],
)
def test_v4_a_sent_node_dominates_the_source(edges: list[Any], legal: bool) -> None:
    """V4: it has run on this branch or one around it, on every way there."""
    found = problems(*edges)
    assert (not found) == legal
    if not legal:
        assert any("send=" in p and "is not sure to have run" in p for p in found)


def test_all_problems_are_told_at_once() -> None:
    """One error lists them all, a line each."""
    graph = Graph("broken")
    graph.edge(START, A)
    graph.edge(A, END)
    graph.edge(A, B)
    graph.edge(C, END)
    graph.edge(Named("a"), END)
    with pytest.raises(GraphError) as error:
        graph.validate()
    text = str(error.value)
    assert text.startswith("graph 'broken' has ")
    for words in ("never taken", "c: cannot be reached", "b: no way leads", "two different nodes are named 'a'"):
        assert words in text


def test_an_empty_graph_says_how_to_begin() -> None:
    """Nothing to validate is a problem too."""
    assert problems() == ["it has no edges; begin with edge(START, node)"]


def test_problems_of_sub_graphs_carry_their_name() -> None:
    """A graph is validated with everything inside it."""
    inner = Graph("inner")
    inner.edge(START, A)
    assert any(p.startswith("inner: ") for p in problems((START, inner), (inner, END)))


def test_a_graph_cannot_contain_itself() -> None:
    """Recursion is code."""
    outer, inner = Graph("outer"), Graph("inner")
    inner.chain(START, outer, END)
    outer.chain(START, inner, END)
    with pytest.raises(GraphError, match=r"outer contains itself; write the recursion as code"):
        outer.validate()


class Fits(Protocol):
    pass


class Row(TypedDict):
    n: int


@pytest.mark.parametrize(
    ("given", "taken", "fits"),
    [
        (str, str, True), (str, int, False), (int, float, True), (bool, int, True), (object, int, True),
        (int, object, True), (list[int], list[str], True), (dict, Row, True), (str, Fits, True),
        (type(None), str, False),
    ],
)  # fmt: skip
def test_types_of_neighbours_fit(given: Any, taken: Any, fits: bool) -> None:
    """An edge's value must be able to be the next input, as far as plain classes tell."""
    source, target = Named("source", output=given), Named("target", input=taken)
    found = problems((START, source), (source, target), (target, END))
    assert (found == []) == fits
    assert fits or "target takes" in found[0]


def test_each_needs_a_list() -> None:
    """`each=True` out of a plain class that is none."""
    source = Named("source", output=str)
    found = problems((START, source), (source, A, {"each": True}), (A, B, {"join": collect}), (B, END))
    assert found == ["source -> a: each=True needs a list or a tuple, and source gives str"]


def test_functions_are_checked_by_their_annotations() -> None:
    """A function's types are its node's."""

    async def count(text: str) -> int:
        return len(text)

    one, other = FunctionNode(count), FunctionNode(count, name="other")
    assert problems((START, one), (one, other), (other, END)) == ["count -> other: gives int, but other takes str"]


@given(st.integers(0, 2**32))
def test_what_the_builder_builds_is_valid(seed: int) -> None:
    """Series-parallel graphs with loops, choices and filters have no problem."""
    Builder(seed).build().validate()


def play(graph: Graph[Any, Any], chance: random.Random) -> str | None:
    """Play the token game once, any edge holding; return what went wrong at a join or at END."""
    opened: list[Any] = []  # one token's forks; siblings behave alike, so that one branch is followed at a time
    node: Any = START
    declared = graph.edges
    for _ in range(60):
        edges = [e for e in declared if e.source is node]
        if not edges:
            return None
        edge = chance.choice(edges)
        if edge.forks:
            opened.append(edge)
        if edge.join is not None and not opened:
            return "join without fork"
        if edge.join is not None:
            opened.pop()
        node = chance.choice(edge.targets)
        if node is END:
            return "END inside a fork" if opened else None
    return None


@given(st.integers(0, 2**32))
def test_valid_graphs_win_the_token_game(seed: int) -> None:
    """V2: in a graph without problems, whatever the choices, joins have a fork and END is outside."""
    chance = random.Random(seed)
    nodes = [Named(f"n{i}") for i in range(chance.randint(1, 4))]
    graph = Graph("g")
    graph.edge(START, nodes[0])
    for node in nodes:
        for _ in range(chance.randint(1, 2)):
            targets = [chance.choice([*nodes, END]) for _ in range(chance.choice([1, 1, 2]))]
            join = collect if chance.random() < 0.4 and len(targets) == 1 else None
            graph.edge(node, targets, when=yes, join=join)
    if not graph_problems(graph):
        assert {play(graph, chance) for _ in range(200)} == {None}


@pytest.mark.parametrize(
    ("budget", "problem"),
    [
        (Budget(steps=3, on_exhausted="partial"), "a branch has no policy and no callers"),
        (Budget(steps=3, calls=2), "a branch has no policy and no callers"),
        (Budget(steps=3, share="equal"), None),
    ],
)
def test_a_budget_of_branches_is_a_cap(budget: Budget, problem: str | None) -> None:
    """What happens at it is for the nodes to say."""
    found = problems((START, A), (A, B, {"each": True, "budget": budget}), (B, END, {"join": collect}))
    assert [problem in p for p in found] == ([] if problem is None else [True])  # type: ignore[operator]


def test_a_budget_on_an_edge_that_does_not_fork_is_a_node_s() -> None:
    """And it is said where to put it."""
    assert problems((START, A), (A, END, {"budget": Budget(steps=3)})) == [
        "a -> END: budget= caps the branches of a fork; set a node's own with a.limit(…)"
    ]


@pytest.mark.parametrize(("taken", "legal"), [(str, False), (str | Partial, True), (Partial, True), (Any, True)])
def test_what_may_end_in_a_partial_leads_to_what_takes_one(taken: Any, legal: bool) -> None:
    """E4: where the value goes next, a union counts."""
    worker = Named("worker", budget=Budget(steps=3, on_exhausted="partial"))
    target = Named("target", input=taken)
    found = problems((START, worker), (worker, target), (target, END))
    assert (found == []) == legal
    assert legal or "let it take str | Partial" in found[0]


def test_a_node_that_cannot_wrap_up_is_named() -> None:
    """E4: only agents can, and graphs that say how."""
    worker = Named("worker", budget=Budget(steps=3, on_exhausted="wrap_up"))
    assert problems((START, worker), (worker, END)) == [
        "worker: cannot wrap up; only agents can, and graphs with Graph(…, wrap_up=node)"
    ]
