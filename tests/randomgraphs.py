"""Random valid graphs, and what their steps do: shared by the tests of the plan and of the runtime."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from agentrt import END, START, Context, Graph, Join, Node, collect, first, vote


def digest(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())


class Outcomes:
    """Decide what each step gives, by its path and input alone, so that every interpreter sees the same."""

    def __init__(self, seed: int, failing: int) -> None:
        self.seed = seed
        self.failing = failing  # percent

    def __call__(self, path: str, value: object) -> int | ValueError:
        if digest(self.seed, "fails", path) % 100 < self.failing:
            return ValueError(path)
        return digest(self.seed, path, value) % 24

    def duration(self, path: str) -> float:
        return 1 + digest(self.seed, "takes", path) / 2**32


class Step(Node[Any, Any]):
    """Do what the outcomes say, after letting others go first a few times."""

    def __init__(self, name: str, outcomes: Outcomes) -> None:
        super().__init__(name)
        self.outcomes = outcomes

    async def invoke(self, ctx: Context, value: Any, /) -> Any:
        for _ in range(digest(self.outcomes.seed, "yields", ctx.path) % 4):
            await anyio.lowlevel.checkpoint()
        outcome = self.outcomes(ctx.path, value)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def items(value: Any) -> Any:
    """Fork over none to three items; now and then over what is no list."""
    return "none" if value == 23 else [value + i for i in range(value % 4)]


def _when(salt: int) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        return digest(salt, value) % 3 > 0

    return holds


class Builder:
    """Build one graph, block by block; each block leads from a node without edges to another such node."""

    def __init__(self, seed: int, failing: int = 10, size: int = 12) -> None:
        self.random = random.Random(seed)
        self.outcomes = Outcomes(seed, failing)
        self.graph = Graph("g")
        self.left = size
        self.joins: list[Any] = [collect, total, vote, first(), first(2), Join(total, errors="drop")]
        self._names = 0

    def build(self) -> Graph[Any, Any]:
        last, before = self._blocks(self._step(START), [START], 0)
        self._edge(last, END, before)
        return self.graph

    def _node(self) -> Step:
        self._names += 1
        return Step(f"n{self._names}", self.outcomes)

    def _edge(self, source: Any, target: Any, before: list[Any], **options: Any) -> None:
        if source is not START and self.random.random() < 0.2:
            options["send"] = self.random.choice([*before, source])
        self.graph.edge(source, target, **options)

    def _step(self, source: Any) -> Step:
        node = self._node()
        self.graph.edge(source, node)
        return node

    def _blocks(self, node: Any, before: list[Any], depth: int) -> tuple[Any, list[Any]]:
        for _ in range(self.random.randint(0, 3)):
            if self.left <= 0:
                break
            self.left -= 1
            kinds = [self._chain, self._loop, self._choice, self._fork, self._fork]
            if depth:
                kinds.append(self._filter)
            node, before = self.random.choice(kinds)(node, before, depth)
        return node, before

    def _chain(self, node: Any, before: list[Any], depth: int) -> tuple[Any, list[Any]]:
        target = self._node()
        self._edge(node, target, before)
        return target, [*before, node]

    def _filter(self, node: Any, before: list[Any], depth: int) -> tuple[Any, list[Any]]:
        target = self._node()
        self._edge(node, target, before, when=_when(self.left))
        return target, [*before, node]

    def _loop(self, node: Any, before: list[Any], depth: int) -> tuple[Any, list[Any]]:
        last, inside = self._blocks(node, before, depth)
        options: dict[str, Any] = {"times": self.random.randint(1, 2)}
        if self.random.random() < 0.5:
            options["when"] = _when(self.left)
        self._edge(last, node, before, **options)
        return last, inside

    def _choice(self, node: Any, before: list[Any], depth: int) -> tuple[Any, list[Any]]:
        one, other, merge = self._node(), self._node(), self._node()
        self._edge(node, one, before, when=_when(self.left))
        self._edge(node, other, before)
        for start in (one, other):
            last, inside = self._blocks(start, [*before, node], depth)
            self._edge(last, merge, inside)
        return merge, [*before, node]

    def _fork(self, node: Any, before: list[Any], depth: int) -> tuple[Any, list[Any]]:
        each = self.random.random() < 0.5
        starts = [self._node() for _ in range(1 if each else self.random.randint(1, 3))]
        targets = starts if each or len(starts) > 1 else starts * self.random.randint(2, 3)
        options: dict[str, Any] = {"each": items} if each else {}
        self._edge(node, targets, before, **options)
        join = self.random.choice(self.joins)
        target = self._node()
        for start in starts:
            last, inside = self._blocks(start, [*before, node], depth + 1)
            self._edge(last, target, inside, join=join)
        return target, [*before, node]


def total(values: list[Any]) -> int:
    return sum(digest(v) % 5 for v in values)
