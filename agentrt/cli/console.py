"""What people see: consoles, tables, and values written for the eye."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentrt.events import QuestionAnswered
from agentrt.text import shortened
from agentrt.usage import PICO

_UNSEEN: dict[int, str | None] = {c: None for c in (*range(32), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}
_UNSEEN |= dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))  # turn text round
_UNSEEN |= {0x2028: " ", 0x2029: " "}
_WIDE = 10_000


def console(file: TextIO | None = None) -> Console:
    """Return a console on stdout, or on `file`; in a pipe nothing is wrapped or coloured."""
    target = sys.stdout if file is None else file
    return Console(file=target, highlight=False, width=None if target.isatty() else _WIDE)


def note(text: str, style: str = "dim") -> None:
    """Write a line to stderr."""
    console(sys.stderr).print(Text(text, style=style), soft_wrap=True)


def complain(text: str) -> None:
    """Write an error to stderr."""
    console(sys.stderr).print(Text.assemble(("error: ", "bold red"), clean(text)), soft_wrap=True)


def clean(text: str) -> str:
    """Take out control characters, so that what models and tools say cannot drive the terminal."""
    return text.translate(_UNSEEN)


def quoted(text: str) -> str:
    """Return text of several lines with a bar before all but the first: none of them looks like a line of ours."""
    return "\n  │ ".join(clean(text).splitlines())


def one_line(value: object, most: int) -> str:
    """Return a value as one line of at most so many characters."""
    text = value if isinstance(value, str) else as_json(value)
    return shortened(" ".join(clean(text[: 4 * most]).split()), most)


def as_json(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON; what is not JSON becomes its `repr`, and what is no number null."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(value, indent=indent, fallback=repr, inf_nan_mode="null", serialize_unknown=True).decode()
    except (PydanticSerializationError, UnicodeEncodeError, ValueError):
        return to_json(repr(value).encode(errors="backslashreplace").decode(), indent=indent).decode()


def loose_json(text: str) -> object:
    """Read what was typed as JSON, and as text where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def print_json(value: object) -> None:
    """Write a value to stdout, one JSON document and nothing else."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], file: TextIO | None = None) -> None:
    """Write rows under their columns' names, numbers to the right."""
    out = console(file)
    shown = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, column in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) or row[i] is None for row in shown)
        table.add_column(clean(column), justify="right" if numbers and shown else "left", overflow="fold")
    for row in shown:
        table.add_row(*(c if isinstance(c, Text) else Text(cell(c)) for c in row))
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        out.file.write(line.rstrip() + "\n")


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return clean(str(value))


def seconds(value: float) -> str:
    """Return a span of time: `0.4 ms`, `12.3 s`, `2 min 05 s`."""
    if value < 0.0001:
        return "<0.1 ms"
    if value < 0.1:
        return f"{value * 1000:.{int(value < 0.01)}f} ms"
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def dollars(cost: int) -> str:
    """Return pico-dollars as dollars, small sums with the digits that count."""
    amount = cost / PICO
    if amount == 0 or amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.001 else f"${max(amount, 1e-6):.6f}"


_VERDICTS: Final = {
    "answer": "answered by {}",
    "approve": "approved by {}",
    "deny": "denied by {}",
    "happened": "it has happened, says {}",
    "again": "it is to be made again, says {}",
}


def verdict(given: QuestionAnswered) -> str:
    """Say who answered a question, and how."""
    said = _VERDICTS.get(given.verdict, f"{given.verdict} by {{}}").format(given.by)
    return said + (", edited" if given.diff else "") + (f": {given.because}" if given.because else "")


def plural(n: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def tokens_of(tokens: int, uncertain: int) -> str:
    """Return a count of tokens, and how many of them nobody has billed."""
    return plural(tokens, "token") + (f" ({uncertain:,} in doubt)" if uncertain else "")


def moment(at: float) -> str:
    """Return seconds since the epoch as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def on_terminal(file: TextIO) -> bool:
    """Say whether a live display can be drawn."""
    return file.isatty() and os.environ.get("TERM") != "dumb"
