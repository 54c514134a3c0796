"""Documents: what an index is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentrt.passage import Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Hold a whole text; `source` names it, such as a path or a URL, and is its identity in an index."""

    source: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict, hash=False)
