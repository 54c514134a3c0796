"""Graphs: what `edge` takes, and what a graph shows of itself."""

from __future__ import annotations

from typing import Any

import networkx
import pytest

from agentrt import END, START, Agent, Budget, DefinitionError, Graph, GraphError, StepFailed, collect, first, run, vote

pytestmark = pytest.mark.anyio


async def one(x: int) -> int:
    return x + 1


async def two(x: int) -> int:
    return x * 2


async def three(xs: list[int]) -> int:
    return sum(xs)


def diamond() -> Graph[Any, Any]:
    graph = Graph("diamond")
    graph.edge(START, [one, two])
    graph.edge([one, two], three, join=collect)
    graph.edge(three, END)
    return graph


async def test_chain_is_short_for_edges() -> None:
    """One after another."""
    graph = Graph("g")
    graph.chain(START, one, two, END)
    assert [repr(e) for e in graph.edges] == ["START -> one", "one -> two", "two -> END"]
    assert (await run(graph, 1)).output == 4


async def test_several_sources_get_an_edge_each() -> None:
    """As the join of different branches needs."""
    assert len(diamond().edges) == 4
    assert (await run(diamond(), 3)).output == 10


def test_a_graph_tells_its_nodes_in_order() -> None:
    """Without START and END."""
    assert [n.name for n in diamond().nodes] == ["one", "two", "three"]
    assert repr(diamond()) == "<Graph 'diamond'>"


def test_networkx_sees_the_edges() -> None:
    """Nodes as they are, each edge with its declaration."""
    graph = diamond().to_networkx()
    assert isinstance(graph, networkx.MultiDiGraph)
    assert networkx.has_path(graph, START, END)
    assert all(data["edge"].targets for _, _, data in graph.edges(data=True))


def test_a_drawing_tells_forks_joins_and_conditions() -> None:
    """As Mermaid text."""
    graph = Graph("g")
    agent = Agent('say "hi"')
    graph.edge(START, agent)
    graph.edge(agent, one, each=lambda v: [v], when=lambda v: True)
    graph.edge(agent, END, times=3)
    graph.edge(one, diamond(), join=first(2), send=agent)
    text = graph.to_mermaid()
    assert text.startswith("flowchart TD\n")
    for words in ('(["say #quot;hi#quot;"])', '==>|"when …, each"|', '|"at most 3×"|', "first(2)", '[["diamond"]]'):
        assert words in text


def test_what_is_no_node_is_refused_at_once() -> None:
    """Where the edge is written."""
    for wrong in (7, "one", None, int):
        with pytest.raises(DefinitionError, match="is not a node"):
            Graph("g").edge(START, wrong)  # type: ignore[call-overload]


async def test_an_edge_added_later_is_compiled() -> None:
    """A graph that ran may grow before it runs again."""
    graph = Graph("g")
    graph.edge(START, one)
    graph.edge(one, END, when=lambda x: x < 3)
    assert (await run(graph, 1)).output == 2
    with pytest.raises(StepFailed):
        await run(graph, 5)
    graph.edge(one, END)
    assert (await run(graph, 5)).output == 6


async def test_graphs_nest() -> None:
    """A graph is a node, with paths below its own."""
    outer = Graph("outer")
    outer.chain(START, one, diamond(), END)
    events: list[Any] = []
    assert (await run(outer, 2, observers=[events.append])).output == 10
    assert "outer/diamond/two[1]" in {getattr(e, "path", "") for e in events}


async def test_one_function_may_stand_under_two_names() -> None:
    """As two nodes; under one name it is one node."""
    from agentrt import FunctionNode

    again = FunctionNode(one, name="again")
    graph = Graph("g")
    graph.chain(START, one, again, END)
    assert (await run(graph, 1)).output == 3


async def test_a_graph_may_have_a_budget_and_a_description() -> None:
    """As any node."""
    graph = Graph("g", description="adds", budget=Budget(steps=1))
    graph.chain(START, one, END)
    assert graph.description == "adds"
    with pytest.raises(Exception, match="budget of 'g'"):
        await run(graph, 1)


async def test_a_join_may_reduce_straight_to_end() -> None:
    """Plain functions of a list, too."""
    graph = Graph("g")
    graph.edge(START, [one] * 3)
    graph.edge(one, END, join=vote)
    assert (await run(graph, 1)).output == 2


async def test_each_may_stand_on_start() -> None:
    """The input is the list; empty it is joined at once."""
    graph = Graph("g")
    graph.edge(START, one, each=True)
    graph.edge(one, END, join=collect)
    assert (await run(graph, [1, 2])).output == [2, 3]
    assert (await run(graph, [])).output == []


def test_validation_is_the_graph_s_own_word() -> None:
    """`validate` and `compile` raise the same."""
    graph = Graph("g")
    graph.edge(START, one)
    for check in (graph.validate, graph.compile):
        with pytest.raises(GraphError, match="one: no way leads from it to END"):
            check()
