"""Blame: from which steps an error comes, whatever it was wrapped in on its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_PATHS: Final = "__agentrt_paths__"


def blame(error: BaseException, path: str) -> None:
    """Note on an error that the step at a path failed by it; several may, if they waited for the same."""
    error.__dict__.setdefault(_PATHS, set()).add(path)


def blamed(error: BaseException, path: str) -> Sequence[str]:
    """Return the steps right below the one at a path that an error comes of: it is theirs, or holds, or followed it."""
    found: set[str] = set()
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        one = ahead.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found.update(p for p in one.__dict__.get(_PATHS, ()) if p.rpartition("/")[0] == path)
        ahead += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            ahead += one.exceptions
    return sorted(found)
