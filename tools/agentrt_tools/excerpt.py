"""Excerpts: the one way in which tools cut what they return to models."""

from __future__ import annotations

from typing import Final

from agentrt import InvalidArguments

MOST_CHARACTERS: Final = 8_000
"""So much text a tool returns at once, unless it says otherwise: about 2,000 tokens."""


def excerpt(text: str, start: int = 0, most: int = MOST_CHARACTERS, *, parameter: str = "start") -> str:
    """Return at most `most` characters of a text from `start` on; if more follow, a last line says how to get them.

    The cut is behind a line's end where one lies in the second half. `parameter` names what a model has to pass, and
    the line it reads comes on top of `most`.

    Raises `InvalidArguments` for a start outside the text.
    """
    if start < 0 or start > len(text) or (start == len(text) and start > 0):
        raise InvalidArguments(f"{parameter}={start}: the text has {len(text):,} characters, counted from 0")
    end = _end(text, start, most)
    if end == len(text):
        return text[start:]
    line = "" if text[end - 1] == "\n" else "\n"
    return f"{text[start:end]}{line}{rest(f'{len(text) - end:,} more characters', parameter, end)}"


def rest(left: str, parameter: str, value: int) -> str:
    """Return the line that says what is left, and what to pass to go on reading."""
    return f"… {left}; pass {parameter}={value} to go on"


def _end(text: str, start: int, most: int) -> int:
    end = start + max(1, most)
    if end >= len(text):
        return len(text)
    return text.rfind("\n", start + most // 2, end) + 1 or end
