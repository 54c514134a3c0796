"""Results that were cut, kept so that models can read on."""

from __future__ import annotations

import hashlib
from typing import Final

from agentrt import InvalidArguments
from agentrt_tools.excerpt import MOST_CHARACTERS, excerpt

_MOST: Final = 16_000_000
"""So many characters are kept in all; the oldest results go first."""


class KeptResults:
    """Keep the long results of calls, each under a name made of its step's key, the same when a run goes on."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def cut(self, text: str, key: str, reader: str) -> str:
        """Return the beginning of a text; if more follows, its last line tells a model how `reader` reads on."""
        if len(text) <= MOST_CHARACTERS:
            return text
        name = hashlib.sha256(key.encode()).hexdigest()[:8]
        self._texts[name] = text
        while sum(map(len, self._texts.values())) > _MOST and len(self._texts) > 1:
            del self._texts[next(iter(self._texts))]
        return excerpt(text, parameter=_parameter(name, reader))

    def more(self, name: str, start: int, reader: str) -> str:
        """Return a kept text from `start` on; raises `InvalidArguments` for one that is not kept (any more)."""
        if (text := self._texts.get(name)) is None:
            raise InvalidArguments(f"result={name!r} is not kept (any more): call the tool again that returned it")
        return excerpt(text, start, parameter=_parameter(name, reader))


def _parameter(name: str, reader: str) -> str:
    return f"to {reader} result={name!r}, start"
