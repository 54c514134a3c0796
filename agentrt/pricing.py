"""Pricing: a `usd` limit can be kept only if every model under it has a known price; found out before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from agentrt.agent import Agent
from agentrt.budget import Budget
from agentrt.errors import UnknownPrice
from agentrt.graph import Graph
from agentrt.model import UNPRICED, Model, Wrapper
from agentrt.node import Node

AnyNode: TypeAlias = Node[Any, Any]
Resolve: TypeAlias = Callable[[Model | str | None], Model]


def check_prices(root: AnyNode, resolve: Resolve, *, limited: bool) -> None:
    """Raise `UnknownPrice` naming every agent under a `usd` limit whose model has no known price.

    resolve: finds the model that the run would use where a node names one.
    limited: whether the run itself has such a limit; those of the nodes are looked up.

    Only what graphs and agents declare is seen: a model that code chooses is refused when it is first asked.
    """
    agents = _limited_agents(root, limited)
    problems = [f"{agent.name}: {name}" for agent in agents if (name := _unpriced(agent.model, resolve))]
    if problems:
        raise UnknownPrice("; ".join(dict.fromkeys(problems)) + f": {UNPRICED}")


def _limited_agents(root: AnyNode, limited: bool) -> list[Agent[Any, Any]]:
    """Return the agents under a `usd` limit; a list of what is still to be seen, since graphs nest without bound."""
    found: list[Agent[Any, Any]] = []
    ahead, seen = [(root, limited)], set[tuple[AnyNode, bool]]()
    while ahead:
        node, capped = ahead.pop()
        capped = capped or _caps_usd(node.budget)
        if (node, capped) in seen:
            continue
        seen.add((node, capped))
        if capped and isinstance(node, Agent):
            found.append(node)
        ahead += [(child, capped or by_edge) for child, by_edge in _children(node)]
    return found


def _children(node: AnyNode) -> Sequence[tuple[AnyNode, bool]]:
    """Return the parts of a node that may lead to an agent, and whether an edge to them caps `usd`."""
    if isinstance(node, Graph):
        return _children_of_graph(node)
    return [(part, False) for part in node.parts if _may_ask(part)]


def _children_of_graph(graph: Graph[Any, Any]) -> Sequence[tuple[AnyNode, bool]]:
    edges = graph.edges
    if (known := _known.get(graph)) is not None and known[0] == len(edges):
        return known[1]
    found = [(t, _caps_usd(e.budget)) for e in edges for t in e.targets if _may_ask(t)]
    if graph.last is not None:
        found.append((graph.last, False))
    _known[graph] = len(edges), found
    return found


def _may_ask(node: AnyNode) -> bool:
    return isinstance(node, Agent | Graph) or bool(node.parts)


_known: WeakKeyDictionary[Graph[Any, Any], tuple[int, Sequence[tuple[AnyNode, bool]]]] = WeakKeyDictionary()
"""What graphs declare, by how many edges they had: a run of a thousand nodes that do little should not feel this."""


def _caps_usd(budget: Budget | None) -> bool:
    return budget is not None and budget.usd is not None


def _unpriced(named: Model | str | None, resolve: Resolve) -> str | None:
    """Return the name of a model without a known price that asking this one may lead to."""
    model = resolve(named)
    return next((m.name for m in _leaves(model) if m.price is None), None)


def _leaves(model: Model) -> Iterator[Model]:
    """Yield the models within, and what itself states a price."""
    if isinstance(model, Wrapper) and model.price is None:
        for inner in model.bound_models:
            yield from _leaves(inner)
    else:
        yield model
