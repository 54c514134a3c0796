"""Text that is cut short."""

from __future__ import annotations

from agentrt.text import shortened


def test_a_text_that_is_too_long_ends_with_a_mark() -> None:
    assert shortened("short", 5) == "short"
    assert shortened("longer", 5) == "long…"
