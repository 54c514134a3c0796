"""How the shell carries out a run, from its first step or from where it stopped: display, output, summary, status."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import anyio

from agentrt.cli.console import dollars, note, plural, print_json, seconds, tokens_of
from agentrt.cli.exits import ExitStatus, error_document, status_of, tell
from agentrt.cli.order import Order
from agentrt.cli.output import print_output, stdout_kept, usage_document
from agentrt.cli.progress import Progress, keep_ticking, shown
from agentrt.cli.tally import Tally
from agentrt.errors import BudgetExceeded, RunTaken
from agentrt.events import Event, RunFailed, RunParked, RunResumed, RunStarted
from agentrt.group import beside
from agentrt.journal import Journal
from agentrt.options import Observer
from agentrt.result import Result, StopReason

_TRACE_VARIABLES = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("TRACES_", "", "METRICS_"))


@dataclass(frozen=True, slots=True)
class Work:
    """Hold what is to be carried out: a line that says so, the journal that is closed after it, and the run itself."""

    opening: str
    journal: Journal | None
    begin: Callable[[Sequence[Observer]], Awaitable[Result[Any]]]


Prepare: TypeAlias = Callable[[Order, Tally], Work]


@dataclass(frozen=True, slots=True)
class Ending:
    """Hold how a run that was carried out ended: with a result or a failure. What never began has no run id."""

    tally: Tally
    result: Result[Any] | None
    failure: Exception | KeyboardInterrupt | None

    @property
    def is_taken(self) -> bool:
        """Say whether it did not begin because somebody else goes on with the run."""
        return isinstance(self.failure, RunTaken) and self.tally.run_id is None


def execute(order: Order, prepare: Prepare) -> ExitStatus:
    """Carry out what was ordered, print how it went, and return the exit status."""
    return report(order, attempt(order, prepare))


def attempt(order: Order, prepare: Prepare) -> Ending:
    """Carry out what was ordered, and show its progress."""
    tally = Tally({})
    result: Result[Any] | None = None
    failure: Exception | KeyboardInterrupt | None = None
    with stdout_kept():
        try:
            result = _attempt(order, prepare, tally)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error becomes one line; --debug shows the rest
            failure = error
    return Ending(tally, result, failure)


def report(order: Order, ending: Ending) -> ExitStatus:
    """Print how a run went, and return the exit status."""
    tally, result, failure = ending.tally, ending.result, ending.failure
    if order.json:
        print_json(_document(tally, result, failure))
    elif result is not None:
        print_output(output_of(result))
    summarised = tally.run_id is not None and not order.quiet and not order.json
    if failure is not None and not (summarised and isinstance(failure, KeyboardInterrupt)):
        tell(failure, debug=order.debug)
    if summarised:
        _print_summary(order, tally, result, failure)
    elif result is not None and not order.quiet and not order.json:
        note(f"run {result.run_id} was done before: agentrt show {result.run_id}{store_option(order.store)}", "green")
    if result is not None:
        return _status(result)
    assert failure is not None
    return status_of(failure)


def output_of(result: Result[Any]) -> Any:
    """Return what a run has come to: its output, the `Partial` there is, or nothing while it waits."""
    if _is_waiting(result):
        return None
    return result.partial if _is_partial(result) else result.output


def result_document(result: Result[Any]) -> dict[str, object]:
    """Return a result as programs read it."""
    document: dict[str, object] = {
        "run_id": result.run_id,
        "stop_reason": result.stop_reason,
        "output": None if _is_partial(result) else output_of(result),
        "usage": usage_document(result.usage),
    }
    return document if result.partial is None else {**document, "partial": result.partial}


def _status(result: Result[Any]) -> ExitStatus:
    if _is_waiting(result):
        return ExitStatus.WAITING
    return ExitStatus.BUDGET_EXCEEDED if _is_partial(result) else ExitStatus.DONE


def _is_waiting(result: Result[Any]) -> bool:
    return result.stop_reason is StopReason.WAITING


def _is_partial(result: Result[Any]) -> bool:
    return result.stop_reason is StopReason.PARTIAL


def _attempt(order: Order, prepare: Prepare, tally: Tally) -> Result[Any]:
    work = prepare(order, tally)

    with traced(quiet=order.quiet), shown(tally, quiet=order.quiet) as progress:

        def open_(event: Event) -> None:
            if isinstance(event, RunStarted | RunResumed) and not order.json:
                progress.say(work.opening)

        return anyio.run(_run, work, (tally, open_, progress), progress)


async def _run(work: Work, observers: Sequence[Observer], progress: Progress) -> Result[Any]:
    """Run it, recorded and displayed; what it raises leaves unwrapped."""
    try:
        async with beside(partial(keep_ticking, progress)):
            return await work.begin(observers)
    finally:
        if work.journal is not None:
            with anyio.CancelScope(shield=True):
                await work.journal.aclose()


@contextmanager
def traced(*, quiet: bool) -> Iterator[None]:
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


def _print_summary(order: Order, tally: Tally, result: Result[Any] | None, failure: BaseException | None) -> None:
    """Say on stderr how the run ended, what it took and how to look at it."""
    usage = tally.usage
    stopped = _stop_reason(tally, failure)
    facts = [
        f"run {tally.run_id}",
        stopped.replace("_", " "),
        plural(usage.steps or tally.done, "step"),
        *([f"{tally.retries:,} retried"] if tally.retries else []),
        tokens_of(usage.tokens, usage.uncertain),
        dollars(usage.cost),
        seconds(tally.worked + tally.elapsed(0)),
    ]
    note(" · ".join(facts), "green" if stopped == StopReason.DONE else "yellow")
    store = store_option(order.store)
    if result is not None and _is_waiting(result):
        note(f"what it asks: agentrt inbox {tally.run_id}{store}; once answered: agentrt resume {tally.run_id}{store}")
    elif order.record and stopped != StopReason.CANCELLED:
        note(f"its steps: agentrt show {tally.run_id}{store}")


def store_option(store: str | None) -> str:
    """Return the option that names the store again, where a command to type needs it."""
    return f" --store {store}" if store and store != os.environ.get("AGENTRT_STORE") else ""


def _stop_reason(tally: Tally, failure: BaseException | None) -> str:
    if isinstance(failure, KeyboardInterrupt):
        return StopReason.CANCELLED
    if isinstance(failure, BudgetExceeded):
        return StopReason.BUDGET_EXCEEDED
    if failure is not None:  # a broken journal cancels the run, but nobody asked for that
        return StopReason.FAILED
    if isinstance(tally.closing, RunParked):
        return StopReason.WAITING
    return getattr(tally.closing, "stop_reason", StopReason.DONE)


def _document(tally: Tally, result: Result[Any] | None, failure: BaseException | None) -> dict[str, object]:
    """Return what --json prints."""
    document: dict[str, object] = {
        "run_id": tally.run_id,
        "stop_reason": _stop_reason(tally, failure),
        "output": None if result is None or _is_partial(result) or _is_waiting(result) else result.output,
        "usage": usage_document(tally.usage),
    }
    partial = getattr(failure, "partial", None) if result is None else result.partial
    if partial is not None:
        document["partial"] = partial
    if failure is not None:
        document["error"] = _error_document(tally, failure)
    return document


def _error_document(tally: Tally, failure: BaseException) -> dict[str, str | None]:
    document = error_document(failure)
    return {**document, "path": tally.closing.path} if isinstance(tally.closing, RunFailed) else document
