"""Passages: pieces of text that know where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


def shown_within(passages: Sequence[Passage], most: int) -> Sequence[Mapping[str, object]]:
    """Return what a model should read of passages whose texts are to have so many characters together.

    The longest are cut, all to one length, and say so. Titles and metadata count too: what there is of them without
    measure is left out.
    """
    shown = [dict(passage.for_model()) for passage in passages]
    beside = sum(len(str({**one, "text": ""})) for one in shown)
    if beside > most // 2:
        shown = [{"id": passage.id, "text": passage.text} for passage in passages]
        beside = 0
    longest = _longest([len(passage.text) for passage in passages], most - beside)
    for one, passage in zip(shown, passages, strict=True):
        if len(passage.text) > longest:
            left = len(passage.text) - longest
            one["text"] = f"{passage.text[:longest]}\n… {left:,} more characters, which are not shown"
    return shown


def _longest(lengths: Sequence[int], most: int) -> int:
    """Return the length to which the longest have to be cut so that all together have so many."""
    left = most
    for place, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - place)
        if length > share:
            return share
        left -= length
    return most


@dataclass(slots=True)
class Found:
    """Hold the passages that an agent was given or has found, by their ids, then by who has brought them.

    Of what one tool has found under one id the latest counts, since that is what the model has read last; different
    texts that came at once all count, the later ones as brought by `tool~2` and so on.
    """

    brought: dict[str, dict[str, Passage]] = field(default_factory=dict)

    def copy(self) -> Found:
        return Found({cited: dict(by) for cited, by in self.brought.items()})

    def add(self, value: object, *, by: str) -> None:
        """Take note of the passages that a value holds; `by` is who has brought them."""
        at_once: dict[str, dict[tuple[str, str], Passage]] = {}
        for passage in passages_in(value):
            at_once.setdefault(passage.id, {})[passage.title, passage.text] = passage
        for cited, texts in at_once.items():
            held = self.brought.setdefault(cited, {})
            for name in [name for name in held if name.partition("~")[0] == by]:
                del held[name]
            held |= {by if n == 1 else f"{by}~{n}": passage for n, passage in enumerate(texts.values(), 1)}

    @property
    def ids(self) -> Sequence[str]:
        """Return the ids, those found first first."""
        return list(self.brought)

    def cited_as(self, name: str) -> Mapping[str, Passage]:
        """Return the passages that go by a name, each with one that it alone goes by.

        That is an id behind who has brought it, an id, or a source of which there is one id. The first goes first, so
        that no source that is written like it passes for it.
        """
        by, _, rest = name.partition(":")
        if by in self.brought.get(rest, {}):
            return {name: self.brought[rest][by]}
        if name not in self.brought:
            same = [known for known, held in self.brought.items() if any(p.source == name for p in held.values())]
            if len(same) != 1:
                return {}
            (name,) = same
        found = self.brought[name]
        if len({(p.title, p.text) for p in found.values()}) == 1:
            return {name: list(found.values())[-1]}
        return {f"{by}:{name}": passage for by, passage in found.items()}
