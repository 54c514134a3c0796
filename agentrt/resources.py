"""Resources: what steps open once and use together, each held by a task of its own until its scope ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import TaskGroup

from agentrt.cancellation import is_stray
from agentrt.errors import AgentrtError

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
Wait: TypeAlias = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]

_logger = logging.getLogger("agentrt")
_LONGEST_CLOSE: Final = 10.0
"""How many seconds a resource may take to close when its scope ends; then it is cancelled."""


class Resources:
    """Hold the resources of one scope, by key.

    A task enters and leaves each, since what it opens may have cancel scopes of its own, and since a server that dies
    may cancel whoever opened it: that must not be the step which happened to come first.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._held: dict[Hashable, _Resource] = {}
        self.is_closed = False

    async def get(self, key: Hashable, open: Open, wait: Wait) -> Any:
        """Return what `open()` yields, opened by whoever asks first and awaited by `wait`; raises what that raises.

        What could not be opened, or has ended by an error since, is opened anew for the next who asks.
        """
        if self.is_closed:
            raise AgentrtError("the scope of this resource has ended")
        resource = self._held.get(key)
        if resource is None or resource.is_over:
            self._held.pop(key, None)  # what was opened last is closed first
            resource = self._held[key] = _Resource(open)
            self._tasks.start_soon(resource.hold, name="agentrt resource")
        return await resource.get(wait)

    def close(self) -> None:
        """Open no more; `aclose` closes what there is."""
        self.is_closed = True

    async def aclose(self) -> None:
        """Close everything, what was opened last first: it may stand on what was opened before."""
        self.close()
        with anyio.CancelScope(shield=True):
            for resource in reversed(list(self._held.values())):
                await resource.aclose()


class _Resource:
    """Be one resource, from its opening to its end."""

    def __init__(self, open: Open) -> None:
        self._open = open
        self._opened = anyio.Event()
        self._unused = anyio.Event()
        self._ended = anyio.Event()
        self._scope = anyio.CancelScope()
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return self._ended.is_set()

    async def hold(self) -> None:
        """Open it, keep it open until nobody needs it, and close it."""
        try:
            with self._scope:
                async with self._open() as self._value:
                    self._opened.set()
                    await self._unused.wait()
        except BaseException as error:
            self._error = error if isinstance(error, Exception) else _cancelled(error)
            if not isinstance(error, Exception) and not is_stray(error):
                raise
            if self._opened.is_set():  # whoever waits for the opening is told; whoever holds the value sees for himself
                _logger.warning("a resource ended by an error: %s", error)
        finally:
            self._ended.set()
            self._opened.set()

    async def get(self, wait: Wait) -> Any:
        if not self._opened.is_set():
            await wait(self._opened.wait)
        if self._error is not None:
            raise self._error
        if self.is_over:
            raise _cancelled(None)
        return self._value

    async def aclose(self) -> None:
        self._unused.set()
        self._scope.deadline = anyio.current_time() + (_LONGEST_CLOSE if self._opened.is_set() else 0.0)
        await self._ended.wait()


def _cancelled(error: BaseException | None) -> AgentrtError:
    cancelled = AgentrtError("this resource was closed, or its opening cancelled, while a step was about to use it")
    cancelled.__cause__ = error
    return cancelled
