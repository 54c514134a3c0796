"""Components: the loops of a graph, told from what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from agentrt.interval import NONE, Interval, Vector, added, greatest
from agentrt.node import Node
from agentrt.plan import Route
from agentrt.value import Value

AnyNode: TypeAlias = Node[Any, Any]


class Arc(Value, eq=False):
    """Hold a way from one node to the next on the same level; `target` is None where the branch arrives or dies."""

    source: AnyNode
    target: AnyNode | None
    route: Route
    interval: Interval


class Components:
    """Hold the strongly connected components of nodes and arcs, in topological order."""

    def __init__(self, nodes: Iterable[AnyNode], arcs: Iterable[Arc]) -> None:
        import networkx

        graph: networkx.DiGraph[AnyNode] = networkx.DiGraph()
        graph.add_nodes_from(nodes)
        graph.add_edges_from((a.source, a.target) for a in arcs if a.target is not None)
        order = {node: i for i, node in enumerate(graph)}
        components = list(networkx.strongly_connected_components(graph))
        self.members = [sorted(found, key=order.__getitem__) for found in reversed(components)]
        self.of = {node: i for i, members in enumerate(self.members) for node in members}

    def hold(self, arc: Arc) -> bool:
        """Say whether an arc stays in one component."""
        return arc.target is not None and self.of[arc.source] == self.of[arc.target]

    def grouped(self, arcs: Iterable[Arc]) -> dict[int, list[Arc]]:
        """Return the arcs by the component they leave from."""
        groups: dict[int, list[Arc]] = {}
        for arc in arcs:
            groups.setdefault(self.of[arc.source], []).append(arc)
        return groups

    def longest(self, weights: Sequence[Vector], arcs: Iterable[Arc]) -> list[Vector]:
        """Return for each component the most that a path from it takes, along arcs that lead to later ones."""
        leaving = self.grouped(arcs)
        best: list[Vector] = [NONE] * len(weights)
        for i in range(len(weights) - 1, -1, -1):
            onward = (
                added(a.interval.most, best[self.of[a.target]]) for a in leaving.get(i, ()) if a.target is not None
            )
            best[i] = added(weights[i], greatest(onward))
        return best
