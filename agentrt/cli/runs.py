"""`agentrt runs`: the recorded runs; and finding one of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread
from rich.text import Text

from agentrt.cli import options
from agentrt.cli.console import dollars, moment, note, print_json, print_table, seconds
from agentrt.cli.exits import UsageError, told
from agentrt.events import Event
from agentrt.journal import ALL, Journal, RunSummary
from agentrt.stores import default_store, open_store
from agentrt.usage import PICO

_STYLES: Final = {"done": "green", "running": "cyan"}


def runs(
    json: options.Json = False,
    limit: options.Most = 20,
    store: options.Store = None,
    debug: options.Debug = False,
) -> None:
    """List the recorded runs, the newest first.

    \b
    Examples:
      agentrt runs
      agentrt runs --limit 100 --json
    """
    with told(debug=debug):
        found = anyio.run(newest_runs, store, limit)
        if json:
            print_json([summary_document(r) for r in found])
        elif found:
            columns = ("RUN", "NAME", "STATUS", "STARTED", "TIME", "TOKENS", "COST")
            print_table(columns, [_row(r) for r in found])
        else:
            note(_no_runs(store))


@asynccontextmanager
async def opened(store: str | None) -> AsyncIterator[Journal]:
    """Open a store while the body works with it; raises `JournalError`."""
    journal = await anyio.to_thread.run_sync(open_store, store)
    try:
        yield journal
    finally:
        await journal.aclose()


async def newest_runs(store: str | None, limit: int) -> list[RunSummary]:
    """Return the newest runs of a store, newest first; raises `JournalError`."""
    async with opened(store) as journal:
        return await journal.runs(limit)


def _row(r: RunSummary) -> tuple[object, ...]:
    shown = status_of_run(r)
    status = Text(shown, style=_STYLES.get(shown, "yellow"))
    return (r.run_id, r.name, status, moment(r.started), seconds(worked(r)), r.tokens, dollars(r.cost))


CUT_OFF: Final = "cut off"


def status_of_run(r: RunSummary) -> str:
    """Return a run's status for the eye: one that nobody drives any more was cut off, and can be resumed."""
    if r.status == "running" and not r.is_driven(time.time()):
        return CUT_OFF
    return r.status.replace("_", " ")


def worked(r: RunSummary) -> float:
    """Return how many seconds a run was worked on, until now if it still is."""
    return r.worked + (time.time() - r.latest if status_of_run(r) == "running" else 0.0)


def summary_document(r: RunSummary) -> dict[str, object]:
    """Return a run as programs read it; times are seconds since the epoch."""
    return {
        "run_id": r.run_id,
        "name": r.name,
        "status": r.status,
        "started": r.started,
        "ended": r.ended,
        "seconds": worked(r),
        "tokens": r.tokens,
        "usd": r.cost / PICO,
    }


def _no_runs(store: str | None) -> str:
    return f"no runs yet in {store or default_store()}: agentrt run FILE starts one"


async def read_run(named: str, store: str | None) -> tuple[RunSummary, list[Event]]:
    """Return a run and its record; raises `UsageError` and `JournalError`."""
    async with opened(store) as journal:
        found = await find_run(journal, named, store)
        return found, await journal.events(found.run_id)


async def find_run(journal: Journal, named: str, store: str | None) -> RunSummary:
    """Return the run that an id, the beginning of one, or `last` means; raises `UsageError`."""
    if named == "last":
        if newest := await journal.runs(1):
            return newest[0]
        raise UsageError(_no_runs(store))
    found = [r for r in await journal.runs(ALL) if r.run_id.startswith(named)]
    exact = [r for r in found if r.run_id == named]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if not found:
        raise UsageError(f"no run {named!r}: agentrt runs lists them")
    some = ", ".join(r.run_id for r in found[:5]) + (", …" if len(found) > 5 else "")
    raise UsageError(f"{len(found)} runs begin with {named!r}: {some}")
