"""Problems: what could not be read, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Say what of a source was not read, or not read for certain, and why; `place` is a line or a page in it.

    lost: whether something is missing in the documents because of it.
    unread: whether nobody knows what is in it: in a file that could not be read, or a folder, which ends with a slash.
    """

    source: str
    why: str
    place: str = ""
    lost: bool = True
    unread: bool = False

    def __str__(self) -> str:
        return f"{', '.join(filter(None, (self.source, self.place)))}: {self.why}"
