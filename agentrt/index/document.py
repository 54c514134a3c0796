"""Documents: what an index is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from agentrt.passage import Metadata

FORMATS: Final = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""What files hold, by their ending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Hold a whole text; `source` names it, such as a path or a URL, and is its identity in an index.

    metadata: facts of all its passages, to find them by; `format` says what the text is written in, such as "markdown".
    """

    source: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict, hash=False)

    @property
    def format(self) -> str:
        """Return what the text is written in: what the metadata say, else what the ending of the source does."""
        return str(self.metadata.get("format") or FORMATS.get(PurePath(self.source).suffix.lower(), "text"))
