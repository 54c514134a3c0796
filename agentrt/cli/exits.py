"""How a command ends: its exit status, and the one line that says what went wrong."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final

import typer

from agentrt.cli.console import complain, print_json
from agentrt.errors import AgentrtError, BudgetExceeded, DefinitionError, StepFailed, UnknownModel

ROOT: Final = str(Path(__file__).parents[1])


class ExitStatus(IntEnum):
    """Tell scripts how a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BUDGET_EXCEEDED = 3
    WAITING = 4
    INTERRUPTED = 130


class UsageError(AgentrtError):
    """Say what is wrong with what was typed, and what to type instead."""


def status_of(error: BaseException) -> ExitStatus:
    """Return the exit status of an error."""
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if isinstance(error, BudgetExceeded):
        return ExitStatus.BUDGET_EXCEEDED
    if isinstance(error, UsageError | DefinitionError | UnknownModel):
        return ExitStatus.USAGE
    return ExitStatus.FAILED


@contextmanager
def told(*, debug: bool = False, json: bool = False) -> Iterator[None]:
    """Turn an error into one line on stderr and an exit status; `debug` adds the traceback, `json` a document."""
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:  # the reader has gone, as in `agentrt show | head`; click ends the command quietly
        raise
    except (Exception, KeyboardInterrupt) as error:
        if json:
            print_json({"error": error_document(error)})
        tell(error, debug=debug)
        raise typer.Exit(status_of(error)) from error


def tell(error: BaseException, *, debug: bool = False) -> None:
    """Say on stderr what went wrong; `debug` adds the traceback."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    complain(describe(error))


def error_document(error: BaseException) -> dict[str, str | None]:
    """Return an error as programs read it."""
    cause = error.cause if isinstance(error, StepFailed) else error
    path = error.path if isinstance(error, StepFailed | BudgetExceeded) else None
    return {"type": type(cause).__name__, "message": str(cause) or describe(error), "path": path}


def describe(error: BaseException) -> str:
    """Say in one line what went wrong, and for errors of users' code where."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    cause = error.cause if isinstance(error, StepFailed) else error
    if isinstance(cause, AgentrtError):
        return str(error)
    text = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return " ".join(text.split()) + where(cause.__traceback__)


def where(trace: TracebackType | None) -> str:
    """Return the innermost line of users' code in a traceback, as ` (FILE line N: CODE)`; empty if there is none."""
    frames = [f for f in traceback.extract_tb(trace) if _is_users(f.filename)]
    if not frames:
        return ""
    frame = frames[-1]
    code = f": {frame.line}" if frame.line else ""
    return f" ({shown_path(frame.filename)} line {frame.lineno}{code})"


def _is_users(file: str) -> bool:
    elsewhere = (ROOT, sys.prefix, sys.base_prefix, "<")
    return not file.startswith(elsewhere) and "site-packages" not in file


def shown_path(file: str) -> str:
    """Return a path as a person would type it: relative where it lies below the working directory."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
