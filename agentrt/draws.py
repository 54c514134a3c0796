"""Draws: what comes out differently each time code asks for it, made to come out the same when its run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from uuid import NAMESPACE_URL, UUID, uuid5

from agentrt.errors import ReplayMismatch
from agentrt.events import Drawn


class Draws:
    """Hold the draws of one step: those on record first, in their order, then new ones, which `record` keeps.

    Random numbers and ids follow from the run's seed and the step's path, so that they need no record.
    """

    def __init__(self, seed: str, path: str, known: Iterator[Drawn], record: Callable[[str, object], None]) -> None:
        self.random = Random(f"{seed}/{path}")
        self._seed = seed
        self._path = path
        self._known = known
        self._record = record
        self._ids = 0

    def draw(self, name: str, make: Callable[[], object]) -> object:
        """Return what was drawn under a name at this point of the step, or draw it; raises `ReplayMismatch`."""
        known = next(self._known, None)
        if known is None:
            value = make()
            self._record(name, value)
            return value
        if known.name != name:
            raise ReplayMismatch(self._path, recorded=("it drew", known.name), asked=("it drew", name))
        return known.value

    def uuid(self) -> UUID:
        self._ids += 1
        return uuid5(NAMESPACE_URL, f"agentrt:{self._seed}/{self._path}#{self._ids}")
