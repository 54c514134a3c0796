"""Records: what a run has done as a file of JSON lines, an event a line, and going through the run again from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from difflib import unified_diff
from pathlib import Path
from textwrap import wrap
from typing import Final, TypeVar, Unpack

from agentrt.continuation import replay_events
from agentrt.errors import ReplayMismatch
from agentrt.events import Event, RunEvent, RunForked, RunResumed, RunStarted, decode, encode, plain
from agentrt.function import Runnable
from agentrt.options import ReplayOptions
from agentrt.result import Result

T = TypeVar("T")
_WIDTH: Final = 100
_AGAIN: Final = "if the change is meant, run it again and export that: agentrt export last --to"


class RecordMismatch(AssertionError):
    """Say where a run does not come out as its record says."""


def dump_record(events: Iterable[Event]) -> bytes:
    """Return a run's events as the lines of a file."""
    return b"".join(encode(event) + b"\n" for event in events)


def read_record(path: str | os.PathLike[str]) -> list[Event]:
    """Return the events that `agentrt export` wrote to a file.

    Raises `FileNotFoundError`, and `ValueError` naming the line that is wrong.
    """
    __tracebackhide__ = True
    file = _shown(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no record {file}: agentrt export RUN --to {file} writes one") from None
    lines = data.split(b"\n")  # splitlines would break texts that hold separators of their own
    events = [_read(line, f"{file} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    _check_ends(events, file)
    return events


async def replay_record(
    node: Runnable[T], path: str | os.PathLike[str], /, **options: Unpack[ReplayOptions]
) -> Result[T]:
    """Go through the run in a file again, offline, as `agentrt.replay` does, and return its result.

    Raises `RecordMismatch` where it does not come out as recorded, what `read_record` raises, and what the run raises
    if it is one that failed.
    """
    __tracebackhide__ = True
    events = read_record(path)
    try:
        return await replay_events(node, events, **options)
    except ReplayMismatch as error:
        file = _shown(path)
        raise RecordMismatch(f"{file}: {difference(error)}\n{_AGAIN} {file}") from None


def _shown(path: str | os.PathLike[str]) -> Path:
    """Return a path as a person would type it: relative where it lies below the working directory."""
    file, here = Path(path), Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def _read(line: bytes, where: str) -> Event:
    __tracebackhide__ = True
    try:
        return decode(line)
    except KeyError as error:
        raise ValueError(f"{where} is no event of a run: there is none of the kind {error}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is no event of a run: {error}") from None


def _check_ends(events: Sequence[Event], file: Path) -> None:
    __tracebackhide__ = True
    if not events or not isinstance(events[0], RunStarted):
        raise ValueError(f"{file} line 1 is not the start of a run")
    last = next(type(e) for e in reversed(events) if isinstance(e, RunEvent))
    if last in (RunStarted, RunForked, RunResumed):
        raise ValueError(f"{file} ends with line {len(events)} and its run does not: the rest is missing")


def difference(error: ReplayMismatch) -> str:
    """Say where a run came out differently, line by line."""
    if not hasattr(error, "recorded"):
        return str(error)
    (was, recorded), (now, asked) = error.recorded, error.asked
    files = (f"recorded: {was}", f"now: {now}")
    shown = "\n".join(unified_diff(_lines(recorded), _lines(asked), *files, lineterm="", n=2))
    return f"{error.path} is not what was recorded\n{shown}" if shown else str(error)


def _lines(value: object) -> list[str]:
    value = plain(value)
    text = value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return [piece for line in text.splitlines() for piece in _pieces(line)]


def _pieces(line: str) -> list[str]:
    """Return a long line as several, so that a difference shows what differs in it and not the whole."""
    return wrap(line, _WIDTH, drop_whitespace=False, replace_whitespace=False, expand_tabs=False) or [line]
