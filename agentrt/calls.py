"""Calls: what a step calls in one attempt, named and numbered so that paths do not depend on timing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.lowlevel import checkpoint

from agentrt.errors import DefinitionError


class Calls:
    """Number the calls of one attempt of a step, by name; know which are in flight."""

    __slots__ = ("_busy", "_made", "_news", "_of_nodes", "_parked", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._made: dict[str, int] = {}
        self._of_nodes: dict[str, int] = {}
        self._busy: set[str] = set()
        self._parked = 0
        self._news: anyio.Event | None = None

    def begin(self, *labels: str) -> None:
        """Take the labels of a call that begins now; raises `DefinitionError` while another call has one of them."""
        for label in labels:
            if label in self._busy:
                raise DefinitionError(
                    f"{self._path} already runs {label.rstrip('[')!r}: give concurrent calls of one name different "
                    "keys, ctx.run(…, key=…) or ctx.map(…, key=…), or use one ctx.map, so that their paths do not "
                    "depend on timing"
                )
        self._busy.update(labels)

    def end(self, *labels: str) -> None:
        self._busy.difference_update(labels)
        if self._news is not None:
            self._tell()

    def path_of(self, label: str) -> str:
        """Number the calls of one name (docs/design.md, "Paths")."""
        n = self._made[label] = self._made.get(label, 0) + 1
        if label.endswith("["):
            return f"{self._path}/{label[:-1]}#{n}[" if n > 1 else f"{self._path}/{label}"
        return f"{self._path}/{label}#{n}" if n > 1 else f"{self._path}/{label}"

    def label(self, name: str, key: str | int | None) -> str:
        """Return what one call is known by; raises `DefinitionError` for a key that cannot stand in a path."""
        if key is None:
            return name
        if str(key).isdigit() and f"{name}[" in self._made:
            raise self._mixed(name)
        return _label(name, key)

    def label_of_map(self, name: str, key: str | int | None, width: int) -> str:
        """Return what a map is known by: what its calls' labels begin with."""
        label = _label(name, key)
        if any(f"{label}[{i}]" in self._made for i in range(width)):
            raise self._mixed(name)
        return label + "["

    def of_node(self, name: str) -> int:
        """Return how often a node with a limit on its calls was called."""
        return self._of_nodes.get(name, 0)

    def note_node(self, name: str) -> None:
        self._of_nodes[name] = self.of_node(name) + 1

    async def park(self, wait: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]], labels: int = 1) -> None:
        """Have a call of so many labels wait, by `wait`, until each other in flight waits for people as well.

        To leave the step any earlier would cancel the others, which may be paid already.
        """
        await checkpoint()  # tasks that code has just started come to their own calls
        self._parked += labels
        self._tell()
        try:
            while self._parked < len(self._busy):
                self._news = self._news or anyio.Event()
                await wait(self._news.wait)
            await checkpoint()  # code may give the call up for what another has brought
        finally:
            self._parked -= labels

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    def _mixed(self, name: str) -> DefinitionError:
        return DefinitionError(
            f"{self._path} calls {name!r} in ctx.map and with a number as key=: their paths would clash; use words as "
            "keys"
        )


def _label(name: str, key: str | int | None) -> str:
    if key is None:
        return name
    if isinstance(key, str) and (not key or set(key) & set("/#[]")):
        raise DefinitionError(f"key={key!r} for {name!r}: a key stands in paths: write some text without / # [ ]")
    return f"{name}[{key}]"
