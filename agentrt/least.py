"""The least: what a run takes at least by the structure of its graph alone, cheap enough to be asked before each run.

`Graph.bounds` tells more: it counts the input, too, and rounds that are sure. It is asked only where the least found
here is above a limit, and then says so.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from agentrt.agent import Agent
from agentrt.budget import INPUT, MODEL_CALLS, STEPS, TOKENS, TOOL_CALLS, USD, Budget
from agentrt.edge import END, START
from agentrt.forecast import foresee, lowest_cost, words_in
from agentrt.function import FunctionNode
from agentrt.graph import Graph
from agentrt.guardrail import Guarded
from agentrt.interval import UNLIMITED
from agentrt.model import Model, Wrapper
from agentrt.node import Node
from agentrt.parts import walk
from agentrt.plan import Route
from agentrt.walks import COUNTED, needed

AnyNode: TypeAlias = Node[Any, Any]
Resolve: TypeAlias = Callable[[Model | str | None], Model]
_DEEPEST: Final = 40
"""Graphs that nest deeper are not looked at: both ways to the least are recursions."""
_MOST_KNOWN: Final = 100
_WITHOUT_MODELS: Final = (STEPS, TOOL_CALLS)
"""What a node may take that asks no model."""


def check_fits(
    root: AnyNode, input: object, budget: Budget | None, resolve: Resolve, override: Model | str | None
) -> None:
    """Raise `BudgetTooSmall` if no run of `root` can succeed within its budget, and that raises when it is exhausted.

    resolve: finds the model that the run will use where a node names one. override: the model that takes their place.
    """
    if budget is None or budget.on_exhausted != "raise" or not budget.caps.full:
        return
    agents: list[Agent[Any, Any]] = []
    edges = 0
    for node, around in walk(root, lambda n: n.notable_parts):
        if len(around) > _DEEPEST:
            return
        if isinstance(node, Agent):
            agents.append(node)
        elif isinstance(node, Graph):
            edges += len(node.edges)
    for d, limit in budget.caps.full:
        asked = () if d in _WITHOUT_MODELS else agents
        costs = {agent: least_of_call(agent, d, resolve, override) for agent in asked}
        if d not in _WITHOUT_MODELS and not any(costs.values()):
            continue
        if _known_least(root, d, costs, edges) > limit:
            foresee(root, input, budget, model=override).check()
            return


def _known_least(root: AnyNode, d: int, costs: Mapping[Agent[Any, Any], float], edges: int) -> float:
    """Return the least of a run, kept for the next one as long as the graphs and the agents' costs are the same."""
    known = _known.setdefault(root, {})
    key = (d, edges, *costs.values())
    if key not in known:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known[key] = least_of_step(root, d, costs)
    return known[key]


_known: WeakKeyDictionary[AnyNode, dict[tuple[float, ...], float]] = WeakKeyDictionary()


def least_of_call(agent: Agent[Any, Any], d: int, resolve: Resolve, override: Model | str | None) -> float:
    named = override or agent.model
    model = resolve(agent.model) if d == USD or isinstance(named, Wrapper) else None
    words = 0 if agent.format is not None else _words(agent.instructions.fixed)
    return _least_of_answer(model, d, max(1, words))


def _least_of_answer(model: Model | None, d: int, prompt: int) -> float:
    """Return what one answer takes at least; a model that has only a name is no wrapper."""
    if isinstance(model, Wrapper):
        return 0 if model.spares else min(_least_of_answer(one, d, prompt) for one in model.asked)
    if d == USD:
        return 0 if model is None or model.price is None else lowest_cost(model.price, prompt)
    return {MODEL_CALLS: 1, INPUT: prompt, TOKENS: prompt}.get(d, 0)


_words = lru_cache(_MOST_KNOWN)(words_in)


def least_of_step(node: AnyNode, d: int, costs: Mapping[Agent[Any, Any], float]) -> float:
    """Return what a step takes of one dimension at least, infinitely much where its own budget rules out success."""
    total = node.counts.count(d) + _least_inside(node, d, costs)
    if node.budget is None:
        return total
    if node.budget.on_exhausted != "raise":
        return float(d == STEPS)
    return _within(total, d, node.budget)


def _within(total: float, d: int, budget: Budget | None) -> float:
    limit = None if budget is None else budget.caps.limits[d]
    return total if limit is None or total <= limit else UNLIMITED


def _least_inside(node: AnyNode, d: int, costs: Mapping[Agent[Any, Any], float]) -> float:
    if isinstance(node, FunctionNode):  # most are, and asking for the other classes takes a while
        return 0
    if isinstance(node, Graph):
        return _Ways(node.compile(), d, costs).cheapest(START)
    if isinstance(node, Agent):
        return (d == STEPS) + costs.get(node, 0)
    if isinstance(node, Guarded):
        guardrails = node.before if node.handoffs else (*node.before, *node.after)
        return sum(least_of_step(g, d, costs) for g in guardrails) + _least_inside(node.node, d, costs)
    return 0


class _Ways:
    """Find the cheapest way through one graph: a shortest path, with a fork and its branches as one arc."""

    def __init__(
        self, routes: Mapping[AnyNode, Sequence[Route]], d: int, costs: Mapping[Agent[Any, Any], float]
    ) -> None:
        self._routes, self._d, self._costs = routes, d, costs

    def cheapest(self, start: AnyNode) -> float:
        """Return what a branch takes at least that begins here and ends at END, at its join or by dying."""
        number = count()
        seen: set[AnyNode] = set()
        waiting: list[tuple[float, int, AnyNode | None]] = [(0, next(number), start)]
        while waiting:
            cost, _, node = heapq.heappop(waiting)
            if node is None or node is END:
                return cost
            if node in seen:
                continue
            seen.add(node)
            if node is not START:
                cost += least_of_step(node, self._d, self._costs)
            for target, extra in self._onward(node, may_die=start is not START):
                heapq.heappush(waiting, (cost + extra, next(number), target))
        return UNLIMITED

    def _onward(self, node: AnyNode, *, may_die: bool) -> Iterator[tuple[AnyNode | None, float]]:
        for route in self._routes[node]:
            if route.closer is not None:
                yield route.closer.target, self._fork(route, route.closer)
            else:
                yield None if route.join else route.target, 0
            if route.when is None and route.times is None:
                return
        if may_die:
            yield None, 0

    def _fork(self, route: Route, closer: Route) -> float:
        """Return the least of a fork, which is none over items, of which there may be none."""
        assert closer.join is not None
        sure = 0 if route.each is not False else needed(len(route.targets), closer.join)
        if not sure:
            return 0
        branches = sorted(_within(self.cheapest(t), self._d, route.budget) for t in route.targets)[:sure]
        return sum(branches) if self._d in COUNTED else branches[-1]
