"""Blame: from which steps an error comes, whatever it was wrapped in on its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_PATH: Final = "__agentrt_path__"


def blame(error: BaseException, path: str) -> None:
    """Note on an error that the step at a path failed by it."""
    error.__dict__[_PATH] = path


def blamed(error: BaseException, path: str) -> Sequence[str]:
    """Return the steps right below the one at a path that an error comes of: it is theirs, or holds, or followed it."""
    found: list[str] = []
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        one = ahead.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        step = one.__dict__.get(_PATH, "")
        if step and step.rpartition("/")[0] == path:
            found.append(step)
            continue
        ahead += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            ahead += one.exceptions
    return sorted(found)
