"""The command line: `agentrt run`, `show`, `resume`, `inbox` and others.

Exit status: 0 done, 1 the run failed, 2 wrong usage or a graph that cannot be what it says, 3 a budget was exceeded,
4 it waits for people, 130 interrupted. Answers go to stdout; progress, errors and what users' code prints go to stderr.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from agentrt.cli.diff import diff
from agentrt.cli.export import export
from agentrt.cli.graph import graph
from agentrt.cli.inbox import answer, approve, deny, inbox, settle
from agentrt.cli.index import app as index_app
from agentrt.cli.mcp import mcp
from agentrt.cli.models import app as models_app
from agentrt.cli.resume import fork, replay, resume
from agentrt.cli.run import RunCommand, run
from agentrt.cli.runs import runs
from agentrt.cli.show import show

__all__ = ["app", "main"]

app = typer.Typer(
    name="agentrt",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.command(cls=RunCommand, context_settings={"ignore_unknown_options": True}, add_help_option=False)(run)
app.command()(runs)
app.command()(show)
app.command()(graph)
app.command()(resume)
app.command()(fork)
app.command()(replay)
app.command()(diff)
app.command()(export)
app.command()(mcp)
app.command()(inbox)
app.command()(approve)
app.command()(deny)
app.command()(answer)
app.command()(settle)
app.add_typer(index_app, name="index")
app.add_typer(models_app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        from agentrt import __version__

        typer.echo(f"agentrt {__version__}")
        raise typer.Exit


@app.callback()
def agentrt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run graphs of agents under budgets that hold, and look at what they did.

    \b
    Examples:
      agentrt run examples/handbook.py
      agentrt show last
      agentrt resume last
      agentrt inbox
      agentrt index build docs --to docs.db
      agentrt models
    """


def main() -> None:
    """Run the command line and leave the process with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    # Being ended by a service manager or `timeout` is an interruption like Ctrl-C: the run is recorded as cancelled.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        app()
    except SystemExit as end:
        _leave(end.code)
        raise


def _leave(code: object) -> None:
    """Leave at once if a thread hangs: a function abandoned by Ctrl-C or a time-out would keep the process alive."""
    if any(t is not threading.main_thread() and not t.daemon and t.is_alive() for t in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
