"""`agentrt resume --due` and `--watch`: runs that waited for people go on, without anybody naming them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeAlias

import anyio

from agentrt.cli.console import clean, note
from agentrt.cli.exits import ExitStatus
from agentrt.cli.order import Order
from agentrt.cli.perform import Ending, report, store_option
from agentrt.cli.runs import opened
from agentrt.clock import event_clock
from agentrt.journal import Journal, RunSummary
from agentrt.people import due_runs

EVERY: Final = 2.0
"""Seconds between two looks into the store."""
GoOn: TypeAlias = Callable[[RunSummary], tuple[Order, Ending]]


def go_on_with_due(go_on: GoOn, store: str | None, *, watch: bool, quiet: bool) -> ExitStatus:
    """Go on with the runs that are due, once or until interrupted, and return the worst exit status.

    A run that fails is left out from then on, and so is one that the shell does not know how to go on with.
    """
    try:
        if watch and not quiet:
            note("going on with runs as they are answered, until Ctrl-C")
        return _go_on(go_on, store, watch=watch, quiet=quiet)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


def _go_on(go_on: GoOn, store: str | None, *, watch: bool, quiet: bool) -> ExitStatus:
    left_out, worst = set[str](), ExitStatus.DONE
    while (run := anyio.run(_find, store, left_out, watch)) is not None:
        status = _go_on_with(run, go_on, store)
        if status is ExitStatus.INTERRUPTED:
            return status
        if not watch or status in (None, ExitStatus.FAILED, ExitStatus.USAGE):
            left_out.add(run.run_id)
        worst = worse_of(worst, status or ExitStatus.DONE)
    if not left_out and not quiet:
        note("no run is due")
    return worst


def worse_of(one: ExitStatus, other: ExitStatus) -> ExitStatus:
    """Return the worse of two exit statuses: of those that are not `DONE` the lower."""
    return min(one, other) or max(one, other)


def _go_on_with(run: RunSummary, go_on: GoOn, store: str | None) -> ExitStatus | None:
    """Go on with one run; return its exit status, None if the shell cannot."""
    if run.target is None:
        how = f"go on with it from Python, or: agentrt resume {run.run_id}{store_option(store)} --in FILE:NAME"
        note(clean(f"run {run.run_id} was not started by the shell; {how}"), "yellow")
        return None
    order, ending = go_on(run)
    return ExitStatus.DONE if ending.is_taken else report(order, ending)


async def _find(store: str | None, left_out: Collection[str], watch: bool) -> RunSummary | None:
    async with opened(store) as journal:
        return await next_due(journal, left_out, watch=watch)


async def next_due(journal: Journal, left_out: Collection[str], *, watch: bool) -> RunSummary | None:
    """Return the first of the runs that are due and nobody drives, but for some; with `watch` wait until there is one.

    One at a time: meanwhile somebody else may have gone on with the others.
    """
    clock = event_clock()
    while True:
        now = clock()
        for run in await due_runs(journal, now):
            if run.run_id not in left_out and not run.is_driven(now):
                return run
        if not watch:
            return None
        await anyio.sleep(EVERY)
