"""Edges: what `Graph.edge` declares, and the markers where a graph begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from agentrt.budget import Budget
from agentrt.errors import DefinitionError
from agentrt.join import Join
from agentrt.node import Context, Node


class Marker(Node[object, Any]):
    """Mark where a graph begins or ends; it is never run."""

    def __init__(self, name: Literal["START", "END"]) -> None:
        self.name = name
        self.input = self.output = object
        self.description, self.budget = "", None

    async def invoke(self, ctx: Context, value: object, /) -> Any:
        raise DefinitionError(f"{self.name} is not a node to run")


START = Marker("START")
END = Marker("END")


class Edge:
    """Hold one edge as it was declared."""

    __slots__ = ("budget", "each", "join", "send", "source", "targets", "times", "when")

    def __init__(
        self,
        source: Node[Any, Any],
        targets: tuple[Node[Any, Any], ...],
        when: Callable[[Any], bool] | None,
        each: bool | Callable[[Any], Sequence[Any]],
        join: Join[Any, Any] | None,
        times: int | None,
        send: Node[Any, Any] | None,
        budget: Budget | None = None,
    ) -> None:
        self.source = source
        self.targets = targets
        self.when = when
        self.each = each
        self.join = join
        self.times = times
        self.send = send
        self.budget = budget

    @property
    def forks(self) -> bool:
        return self.each is not False or len(self.targets) > 1

    def __repr__(self) -> str:
        return f"{self.source.name} -> {', '.join(t.name for t in self.targets)}"
