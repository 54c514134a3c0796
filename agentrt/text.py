"""Text that is cut short."""

from __future__ import annotations


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters, which ends with `…` where it goes on."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
