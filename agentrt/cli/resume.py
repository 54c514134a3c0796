"""`agentrt resume`, `fork`, `replay`: recorded runs that go on, part ways, or are gone through again."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import anyio
import typer

from agentrt import continuation
from agentrt.budget import Budget
from agentrt.cli import options
from agentrt.cli.console import clean, loose_json, note, print_json
from agentrt.cli.due import go_on_with_due
from agentrt.cli.exits import UsageError, told
from agentrt.cli.models import fetch_missing
from agentrt.cli.order import Order
from agentrt.cli.output import print_output, stdout_kept
from agentrt.cli.perform import (
    Ending,
    Prepare,
    Work,
    attempt,
    execute,
    output_of,
    report,
    result_document,
    store_option,
)
from agentrt.cli.runs import find_run, opened, read_run
from agentrt.cli.source import Source, load
from agentrt.cli.tally import Tally
from agentrt.errors import JournalError, ReplayMismatch
from agentrt.events import StepStarted
from agentrt.journal import Journal, RunSummary
from agentrt.node import Node
from agentrt.options import ResumeOptions
from agentrt.result import Result, StopReason
from agentrt.runs import new_run_id
from agentrt.stores import open_store

Begin = Callable[[Node[Any, Any], Journal, ResumeOptions], Awaitable[Result[Any]]]
Load = Callable[[str], Source]


def resume(
    run: options.RunOrDue = None,
    target: options.NewTarget = None,
    model: options.ModelName = None,
    budget: options.Raised = None,
    rerun_changed: options.RerunChanged = False,
    due: options.Due = False,
    watch: options.Watch = False,
    store: options.Store = None,
    json: options.RunJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Go on with a run that was cut off, failed, ran out of budget or waited for people.

    Finished steps answer from the record and are not paid again.

    --due goes on with all runs whose questions are answered or out of time; --watch stays and does so until Ctrl-C.

    Several processes may do that at once. The exit status is the worst of all runs': 1, 2, 3 or 4, in this order.

    \b
    Examples:
      agentrt resume last
      agentrt resume 20261127-0934 --budget tokens=50k
      agentrt resume last --in changed.py:graph --rerun-changed
      agentrt resume --due
      agentrt resume --watch
    """

    def go_on(found: RunSummary, load: Load = load) -> tuple[Order, Ending]:
        order = Order(
            target=_target(found, target, f"resume {found.run_id}{store_option(store)}"),
            model=model,
            budget=budget,
            store=store,
            json=json,
            quiet=quiet,
            debug=debug,
        )

        def begin(node: Node[Any, Any], journal: Journal, how: ResumeOptions) -> Awaitable[Result[Any]]:
            return continuation.resume(
                node,
                found.run_id,
                journal=journal,
                budget=Budget.parse(budget) if budget else None,
                rerun_changed=rerun_changed,
                **how,
            )

        return order, attempt(order, _prepared(f"run {found.run_id} goes on", begin, load, worked=found.worked))

    with told(debug=debug):
        if not due and not watch:
            raise typer.Exit(report(*go_on(anyio.run(_find, run or "last", store))))
        if run or target:
            raise UsageError("--due and --watch go on with whatever is due, as it was run: leave out RUN and --in")
        loaded = cache(load)
        raise typer.Exit(go_on_with_due(lambda found: go_on(found, loaded), store, watch=watch, quiet=quiet))


def fork(
    run: options.RunId,
    at: options.At,
    input: options.OtherInput = None,
    target: options.NewTarget = None,
    model: options.ModelName = None,
    budget: options.Raised = None,
    store: options.Store = None,
    json: options.RunJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Begin a new run that shares a recorded one's past up to a step, and goes its own way from there.

    \b
    Examples:
      agentrt fork last brief/writer#2 --model openai/gpt-5
      agentrt fork last brief/planner --input '"Why did churn fall?"'
    """
    new_id = new_run_id()
    with told(debug=debug):
        found = anyio.run(_find, run, store)
        order = Order(
            target=_target(found, target, f"fork {found.run_id} {shlex.quote(at)}{store_option(store)}"),
            model=model,
            budget=budget,
            store=store,
            json=json,
            quiet=quiet,
            debug=debug,
        )

    def begin(node: Node[Any, Any], journal: Journal, how: ResumeOptions) -> Awaitable[Result[Any]]:
        replaced = {} if input is None else {"input": loose_json(input)}
        return continuation.fork(
            node,
            found.run_id,
            journal=journal,
            at=at,
            budget=Budget.parse(budget) if budget else None,
            new_id=new_id,
            **how,
            **replaced,
        )

    raise typer.Exit(execute(order, _prepared(f"run {new_id} forks {found.run_id} at {at}", begin)))


def replay(
    run: options.RunId = "last",
    target: options.NewTarget = None,
    store: options.Store = None,
    json: options.RunJson = False,
    debug: options.Debug = False,
) -> None:
    """Go through a recorded run again, offline, and compare what the code makes of it with the record.

    \b
    Examples:
      agentrt replay last
      agentrt replay last --in changed.py:graph
    """
    with told(debug=debug, json=json):
        found = anyio.run(_find, run, store)
        with stdout_kept():
            source = load(_target(found, target, f"replay {found.run_id}{store_option(store)}"))
            result = anyio.run(_replayed, source.node, found.run_id, store)
        if json:
            print_json(result_document(result))
            return
        print_output(output_of(result))
        waits = ", and it waits for people" if result.stop_reason is StopReason.WAITING else ""
        note(f"run {found.run_id}: every step came out as recorded{waits}", "green")


async def _replayed(node: Node[Any, Any], run_id: str, store: str | None) -> Result[Any]:
    from agentrt.testing.records import difference

    async with opened(store) as journal:
        try:
            return await continuation.replay(node, run_id, journal=journal)
        except ReplayMismatch as error:
            raise JournalError(difference(error)) from error


async def step_paths(named: str | None, store: str | None) -> list[str]:
    """Return the paths of a run's steps in the order they began; raises `UsageError` and `JournalError`."""
    if named is None:
        return []
    events = (await read_run(named, store))[1]
    return list(dict.fromkeys(e.path for e in events if isinstance(e, StepStarted)))


def _prepared(opening: str, begin: Begin, load: Load = load, *, worked: float = 0.0) -> Prepare:
    def prepare(order: Order, tally: Tally) -> Work:
        tally.worked = worked
        source = load(order.target)
        how: ResumeOptions = {"target": source.address}
        if order.model:
            fetch_missing(source, order.model)
            how["model"] = order.model
        journal = open_store(order.store)
        return Work(
            clean(opening), journal, lambda observers: begin(source.node, journal, {**how, "observers": observers})
        )

    return prepare


async def _find(named: str, store: str | None) -> RunSummary:
    async with opened(store) as journal:
        return await find_run(journal, named, store)


def _target(found: RunSummary, chosen: str | None, typed: str) -> str:
    """Return where a run's graph is; raises `UsageError`, with what was typed and what to add."""
    target = chosen or found.target
    if target is None:
        raise UsageError(
            f"run {found.run_id} was not started by the shell: say where its graph is, agentrt {typed} --in FILE:NAME"
        )
    return target
