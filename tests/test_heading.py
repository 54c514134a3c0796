"""Headings of Markdown: which lines are one, and what they say."""

import pytest

from agentrt.heading import heading


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# Inns", (1, "Inns")),
        ("   ###### The  Zura\t", (6, "The  Zura")),
        ("## Inns ##", (2, "Inns")),
        ("# C#", (1, "C#")),
        ("# C# \t#", (1, "C#")),
        ("#\tInns", (1, "Inns")),
        ("#", (1, "")),
        ("## ##", (2, "")),
        ("    # code", None),
        ("####### seven", None),
        ("#tag", None),
        ("text # none", None),
        ("", None),
    ],
)
def test_which_lines_are_headings(line: str, expected: tuple[int, str] | None) -> None:
    """As CommonMark has it."""
    assert heading(line) == expected
