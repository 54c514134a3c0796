"""Drawings of graphs, as Mermaid text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrt.edge import END, START, Edge
from agentrt.handoff import HandoffEdge
from agentrt.node import Node

_SHAPES = {"agent": '(["{}"])', "graph": '[["{}"]]', "tool": '[/"{}"/]', "retrieval": '[("{}")]'}


def mermaid(edges: Sequence[Edge]) -> str:
    """Return a Mermaid flowchart: agents are rounded, tools slanted, retrievers cylinders, sub-graphs subroutines."""
    nodes = list(dict.fromkeys(n for e in edges for n in (e.source, *e.targets)))
    ids = {node: f"n{i}" for i, node in enumerate(nodes)}
    lines = ["flowchart TD"]
    lines += [f"    {ids[n]}{_shape(n)}" for n in nodes]
    for edge in edges:
        label = _label(edge)
        arrow = "==>" if edge.forks else "-->"
        text = f'|"{label}"|' if label else ""
        lines += [f"    {ids[edge.source]} {arrow}{text} {ids[t]}" for t in edge.targets]
    return "\n".join(lines) + "\n"


def _shape(node: Node[Any, Any]) -> str:
    if node in (START, END):
        return f"(({node.name}))"
    return _SHAPES.get(node.kind, '["{}"]').format(_escape(node.name))


def _label(edge: Edge) -> str:
    if isinstance(edge, HandoffEdge):
        return "hands off"
    parts = []
    if edge.when is not None:
        parts.append("when " + getattr(edge.when, "__name__", "…").replace("<lambda>", "…"))
    if edge.each is not False:
        parts.append("each")
    if edge.join is not None:
        name = getattr(edge.join.reduce, "__name__", "join")
        parts.append(f"join {name}" if edge.join.first is None else f"first({edge.join.first})")
    if edge.times is not None:
        parts.append(f"at most {edge.times}×")
    if edge.send is not None:
        parts.append(f"send {edge.send.name}")
    return _escape(", ".join(parts))


def _escape(text: str) -> str:
    return text.replace('"', "#quot;")
