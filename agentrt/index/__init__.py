"""Indexes: documents in pieces, found by their words and their meaning."""

from __future__ import annotations

from agentrt.index.changes import Changes, Chunk
from agentrt.index.chunking import Chunker
from agentrt.index.curation import Curation
from agentrt.index.document import Document
from agentrt.index.html import readable
from agentrt.index.indexer import Indexer
from agentrt.index.language import language_detector
from agentrt.index.loading import Loading, load
from agentrt.index.postgres import PostgresIndex
from agentrt.index.problem import Problem
from agentrt.index.sqlite import SqliteIndex
from agentrt.index.stored import Mode, StoredIndex

__all__ = [
    "Changes",
    "Chunk",
    "Chunker",
    "Curation",
    "Document",
    "Indexer",
    "Loading",
    "Mode",
    "PostgresIndex",
    "Problem",
    "SqliteIndex",
    "StoredIndex",
    "language_detector",
    "load",
    "readable",
]
