"""Pricing: a `usd` limit can be kept only if every model under it has a known price; found out before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from agentrt.agent import Agent
from agentrt.budget import Budget
from agentrt.errors import UnknownPrice
from agentrt.graph import Graph
from agentrt.model import UNPRICED, Model, Wrapper
from agentrt.node import Node
from agentrt.parts import walk

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
    """Return the agents under a `usd` limit, their own or one around them."""
    nodes = walk((root, limited or _caps_usd(root.budget)), _below)
    return [node for (node, capped), _ in nodes if capped and isinstance(node, Agent)]


def _below(place: tuple[AnyNode, bool]) -> Iterator[tuple[AnyNode, bool]]:
    """Yield the parts of a node, each with whether `usd` is limited there."""
    node, capped = place
    by_edge = node.branch_budgets if isinstance(node, Graph) else {}
    for part in node.notable_parts:
        yield part, capped or _caps_usd(part.budget, *by_edge.get(part, ()))


def _caps_usd(*budgets: Budget | None) -> bool:
    return any(budget is not None and budget.usd is not None for budget in budgets)


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
