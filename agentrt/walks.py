"""Walks: the least and the most that the ways through a graph take, by its routes.

A fork and all that its branches do is one arc, from the node that forks to the node behind the join, so that each
level of a graph is walked by one branch. The cheapest walk is a shortest path; the dearest is a longest one over the
loops, each walked as often as its `times` allow.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from agentrt.budget import DIMENSIONS, MODEL_CALLS, STEPS, TOOL_CALLS
from agentrt.components import AnyNode, Arc, Components
from agentrt.edge import END, START
from agentrt.forecast import step_interval
from agentrt.interval import (
    NONE,
    NOTHING,
    UNLIMITED,
    Amount,
    Call,
    Interval,
    Outlook,
    Vector,
    added,
    endless,
    greatest,
    repeated,
)
from agentrt.join import Join, first, vote
from agentrt.plan import Route

Routes: TypeAlias = Mapping[AnyNode, Sequence[Route]]
COUNTED: Final = (MODEL_CALLS, TOOL_CALLS, STEPS)
_NEED_ONE: Final = (vote, first().reduce)
_MOST_STATES: Final = 20_000
"""So many combinations of places and rounds are looked at for the cheapest walk before rounds are left out."""


def routes_interval(routes: Routes, outlook: Outlook) -> Interval:
    """Return the interval of all walks from START to END, the graph's own start aside.

    A node limited to so many `calls` takes no more than those, however often the walk comes by.
    """
    walk = Walk(routes, outlook)
    interval = walk.branch(START)
    limited = [n for n in routes if _calls_of(n) is not None]
    if not limited:
        return interval
    apart = walk.without(limited).branch(START).most
    most = added(apart, *(repeated(walk.visit(n).most, _calls_of(n) or 0) for n in limited))
    pairs = zip(interval.most, most, strict=True)
    return replace(interval, most=tuple(min(pair, key=lambda a: a.value) for pair in pairs))


def _calls_of(node: AnyNode) -> int | None:
    return None if node.budget is None else node.budget.calls


class Walk:
    """Walk one graph's routes."""

    def __init__(self, routes: Routes, outlook: Outlook) -> None:
        self._routes = routes
        self._outlook = outlook
        self._apart: frozenset[AnyNode] = frozenset()
        self._given = _given(routes, outlook.given)
        self._visits: dict[AnyNode, Interval] = {START: Interval(), END: Interval()}
        self._branches: dict[AnyNode, Interval] = {}
        self._arcs: dict[Route, list[Arc]] = {}

    def without(self, nodes: Iterable[AnyNode]) -> Walk:
        """Return a walk of the same routes that finds nothing at these nodes, which are counted elsewhere."""
        walk = Walk(self._routes, self._outlook)
        walk._apart, walk._visits = frozenset(nodes), self._visits
        return walk

    def visit(self, node: AnyNode) -> Interval:
        """Return the interval of one visit."""
        if node not in self._visits:
            self._visits[node] = step_interval(node, replace(self._outlook, given=self._given[node]))
        return self._visits[node]

    def branch(self, start: AnyNode) -> Interval:
        """Return the interval of a branch that begins at `start` and ends at END, at its join, or by dying."""
        if start not in self._branches:
            arcs = {node: self._arcs_of(node) for node in self._reached(start)}
            least = tuple(self._cheapest(start, d) for d in range(len(DIMENSIONS)))
            call = Call()
            for node, outgoing in arcs.items():
                call |= self.visit(node).call
                for arc in outgoing:
                    call |= arc.interval.call
            self._branches[start] = Interval(least, self._dearest(start, arcs), call)
        return self._branches[start]

    def _most(self, node: AnyNode) -> Vector:
        return NONE if node in self._apart else self.visit(node).most

    def _reached(self, start: AnyNode) -> list[AnyNode]:
        seen = {start: None}
        for node in (queue := [start]):
            for arc in self._arcs_of(node):
                if arc.target is not None and arc.target not in seen:
                    seen[arc.target] = None
                    queue.append(arc.target)
        return list(seen)

    def _arcs_of(self, node: AnyNode) -> list[Arc]:
        return [arc for route in self._routes[node] for arc in self._arcs_by(route, node)]

    def _arcs_by(self, route: Route, source: AnyNode) -> list[Arc]:
        if route not in self._arcs:
            if route.closer is not None:
                made = Arc(source, route.closer.target, route, self._fork(route, route.closer, source))
            else:
                made = Arc(source, None if route.join else route.target, route, Interval())
            self._arcs[route] = [made]
        return self._arcs[route]

    def _fork(self, route: Route, closer: Route, source: AnyNode) -> Interval:
        """Return the interval of a fork and all its branches; each of them may have a budget."""
        paths = {t: f"{self._outlook.path}/{t.name}" for t in route.targets}
        branches = [self.branch(t).within(route.budget, paths[t]) for t in route.targets]
        items, widest = self._width(route, source)
        assert closer.join is not None
        least = _least_of_fork([b.least for b in branches] * items, closer.join)
        most = added(*(b.most for b in branches))
        if widest == UNLIMITED:
            name = route.targets[0].name
            reason = f"is forked to once an item, of a list that is not known yet: say widths={{{name!r}: …}}"
            most = endless(most, paths[route.targets[0]], reason)
        else:
            most = repeated(most, widest)
        call = Call()
        for branch in branches:
            call |= branch.call
        return Interval(least, most, call)

    def _width(self, route: Route, source: AnyNode) -> tuple[int, float]:
        """Return how many items a route forks over, least and most."""
        if route.each is False:
            return 1, 1
        known = self._outlook.given if (route.send or source) is START else None
        if route.each is True and known is not None:
            lengths = [len(value) for value in known if isinstance(value, (list, tuple))]
            return min(lengths, default=0), max(lengths, default=0)
        said = [self._outlook.widths[t.name] for t in route.targets if t.name in self._outlook.widths]
        return said[0] if said else (0, UNLIMITED)

    def _cheapest(self, start: AnyNode, d: int, *, rounds: bool = True) -> Amount:
        """Return the least that a branch takes to its end (Dijkstra).

        With `rounds` a loop that is always taken, so many times, is walked that often; else perhaps never.
        """
        number, seen = count(), set[tuple[AnyNode | None, tuple[Route, ...]]]()
        waiting: list[tuple[float, int, Amount, AnyNode | None, tuple[Route, ...]]] = []
        heapq.heappush(waiting, (0, next(number), NOTHING, start, ()))
        while waiting:
            _, _, cost, node, taken = heapq.heappop(waiting)
            if node is END or node is None:
                return cost
            if (node, taken) in seen:
                continue
            seen.add((node, taken))
            if rounds and len(seen) > _MOST_STATES:
                return self._cheapest(start, d, rounds=False)
            cost += self.visit(node).least[d]
            for target, extra, after in self._onward(node, d, taken, rounds=rounds, may_die=start is not START):
                total = cost + extra
                heapq.heappush(waiting, (total.value, next(number), total, target, after))
        return Amount(UNLIMITED, {}, {f"{self._outlook.path}/{start.name}": "leads nowhere"})

    def _onward(
        self, node: AnyNode, d: int, taken: tuple[Route, ...], *, rounds: bool, may_die: bool
    ) -> Iterator[tuple[AnyNode | None, Amount, tuple[Route, ...]]]:
        """Yield where a branch may go from a node, at what cost; `taken` are the routes it had to take so far."""
        for route in self._routes[node]:
            counted = rounds and route.when is None and route.times is not None
            if counted and taken.count(route) >= (route.times or 0):
                continue
            after = tuple(sorted((*taken, route), key=id)) if counted else taken
            for arc in self._arcs_by(route, node):
                yield arc.target, arc.interval.least[d], after
            if counted or (route.when is None and route.times is None):
                return
        if may_die:
            yield None, NOTHING, taken

    def _dearest(self, start: AnyNode, arcs: Mapping[AnyNode, Sequence[Arc]]) -> Vector:
        """Return the most that a branch takes: a longest path over the loops.

        A loop falls into the ways between its capped arcs: one from where it is entered, and one for each time that
        such an arc may be taken.
        """
        inside = [arc for outgoing in arcs.values() for arc in outgoing if arc.target is not None]
        loops = Components(arcs, inside)
        again = [a for a in inside if a.route.times is not None and loops.hold(a)]
        once = [a for a in inside if a not in set(again)]
        pieces = Components(arcs, once)
        uncapped = pieces.grouped(a for a in once if pieces.hold(a))
        weights = [self._piece(members, uncapped.get(i, ())) for i, members in enumerate(pieces.members)]
        ways = pieces.longest(weights, [a for a in once if loops.hold(a) and not pieces.hold(a)])
        capped = loops.grouped(again)
        totals: list[Vector] = []
        for i, members in enumerate(loops.members):
            rounds = (self._rounds(a, ways, pieces) for a in capped.get(i, ()))
            totals.append(added(greatest(ways[pieces.of[n]] for n in members), *rounds))
        return loops.longest(totals, [a for a in once if not loops.hold(a)])[loops.of[start]]

    def _piece(self, members: Sequence[AnyNode], inner: Sequence[Arc]) -> Vector:
        """Return the most of one node, or of a loop that nothing caps."""
        total = added(*(self._most(n) for n in members), *(a.interval.most for a in inner))
        if not inner:
            return total
        names = " → ".join(n.name for n in members)
        return endless(total, f"{self._outlook.path}/{members[0].name}", f"is in a loop without times=: {names}")

    def _rounds(self, arc: Arc, ways: Sequence[Vector], pieces: Components) -> Vector:
        assert arc.target is not None
        return repeated(added(arc.interval.most, ways[pieces.of[arc.target]]), arc.route.times or 0)


