"""Curation: which documents are worth keeping, and a report of what was left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final, Self

from agentrt.errors import DefinitionError
from agentrt.index.boilerplate import RECORDS, Boilerplate
from agentrt.index.document import Document
from agentrt.index.duplicates import Duplicates
from agentrt.index.quality import flaw
from agentrt.index.script import count_words

_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Left:
    """Say which document was left out, for which reason, and what there is to add."""

    source: str
    reason: str
    detail: str = ""


@dataclass(slots=True)
class Report:
    """Say what was kept and what was not.

    kept: how many words each document has that was kept. unsure: those kept of which no language is sure.
    lines: those that were blanked, with how often.
    """

    kept: dict[str, int] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Report) -> Report:
        """Return the report of this reading and a later one, which says more of documents that both have read."""
        named = {*other.kept, *(one.source for one in other.left)}
        before = self.without(named.__contains__)
        return Report(
            before.kept | other.kept,
            [*before.left, *other.left],
            [*before.unsure, *other.unsure],
            self.lines + other.lines,
        )

    def without(self, is_gone: Callable[[str], bool]) -> Report:
        """Return the report without some documents, by their sources; of lines it is not known where they stood."""
        return Report(
            {source: words for source, words in self.kept.items() if not is_gone(source)},
            [one for one in self.left if not is_gone(one.source)],
            [source for source in self.unsure if not is_gone(source)],
            self.lines,
        )

    def by_reason(self) -> dict[str, list[Left]]:
        """Return what was left out, by reason, the most frequent first."""
        found: dict[str, list[Left]] = {}
        for one in self.left:
            found.setdefault(one.reason, []).append(one)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def document(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {
            "kept": {"documents": len(self.kept), "words": sum(self.kept.values())},
            "words": self.kept,
            "left_out": [{"source": o.source, "reason": o.reason, "detail": o.detail} for o in self.left],
            "language_unsure": self.unsure,
            "boilerplate": dict(self.lines.most_common()),
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the report that was written as JSON."""
        left = [Left(**one) for one in document["left_out"]]
        lines = Counter(document["boilerplate"])
        return cls(document.get("words", {}), left, document.get("language_unsure", []), lines)

    def rows(self, most: int | None = None) -> list[tuple[str, int, str]]:
        """Return a line for each reason: its name, how many, and examples; and one for each line that was blanked.

        most: how many blanked lines are shown, the most frequent; without it all.
        """
        shown = [("kept", len(self.kept), f"{sum(self.kept.values()):,} words")]
        if self.unsure:
            shown.append(("kept, language unsure", len(self.unsure), ", ".join(self.unsure[:_EXAMPLES])))
        for reason, ones in self.by_reason().items():
            named = [f"{o.source} ({o.detail})" if o.detail else o.source for o in ones[:_EXAMPLES]]
            shown.append((reason, len(ones), ", ".join(named)))
        shown += [("blanked line", n, line) for line, n in self.lines.most_common(most)]
        if most is not None and len(self.lines) > most:
            rest = self.lines.most_common()[most:]
            shown.append(("blanked lines", sum(n for _, n in rest), f"{len(rest):,} more"))
        return shown


@dataclass(slots=True)
class Curation:
    """Leave out duplicates and debris, and blank the lines that documents have in common.

    similarity: how much of their text near duplicates share. least_words: what is shorter is left out.
    language: tells the language of a text, such as "en"; only those in `languages` are kept, and those of which it does
        not know, "".
    """

    similarity: float = 0.9
    least_words: int = 3
    language: Callable[[str], str] | None = None
    languages: frozenset[str] = frozenset()
    report: Report = field(default_factory=Report)

    def curate(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents that are kept, one at a time; `report` is complete when all are through.

        Goes through the documents twice, since lines are boilerplate that many have: give it a `Loading` or a list.
        Raises `DefinitionError` for what can be gone through but once.
        """
        if isinstance(documents, Iterator):
            raise DefinitionError("curation goes through the documents twice: give it a Loading or a list, no iterator")
        return self._curated(documents)

    def _curated(self, documents: Iterable[Document]) -> Iterator[Document]:
        self.report = Report()
        boilerplate = Boilerplate(documents)
        duplicates = Duplicates(self.similarity)
        for document in documents:
            text, lines = boilerplate.blanked(document)
            language = self.language(text) if self.language is not None else ""
            left = self._reason(document, text, language, duplicates)
            if left is not None:
                self.report.left.append(left)
                continue
            self.report.kept[document.source] = count_words(text)
            if self.language is not None and not language:
                self.report.unsure.append(document.source)
            self.report.lines.update(lines)
            yield replace(document, text=text) if lines else document

    def _reason(self, document: Document, text: str, language: str, duplicates: Duplicates) -> Left | None:
        source = document.source
        if wrong := flaw(text, least_words=self.least_words):
            return Left(source, wrong)
        if language and language not in self.languages:
            return Left(source, "another language", language)
        if repeats := duplicates.seen(source, text, label=_label(document)):
            name, similarity = repeats
            reason = "duplicate" if similarity == 1.0 else "near duplicate"
            return Left(source, reason, f"of {name}" + ("" if similarity == 1.0 else f", {similarity:.0%}"))
        return None


def _label(document: Document) -> str:
    """Return what is said of a document beside its text: a title that is more than its name, and a record's fields."""
    title = "" if document.title == PurePath(document.source).stem else document.title
    facts = document.metadata if document.metadata.get("format") in RECORDS else {}
    return json.dumps([title, sorted((name, str(fact)) for name, fact in facts.items() if name != "line")])
