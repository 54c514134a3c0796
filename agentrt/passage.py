"""Passages: pieces of text that know where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Final, TypeAlias

from pydantic import BaseModel

Fact: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Hold a piece of text with where it comes from: `source` names the document, `position` counts in it from 0.

    start: where it begins in its document's text, in characters; page numbers and the like are `metadata`.
    """

    text: str
    source: str
    position: int = 0
    title: str = ""
    score: float = 0.0
    metadata: Metadata = field(default_factory=dict, hash=False)
    start: int | None = None

    @property
    def id(self) -> str:
        """Return what an answer cites it by."""
        return f"{self.source}#{self.position}"

    def for_model(self) -> Mapping[str, object]:
        """Return what a model should read of it: what it is cited by, and what it says.

        What others have written about it is kept apart, so that no metadata pass for its source.
        """
        shown = {"id": self.id, "title": self.title, "text": self.text, "metadata": dict(self.metadata)}
        return {name: value for name, value in shown.items() if value}


CITED: Final = "passage-id"
"""How a schema says that something cites a passage."""


def by_id(passages: Iterable[Passage]) -> dict[str, Passage]:
    """Return passages by what they are cited by; of two of one id the later."""
    return {passage.id: passage for passage in passages}


def passages_in(value: object) -> Iterator[Passage]:
    """Yield the passages that a value is, or holds."""
    if isinstance(value, Passage):
        yield value
    elif isinstance(value, Mapping):
        yield from passages_in(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from passages_in(one)
    elif isinstance(value, BaseModel):
        yield from passages_in(list(value.__dict__.values()))
    elif is_dataclass(value):
        yield from passages_in([getattr(value, f.name) for f in fields(value)])
