"""`agentrt run`: run a graph from a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import typer
from typer.core import TyperCommand

from agentrt.cli import options
from agentrt.cli.console import clean, dollars, note, plural, print_json, seconds
from agentrt.cli.dryrun import bounds_of_run, foretell
from agentrt.cli.exits import ExitStatus, UsageError, describe, status_of, tell, told
from agentrt.cli.inputs import entry, fields, type_name
from agentrt.cli.models import fetch_missing
from agentrt.cli.order import Order
from agentrt.cli.output import print_output, stdout_kept, usage_document
from agentrt.cli.progress import Progress, keep_ticking, shown
from agentrt.cli.source import Source, load
from agentrt.cli.tally import Tally
from agentrt.errors import BudgetExceeded, JournalError, StepFailed
from agentrt.events import RunFailed
from agentrt.journal import Journal
from agentrt.runtime import Options, Result, StopReason, new_run_id
from agentrt.runtime import run as run_node
from agentrt.scheduler import DEFAULT_CONCURRENCY
from agentrt.stores import open_store

_TRACE_VARIABLES = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("TRACES_", "", "METRICS_"))


class RunCommand(TyperCommand):
    """Say the usage of `agentrt run` as it is typed: what follows FILE is told apart by the input's type."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["FILE[:NAME]", "[INPUT]", "[--FIELD VALUE]...", "[OPTIONS]"]


def run(
    context: typer.Context,
    target: options.Target = None,
    words: options.Words = None,
    model: options.ModelName = None,
    budget: options.Limits = None,
    store: options.Store = None,
    no_store: options.NoStore = False,
    json: options.RunJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    concurrency: options.Concurrency = DEFAULT_CONCURRENCY,
    dry_run: options.DryRun = False,
    widths: options.Widths = None,
    help: options.RunHelp = False,
) -> None:
    """Run a graph, an agent or a function from a Python file.

    The output goes to stdout; progress, and whatever the file prints, to stderr.

    \b
    Examples:
      agentrt run examples/handbook.py
      agentrt run examples/handbook.py "What do 9 nights at the Zura Inn cost?"
      agentrt run brief.py:graph "Why?" --budget usd=0.5,seconds=120
      agentrt run brief.py:graph "Why?" --budget tokens=20k,on_exhausted=partial
      agentrt run brief.py --model ollama/llama3.2 --json - < question.txt
      agentrt run brief.py "Why?" --budget usd=0.5 --dry-run
      agentrt run brief.py --help

    \b
    Exit status:
      0  done, or wrapped up       3    a budget was exceeded or is too small, or the result is partial
      1  the run failed            130  interrupted
      2  wrong usage, or a graph that cannot be what it says
    """
    if target is None or help:
        raise typer.Exit(_help(context, target))
    order = Order(
        target=target,
        arguments=list(words or ()),
        model=model or None,
        budget=budget,
        store=store,
        record=not no_store,
        json=json,
        quiet=quiet,
        debug=debug,
        concurrency=concurrency,
        dry_run=dry_run,
        widths=widths,
    )
    raise typer.Exit(foretell(order) if dry_run else execute(order))


def _help(context: typer.Context, target: str | None) -> ExitStatus:
    if target is None:
        typer.echo(context.get_help())
        return ExitStatus.DONE if context.params["help"] else ExitStatus.USAGE
    with told():
        with stdout_kept():
            source = load(target)
        typer.echo("\n".join(_described(source)))
    return ExitStatus.DONE


def _described(source: Source) -> Iterator[str]:
    """Say what a file's graph takes, line by line."""
    known = fields(source.node)
    yield f"Usage: agentrt run {source.label} [INPUT] {'[--FIELD VALUE]... ' if known else ''}[OPTIONS]\n"
    about = f": {source.node.description}" if source.node.description else ""
    yield f"{source.label} is the {source.node.kind} {source.node.name!r}{about}"
    yield (
        "Its input has fields; INPUT is the first of them, or a JSON object of all:"
        if known
        else (f"Its input: {type_name(entry(source.node).input)}")
    )
    width = max((len(f"{f.option} {f.type_name}") for f in known), default=0)
    for f in known:
        default = "(required)" if f.default is None else f"(default: {f.default})"
        yield "  " + "  ".join(filter(None, [f"{f.option} {f.type_name}".ljust(width), f.description, default]))
    yield "\nagentrt run --help lists the options."


def execute(order: Order) -> ExitStatus:
    """Run what was ordered, print how it went, and return the exit status."""
    tally = Tally({})
    result: Result[Any] | None = None
    failure: Exception | KeyboardInterrupt | None = None
    with stdout_kept():
        try:
            result = _attempt(order, tally)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error becomes one line; --debug shows the rest
            failure = error
    if order.json:
        print_json(_document(tally, result, failure))
    elif result is not None:
        print_output(result.partial if _is_partial(result) else result.output)
    summarised = tally.run_id is not None and not order.quiet and not order.json
    if failure is not None and not (summarised and isinstance(failure, KeyboardInterrupt)):
        tell(failure, debug=order.debug)
    if summarised:
        _print_summary(order, tally, failure)
    if result is not None:
        return ExitStatus.BUDGET_EXCEEDED if _is_partial(result) else ExitStatus.DONE
    assert failure is not None
    return status_of(failure)


