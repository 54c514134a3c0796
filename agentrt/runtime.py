"""The runtime: what users call to run a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, Unpack, overload

import anyio

from agentrt.function import as_node
from agentrt.group import one_error
from agentrt.node import Node
from agentrt.options import Options
from agentrt.permission import check_allow
from agentrt.result import Result
from agentrt.runs import Run
from agentrt.stream import DEFAULT_BUFFER, Feed, Stream

T = TypeVar("T")
In = TypeVar("In")


@overload
async def run(node: Node[In, T], input: In, **options: Unpack[Options]) -> Result[T]: ...
@overload
async def run(node: Callable[..., Awaitable[T]], input: object, **options: Unpack[Options]) -> Result[T]: ...
@overload
async def run(node: Callable[..., T], input: object, **options: Unpack[Options]) -> Result[T]: ...
async def run(node: Any, input: Any, **options: Unpack[Options]) -> Result[Any]:
    """Run a graph, an agent or any other node on an input, as `Options` say, and return its result.

    Raises `GraphError` before anything runs, `BudgetExceeded`, or `StepFailed` naming the step that failed first.
    Cancelling the call cancels every step.
    """
    return await _prepared(node, input, options).execute()


@overload
def run_sync(node: Node[In, T], input: In, **options: Unpack[Options]) -> Result[T]: ...
@overload
def run_sync(node: Callable[..., Awaitable[T]], input: object, **options: Unpack[Options]) -> Result[T]: ...
@overload
def run_sync(node: Callable[..., T], input: object, **options: Unpack[Options]) -> Result[T]: ...
def run_sync(node: Any, input: Any, **options: Unpack[Options]) -> Result[Any]:
    """Run as `run` does, blocking; for scripts without an event loop of their own."""

    async def main() -> Result[Any]:
        return await _prepared(node, input, options).execute()

    return anyio.run(main)


def _prepared(node: Any, input: Any, options: Options) -> Run:
    prepared = Run(as_node(node), input, options)
    check_allow(options.get("allow"), prepared.node)
    return prepared


@overload
def stream(
    node: Node[In, T], input: In, *, buffer: int = ..., **options: Unpack[Options]
) -> AbstractAsyncContextManager[Stream[T]]: ...
@overload
def stream(
    node: Callable[..., Awaitable[T]], input: object, *, buffer: int = ..., **options: Unpack[Options]
) -> AbstractAsyncContextManager[Stream[T]]: ...
@overload
def stream(
    node: Callable[..., T], input: object, *, buffer: int = ..., **options: Unpack[Options]
) -> AbstractAsyncContextManager[Stream[T]]: ...
@asynccontextmanager
async def stream(
    node: Any, input: Any, *, buffer: int = DEFAULT_BUFFER, **options: Unpack[Options]
) -> AsyncIterator[Stream[Any]]:
    """Run as `run` does, inside `async with`, yielding a `Stream` of events; leaving early cancels the run.

    A run that failed raises its error when the block is left, unless `result` was asked and has told it.
    The run never waits for whoever reads: beyond `buffer` events, or 100 characters of text for each of these,
    text is dropped first, then the oldest events, and `EventsDropped` says how many.
    """
    check_allow(options.get("allow"), as_node(node))
    async with streamed(as_node(node), input, options, buffer) as events:
        yield events


@asynccontextmanager
async def streamed(node: Node[Any, T], input: Any, options: Options, buffer: int) -> AsyncIterator[Stream[T]]:
    """Do what `stream` does, for who has checked what the run is allowed."""
    feed: Feed[Any] = Feed(buffer)
    observers = (*options.get("observers", ()), feed.put)
    started = Run(node, input, {**options, "observers": observers})
    events = Stream(feed, started.statistics)

    async def work() -> None:
        outcome: Result[Any] | Exception | None = None
        try:
            outcome = await started.execute()
        except Exception as error:  # noqa: BLE001 - handed to whoever asks for the result
            outcome = error
        finally:
            feed.finish(outcome)

    async with one_error(), anyio.create_task_group() as tasks:
        tasks.start_soon(work, name="agentrt run")
        yield events
        if not feed.closing:
            tasks.cancel_scope.cancel()
    if not events.told and isinstance(feed.outcome, Exception):
        raise feed.outcome
