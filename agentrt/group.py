"""Groups of tasks: what they raise, and the one error in it that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def one_error() -> AsyncIterator[None]:
    """Raise one error of a task group as it was raised: nobody should have to catch a group.

    Where there are several, what asks the program to exit goes first, then the error of the group's own body.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = group.exceptions
        error = next((e for e in errors if not isinstance(e, Exception)), errors[0])
        raise error from error.__cause__


def errors_in(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that a group and the groups within it hold, in order; one that is no group is the only one."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from errors_in(inner)
    else:
        yield error


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[Any, Any, object]]) -> AsyncIterator[None]:
    """Let work go on while the body runs, and cancel it then; raises one error, as it was raised."""
    async with one_error(), anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        yield
        tasks.cancel_scope.cancel()
