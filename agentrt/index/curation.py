"""Curation: which documents are worth keeping, and a report of what was left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final, Self

from agentrt.index.boilerplate import RECORDS, Boilerplate
from agentrt.index.document import Document
from agentrt.index.duplicates import Duplicates
from agentrt.index.quality import flaw
from agentrt.index.script import count_words

_EXAMPLES: Final = 5

Documents = Callable[[], Iterable[Document]]
"""Begins to go through the documents; curation does so twice."""


@dataclass(frozen=True, slots=True)
class Left:
    """Say which document was left out, for which reason, and what there is to add."""

    source: str
    reason: str
    detail: str = ""


@dataclass(slots=True)
class Report:
    """Count what was kept and what was not; `lines` are those that were blanked, with how often."""

    documents: int = 0
    words: int = 0
    left: list[Left] = field(default_factory=list)
    lines: Counter[str] = field(default_factory=Counter)

    def by_reason(self) -> dict[str, list[Left]]:
        """Return what was left out, by reason, the most frequent first."""
        found: dict[str, list[Left]] = {}
        for one in self.left:
            found.setdefault(one.reason, []).append(one)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def document(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {
            "kept": {"documents": self.documents, "words": self.words},
            "left_out": [{"source": o.source, "reason": o.reason, "detail": o.detail} for o in self.left],
            "boilerplate": dict(self.lines.most_common()),
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the report that was written as JSON."""
        left = [Left(**one) for one in document["left_out"]]
        return cls(**document["kept"], left=left, lines=Counter(document["boilerplate"]))

    def rows(self, most: int | None = None) -> list[tuple[str, int, str]]:
        """Return a line for each reason: its name, how many, and examples; and one for each line that was blanked.

        most: how many blanked lines are shown, the most frequent; without it all.
        """
        shown = [("kept", self.documents, f"{self.words:,} words")]
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
    language: tells the language of a text, such as "en"; only those in `languages` are kept.
    """

    similarity: float = 0.9
    least_words: int = 3
    language: Callable[[str], str] | None = None
    languages: frozenset[str] = frozenset()
    report: Report = field(default_factory=Report)

    def curate(self, documents: Documents) -> Iterator[Document]:
        """Yield the documents that are kept, one at a time; `report` is complete when all are through."""
        self.report = Report()
        boilerplate = Boilerplate(documents())
        duplicates = Duplicates(self.similarity)
        for document in documents():
            text, lines = boilerplate.blanked(document)
            left = self._reason(document, text, duplicates)
            if left is not None:
                self.report.left.append(left)
                continue
            self.report.documents += 1
            self.report.words += count_words(text)
            self.report.lines.update(lines)
            yield replace(document, text=text) if lines else document

    def _reason(self, document: Document, text: str, duplicates: Duplicates) -> Left | None:
        source = document.source
        if wrong := flaw(text, least_words=self.least_words):
            return Left(source, wrong)
        if self.language is not None and (found := self.language(text)) not in self.languages:
            return Left(source, "another language", found)
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
