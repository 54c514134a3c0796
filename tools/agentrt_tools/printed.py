"""What code in the sandbox has printed, and its value: as much of both as a model reads at once, and how to read on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_KEPT: Final = 1_000_000
"""So many characters of what one piece of code prints are kept for the next to read."""
KEPT: Final = "_printed"
"""The variable in which code finds what was printed before it, where that was too long to be shown."""


@dataclass(frozen=True, slots=True)
class Written:
    """Hold the beginning of a text and the length of the whole."""

    text: str
    length: int


class Printed:
    """Keep the beginning of what is printed, and count the rest."""

    def __init__(self) -> None:
        self.text = ""
        self.length = 0

    def __call__(self, stream: str, text: str) -> None:
        self.text += text[: max(0, MOST_KEPT - len(self.text))]
        self.length += len(text)

    def shown(self, most: int) -> str:
        """Return at most so many characters; if more were printed, a last line says how to get them."""
        if self.length <= most:
            return self.text
        kept = f", which holds the first {MOST_KEPT:,}" if self.length > MOST_KEPT else ""
        left = self.length - most
        return f"{self.text[:most]}\n… {left:,} more characters; for more print({KEPT}[{most}:]){kept}"


def shown(printed: Printed, value: Written | None, most: int) -> str:
    """Return what was printed, then the value, together at most so many characters, besides how to read on.

    Where they do not fit each gets half, and what the other leaves.
    """
    length = 0 if value is None else value.length
    share = min(length, max(most // 2, most - printed.length))
    parts = [printed.shown(most - share).rstrip("\n")]
    if value is not None:
        left = length - share
        parts.append(
            value.text
            if not left
            else f"{value.text[:share]}\n… {left:,} more characters; for more print repr(_)[{share}:]"
        )
    return "\n".join(p for p in parts if p) or "done: nothing was printed, and there is no value"
