"""Everything a node is made of is found once, however deep it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentrt import END, START, Agent, Budget, Context, DefinitionError, Graph, GraphError, UnknownPrice, run
from agentrt.deps import check_all_deps
from agentrt.parts import walk
from agentrt.testing import FunctionModel

DEEP = 1_000


def around_each(parts: Mapping[str, Sequence[str]], root: str = "a") -> list[str]:
    return ["".join(around) for _, around in walk(root, lambda name: parts.get(name, ()))]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, ["a"]),
        ({"a": "bc", "b": "d"}, ["a", "ab", "abd", "ac"]),
        ({"a": "bc", "b": "d", "c": "d"}, ["a", "ab", "abd", "ac"]),
        ({"a": "ab", "b": "ca"}, ["a", "ab", "abc"]),
    ],
)
def test_each_is_found_once_with_what_lies_around_it(parts: Mapping[str, Sequence[str]], expected: list[str]) -> None:
    """Before its own parts, in their order; a circle ends."""
    assert around_each(parts) == expected


class Deps:
    """What the innermost node needs."""


async def needy(x: int, ctx: Context[Deps]) -> int:
    return x


def nested(inner: object, depth: int) -> Graph[Any, Any]:
    for i in range(depth):
        graph = Graph(f"g{i}")
        graph.chain(START, inner, END)
        inner = graph
    assert isinstance(inner, Graph)
    return inner


def test_graphs_nest_without_bound() -> None:
    """Deps are looked for in all of them."""
    with pytest.raises(DefinitionError, match="'needy' needs deps of Deps"):
        check_all_deps(nested(needy, DEEP), None)


def test_where_a_problem_lies_is_told() -> None:
    """By the graphs around it."""
    graph = Graph("broken")
    graph.edge(START, needy)
    with pytest.raises(GraphError, match=r"g2: g1: g0: broken: END cannot be reached from START"):
        nested(graph, 4).validate()


@pytest.mark.anyio
async def test_a_price_is_asked_for_however_deep_its_agent_lies() -> None:
    """Before anything runs; and each graph on the way is validated."""
    agent = Agent("agent", model=FunctionModel(lambda request: "x", price=None))
    with pytest.raises(UnknownPrice, match="agent"):
        await run(nested(agent, DEEP), 1, budget=Budget(usd=1))


def test_a_graph_inside_itself_is_a_problem_wherever_it_lies() -> None:
    """Named where it is met again."""
    outer, inner = Graph("outer"), Graph("inner")
    outer.chain(START, inner, END)
    inner.chain(START, outer, END)
    with pytest.raises(GraphError, match="inner: outer contains itself"):
        outer.validate()


def test_a_graph_that_two_others_share_is_looked_at_once() -> None:
    """Else thirty levels of them would take for ever."""
    shared = nested(needy, 1)
    for i in range(30):
        pair = [Graph(f"left{i}"), Graph(f"right{i}")]
        for graph in pair:
            graph.chain(START, shared, END)
        shared = Graph(f"both{i}")
        shared.chain(START, *pair, END)
    shared.compile()


def test_the_parts_to_be_checked_are_known_by_then() -> None:
    """A thousand plain functions are not looked at again in every run."""

    async def plain(x: int) -> int:
        return x

    graph = Graph("graph")
    graph.chain(START, plain, needy)
    assert [n.name for n in graph.notable_parts] == ["needy"]
    assert graph.notable_parts is graph.notable_parts
    graph.edge(needy, again := nested(needy, 1))
    assert [n.name for n in graph.notable_parts] == ["needy", again.name]