def _least_of_fork(branches: Sequence[Vector], join: Join[Any, Any]) -> Vector:
    """Return the least of a fork: of the branches that must end before it closes, the cheapest.

    A failed branch may be dropped, having done nothing. Draws of one prompt side by side may be one request, whose
    prompt is billed once: so of tokens and money only the dearest of those branches is sure.
    """
    sure = needed(len(branches), join)
    if not sure:
        return NONE
    least: list[Amount] = []
    for d, amounts in enumerate(zip(*branches, strict=True)):
        cheapest = sorted(amounts, key=lambda a: a.value)[:sure]
        least.append(sum(cheapest, NOTHING) if d in COUNTED else cheapest[-1])
    return tuple(least)


def needed(branches: int, join: Join[Any, Any]) -> int:
    """Return how many branches of a fork must succeed."""
    sure = branches if join.first is None else min(join.first, branches)
    if join.errors == "drop":
        return min(sure, 1) if join.reduce in _NEED_ONE else 0
    return sure


def _given(routes: Routes, input: tuple[object, ...] | None) -> dict[AnyNode, tuple[object, ...] | None]:
    """Return the inputs that each node may get, where START sends all of them."""
    given: dict[AnyNode, tuple[object, ...] | None] = {}
    for source, outgoing in routes.items():
        for route in outgoing:
            sent = input if (route.send or source) is START and route.join is None else None
            if sent is not None and route.each is not False:
                lists = [v for v in sent if isinstance(v, (list, tuple))]
                sent = tuple(item for v in lists for item in v) if route.each is True else None
            for target in (*route.targets, *((route.closer.target,) if route.closer else ())):
                own = sent if target in route.targets else None
                known = given.get(target, ())
                given[target] = None if own is None or known is None else (*known, *own)
    return given
