"""`agentrt export`: a run's record as a file."""

from __future__ import annotations

from pathlib import Path

import anyio
import typer

from agentrt.cli import options
from agentrt.cli.console import clean, note, plural
from agentrt.cli.exits import UsageError, told
from agentrt.cli.runs import read_run, status_of_run


def export(
    run: options.RunId = "last",
    to: options.To = None,
    store: options.Store = None,
    debug: options.Debug = False,
) -> None:
    """Write a run's record as JSON lines, one event a line, for a test to go through the run again.

    It holds everything that was said. In a test: await replay_run(graph, "runs/brief.jsonl")

    \b
    Examples:
      agentrt export last --to tests/runs/brief.jsonl
      agentrt export 20261127-0934 | jq .event
    """
    with told(debug=debug):
        from agentrt.testing.records import dump_record

        found, events = anyio.run(read_run, run, store)
        data = dump_record(events)
        if to is None:
            typer.echo(data, nl=False)
        else:
            _write(to, data)
            note(clean(f"run {found.run_id}: {plural(len(events), 'event')} in {to}"), "green")
        if found.status == "running":
            note(f"it is {status_of_run(found)}, and has no end yet that a test could replay", "yellow")


def _write(to: Path, data: bytes) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {to}: {error.strerror}") from error
