"""Headings: the lines of Markdown that are one.

Plain work on strings: a pattern that looks back from the end of a line takes the square of its length, or worse.
"""

from __future__ import annotations

_SPACE = " \t"


def heading(line: str) -> tuple[int, str] | None:
    """Return the level, from 1, and the title of a line such as `## Inns`, which may be empty; None if it is none.

    Signs at the end are no part of the title where a space stands before them: that of `# C# #` is `C#`.
    """
    begun = line.lstrip(" ")
    marked = begun.lstrip("#")
    level = len(begun) - len(marked)
    if len(line) - len(begun) > 3 or not 1 <= level <= 6 or (marked and marked[0] not in _SPACE):
        return None
    title = marked.strip()
    unclosed = title.rstrip("#")
    return level, unclosed.rstrip() if not unclosed or unclosed[-1] in _SPACE else title
