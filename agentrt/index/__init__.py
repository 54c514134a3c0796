"""Indexes: documents in pieces, found by their words and their meaning."""

from __future__ import annotations

from agentrt.index.document import Document

__all__ = ["Document"]
