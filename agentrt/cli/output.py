"""A run's output: on stdout and nothing else there."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from agentrt.cli.console import as_json, print_table
from agentrt.usage import Usage

_LONGEST_CELL = 200


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Send to stderr whatever the body prints, so that stdout holds the answer alone.

    The file descriptor is turned too: C libraries and child processes do not know of `sys.stdout`.
    """
    out = sys.stdout
    if _descriptor(out) != 1:  # a test's buffer, a notebook
        with redirect_stdout(sys.stderr):
            yield
        return
    out.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        out.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _descriptor(file: TextIO) -> int | None:
    try:
        return file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None


def print_output(value: Any) -> None:
    """Write an output for people: text as it is, a list of flat rows as a table, anything else as JSON."""
    if value is None:
        return
    if isinstance(value, str):
        sys.stdout.write(value.rstrip("\n") + "\n")
    elif rows := _rows(value):
        columns = list(dict.fromkeys(name for row in rows for name in row))
        print_table(columns, ([row.get(c) for c in columns] for row in rows))
    else:
        sys.stdout.write(as_json(value, indent=2) + "\n")
    sys.stdout.flush()


def _rows(value: object) -> Sequence[dict[str, Any]]:
    """Return the rows of a value that is a table, else none; what their class derives as properties is shown too."""
    from pydantic_core import to_jsonable_python

    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return ()
    plain = to_jsonable_python(value, fallback=repr, serialize_unknown=True)
    if not plain or not all(isinstance(row, dict) and row for row in plain):
        return ()
    rows = [{**row, **_derived(item)} for row, item in zip(plain, value, strict=True)]
    return rows if all(map(_is_flat, rows)) else ()


def _derived(item: object) -> dict[str, Any]:
    names = [name for name, attribute in vars(type(item)).items() if isinstance(attribute, property)]
    return {name.replace("_", " "): getattr(item, name) for name in names if not name.startswith("_")}


def _is_flat(row: dict[str, object]) -> bool:
    return all(
        v is None
        or isinstance(v, bool | int | float)
        or (isinstance(v, str) and len(v) <= _LONGEST_CELL and "\n" not in v)
        for v in row.values()
    )


def usage_document(usage: Usage) -> dict[str, int | float]:
    """Return a usage as programs read it; `usd` is dollars."""
    return {
        "tokens": usage.tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "uncertain_tokens": usage.uncertain,
        "usd": usage.usd,
        "model_calls": usage.model_calls,
        "tool_calls": usage.tool_calls,
        "steps": usage.steps,
    }
