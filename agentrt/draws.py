"""Draws: what comes out differently each time code asks for it, made to come out the same when its run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from random import Random
from uuid import NAMESPACE_URL, UUID, uuid5

from agentrt.errors import ReplayMismatch
from agentrt.events import Drawn


class Draws:
    """Hold the draws of one step: those on record first, in their order, then new ones, which `record` keeps.

    Random numbers and ids follow from the run's seed and the step's path, so that they need no record.
    """

    def __init__(self, seed: str, path: str, known: Iterator[Drawn], record: Callable[[str, object], None]) -> None:
        self.made: list[tuple[str, object]] = []
        self._seed = seed
        self._path = path
        self._known = known
        self._record = record
        self._ids = 0

    @cached_property
    def random(self) -> Random:
        return Random(f"{self._seed}/{self._path}")

    def draw(self, name: str, make: Callable[[], object]) -> object:
        """Return what was drawn under a name at this point of the step, or draw it; raises `ReplayMismatch`."""
        known = next(self._known, None)
        if known is None:
            value = make()
            self._record(name, value)
            self.made.append((name, value))
            return value
        if known.name != name:
            raise ReplayMismatch(self._path, recorded=("it drew", known.name), asked=("it drew", name))
        self.made.append((name, known.value))
        return known.value

    def uuid(self) -> UUID:
        self._ids += 1
        return uuid5(NAMESPACE_URL, f"agentrt:{self._seed}/{self._path}#{self._ids}")
