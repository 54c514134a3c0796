"""Handoffs: an agent gives its conversation to another one, along an edge.

An agent with `handoffs=` is offered a tool for each name; when the model calls one, the agent's output is a `Handoff`,
and an edge that the graph adds in front of the agent's others leads it to the node of that name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentrt.edge import Edge, Marker
from agentrt.history import HistoryFilter, begun, mended
from agentrt.messages import Message, ToolCall, ToolSpec, UserMessage, tool_name
from agentrt.node import Node
from agentrt.value import Value


class Handoff(Value):
    """Hold a conversation that one agent gives to another.

    `input` is what the first agent of the conversation was asked, `reason` what the giving agent's model said of it.
    The last of the `messages` tells of the handoff.
    """

    source: str
    to: str
    reason: str
    input: object
    messages: tuple[Message, ...]


class Transfer:
    """Offer a model to hand its conversation over to the node of a name."""

    def __init__(self, to: str, history: HistoryFilter | None = None, description: str = "") -> None:
        self.to = to
        self.history = history
        self.description = description
        self.tool = "transfer_to_" + tool_name(to)

    def spec(self, target: Node[Any, Any]) -> ToolSpec:
        """Describe the handoff to a model; what the target is for is told in its own words."""
        about = self.description or target.description
        reason = {"type": "string", "description": "Why, and what has to be known to go on."}
        return ToolSpec(
            self.tool,
            f"Hand the conversation over to {self.to}." + (f" {about}" if about else ""),
            {"type": "object", "properties": {"reason": reason}, "required": ["reason"], "additionalProperties": False},
        )

    def handoff(
        self, source: str, call: ToolCall, input: object, messages: Sequence[Message], *, untrusted: bool = False
    ) -> Handoff:
        """Build what goes over: the conversation, filtered and mended, and a message that tells of the handoff.

        untrusted: whether the reason may come from outside.
        """
        reason = _reason(call.arguments)
        note = f"({source} handed the conversation over to {self.to}{': ' + reason if reason else ''})"
        kept = begun(mended(self.history(messages) if self.history else messages))
        told = UserMessage(note, untrusted=untrusted)
        return Handoff(source=source, to=self.to, reason=reason, input=input, messages=(*kept, told))


def handoff(to: str, *, history: HistoryFilter | None = None, description: str = "") -> Transfer:
    """Say how an agent may hand its conversation over to the node named `to`: `Agent(…, handoffs=[handoff(…)])`.

    history: a function of the messages, like `keep_last(6)`, that returns those that go over; None lets all.
    description: tells the model when to; without it the target's own description does.
    """
    return Transfer(to, history, description)


def _reason(arguments: str) -> str:
    """Return the reason a model gave; one that it wrote in a wrong form is still its reason."""
    try:
        said = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return str(said.get("reason", "")) if isinstance(said, dict) else str(said)


class HandoffEdge(Edge):
    """Lead from an agent to a node it may hand its conversation over to."""

    __slots__ = ()

    def __init__(self, source: Node[Any, Any], target: Node[Any, Any]) -> None:
        def handed_over(output: object) -> bool:
            return isinstance(output, Handoff) and output.to == target.name

        super().__init__(source, (target,), handed_over, each=False, join=None, times=None, send=None)


def with_handoffs(edges: Sequence[Edge]) -> tuple[list[Edge], list[str]]:
    """Put each node's handoffs in front of its edges; return the edges, and a problem for each name that is unknown."""
    nodes = dict.fromkeys(n for e in edges for n in (e.source, *e.targets) if not isinstance(n, Marker))
    named = {n.name: n for n in nodes}
    found: list[Edge] = []
    done: set[Node[Any, Any]] = set()
    for edge in edges:
        if edge.source not in done:
            done.add(edge.source)
            found += _handoffs_of(edge.source, named)
        found.append(edge)
    for node in nodes.keys() - done:
        found += _handoffs_of(node, named)
    return found, [_unknown(n, name, named) for n in nodes for name in n.handoffs if name not in named]


def _handoffs_of(node: Node[Any, Any], named: dict[str, Node[Any, Any]]) -> list[Edge]:
    return [HandoffEdge(node, named[name]) for name in node.handoffs if name in named]


def _unknown(node: Node[Any, Any], name: str, named: Iterable[str]) -> str:
    return (
        f"{node.name}: hands off to {name!r}, which is no node of this graph; add an edge out of it, or name one of "
        + ", ".join(n for n in named if n != node.name)
    )
