"""Indexes: documents in pieces, found by their words and their meaning."""

from __future__ import annotations

from agentrt.index.changes import Changes, Chunk
from agentrt.index.document import Document
from agentrt.index.indexer import Indexer
from agentrt.index.postgres import PostgresIndex
from agentrt.index.sqlite import SqliteIndex
from agentrt.index.stored import Mode, StoredIndex

__all__ = ["Changes", "Chunk", "Document", "Indexer", "Mode", "PostgresIndex", "SqliteIndex", "StoredIndex"]