def _is_partial(result: Result[Any]) -> bool:
    return result.stop_reason is StopReason.PARTIAL


def _attempt(order: Order, tally: Tally) -> Result[Any]:
    source, value, budget = order.read()
    node = source.node
    if budget is not None:
        bounds_of_run(order, source, value, budget).check()
    for limits in (node.budget, budget):
        for name, limit in (limits.limits() if limits else {}).items():
            tally.limits[name] = min(limit, tally.limits.get(name, limit))
    fetch_missing(source, order.model)
    how: Options = {
        "budget": budget,
        "model": order.model,
        "concurrency": order.concurrency,
        "run_id": new_run_id(),
        "journal": _journal(order),
    }
    if not order.quiet and not order.json:
        note(_opening(order, node.name, how))
    with _traced(quiet=order.quiet), shown(tally, quiet=order.quiet) as progress:
        how["observers"] = (tally, progress)
        return anyio.run(_run, node, value, how, progress)


def _journal(order: Order) -> Journal | None:
    try:
        return open_store(order.store) if order.record else None
    except JournalError as error:
        raise UsageError(f"{error} (--no-store records nothing)") from error


async def _run(node: Any, value: Any, how: Options, progress: Progress) -> Result[Any]:
    """Run the node, recorded and displayed; what it raises leaves unwrapped."""
    journal = how.get("journal")
    failure: Exception | None = None
    result: Result[Any] | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_ticking, progress)
            try:
                result = await run_node(node, value, **how)
            except Exception as error:  # noqa: BLE001 - raised below, outside the task group that would wrap it
                failure = error
            tasks.cancel_scope.cancel()
    finally:
        if journal is not None:
            with anyio.CancelScope(shield=True):
                await journal.aclose()
    if result is None:
        assert failure is not None
        raise failure
    return result


@contextmanager
def _traced(*, quiet: bool) -> Iterator[None]:
    """Send traces and metrics where the environment says, and say where; without it there are none."""
    endpoint = next((os.environ[v] for v in _TRACE_VARIABLES if os.environ.get(v)), None)
    if endpoint is None:
        yield
        return
    from agentrt.tracing import configure

    tracing = configure()
    try:
        yield
    finally:
        tracing.shutdown()
        if tracing.dropped:
            note(
                f"{plural(tracing.dropped, 'span')} of the trace lost: does a collector listen at {endpoint}?", "yellow"
            )
        elif tracing.signal and not quiet:
            note(f"{tracing.signal} sent to {endpoint}")


def _opening(order: Order, name: str, how: Options) -> str:
    model = f" · model {order.model}" if order.model else ""
    budget = f" · budget {order.budget}" if order.budget else ""
    record = "" if order.record else " · not recorded"
    return clean(f"run {how.get('run_id')} · {name}{model}{budget}{record}")


def _print_summary(order: Order, tally: Tally, failure: BaseException | None) -> None:
    """Say on stderr how the run ended, what it took and how to look at it."""
    usage = tally.usage
    stopped = _stop_reason(tally, failure)
    facts = [
        f"run {tally.run_id}",
        stopped.replace("_", " "),
        plural(usage.steps or tally.done, "step"),
        *([f"{tally.retries:,} retried"] if tally.retries else []),
        plural(usage.tokens, "token"),
        dollars(usage.cost),
        seconds(tally.elapsed(0)),
    ]
    note(" · ".join(facts), "green" if stopped == StopReason.DONE else "yellow")
    if order.record and stopped != StopReason.CANCELLED:
        store = f" --store {order.store}" if order.store and order.store != os.environ.get("AGENTRT_STORE") else ""
        note(f"its steps: agentrt show {tally.run_id}{store}")


def _stop_reason(tally: Tally, failure: BaseException | None) -> str:
    if isinstance(failure, KeyboardInterrupt):
        return StopReason.CANCELLED
    if isinstance(failure, BudgetExceeded):
        return StopReason.BUDGET_EXCEEDED
    if failure is not None:  # a broken journal cancels the run, but nobody asked for that
        return StopReason.FAILED
    return getattr(tally.closing, "stop_reason", StopReason.DONE)


def _document(tally: Tally, result: Result[Any] | None, failure: BaseException | None) -> dict[str, object]:
    """Return what --json prints."""
    document: dict[str, object] = {
        "run_id": tally.run_id,
        "stop_reason": _stop_reason(tally, failure),
        "output": None if result is None or _is_partial(result) else result.output,
        "usage": usage_document(tally.usage),
    }
    partial = getattr(failure, "partial", None) if result is None else result.partial
    if partial is not None:
        document["partial"] = partial
    if failure is not None:
        document["error"] = _error_document(tally, failure)
    return document


def _error_document(tally: Tally, failure: BaseException) -> dict[str, str | None]:
    cause = failure.cause if isinstance(failure, StepFailed) else failure
    path = failure.path if isinstance(failure, StepFailed | BudgetExceeded) else None
    if isinstance(tally.closing, RunFailed):
        path = tally.closing.path
    return {"type": type(cause).__name__, "message": str(cause) or describe(failure), "path": path}
