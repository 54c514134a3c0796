"""Stores: where runs and passages are kept. `open_store` finds the adapter of a URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Final

from agentrt.errors import JournalError
from agentrt.journal import Journal
from agentrt.stores.fts import FullTextIndex
from agentrt.stores.memory import MemoryJournal
from agentrt.stores.postgres import PostgresJournal
from agentrt.stores.sqlite import SqliteJournal

__all__ = [
    "FullTextIndex",
    "MemoryJournal",
    "PostgresJournal",
    "SqliteJournal",
    "default_store",
    "open_store",
]

_SCHEMES: Final = {
    "sqlite": "agentrt.stores.sqlite:from_url",
    "postgresql": "agentrt.stores.postgres:from_url",
}


def open_store(url: str | None = None) -> Journal:
    """Return the journal of a URL, like `sqlite:///runs.db` or `postgresql://me@host/database`; without one the
    user's default store.

    Blocks while it opens the store. Raises `JournalError` where that cannot be done.
    """
    url = url or default_store()
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        known = ", ".join(f"{s}://" for s in _SCHEMES)
        raise JournalError(f"unknown store {url!r}: write sqlite:///PATH, like sqlite:///runs.db (known: {known})")
    opener: Callable[[str], Journal] = resolve_name(_SCHEMES[scheme])
    return opener(url)


def default_store() -> str:
    """Return the URL of the store used where none is named: `AGENTRT_STORE`, else a file among the user's data."""
    if chosen := os.environ.get("AGENTRT_STORE"):
        return chosen
    from platformdirs import user_data_path

    folder = user_data_path("agentrt", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"cannot make {folder}: {error.strerror}; set AGENTRT_STORE=sqlite:///PATH") from error
    return f"sqlite:///{folder / 'runs.db'}"
