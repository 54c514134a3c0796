"""Resources: what steps open once and use together, each held by a task of its own until its scope ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from agentrt.errors import AgentrtError

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
        self._is_closed = False

    async def get(self, key: Hashable, open: Callable[[], AbstractAsyncContextManager[Any]]) -> Any:
        """Return what `open()` yields, opened by whoever asks first; raises what that raises.

        What could not be opened, or has ended by an error since, is opened anew for the next who asks.
        """
        if self._is_closed:
            raise AgentrtError("the scope of this resource has ended")
        resource = self._held.get(key)
        if resource is None or resource.is_over:
            resource = self._held[key] = _Resource(open)
            self._tasks.start_soon(resource.hold, name="agentrt resource")
        return await resource.get()

    def close(self) -> None:
        """Have everything closed; the scope's task group waits for it."""
        self._is_closed = True
        for resource in self._held.values():
            resource.close()


class ResourceScope:
    """Let resources live as long as a step's work, `with` this around it."""

    __slots__ = ("_path", "_scopes")

    def __init__(self, scopes: dict[str, Resources | None], path: str) -> None:
        self._scopes = scopes
        self._path = path

    def __enter__(self) -> None:
        self._scopes[self._path] = None  # most need none

    def __exit__(self, *_: object) -> None:
        if (resources := self._scopes.pop(self._path)) is not None:
            resources.close()


def scope_around(scopes: Mapping[str, object], path: str) -> str:
    """Return the path of the innermost scope around a step, or that of the run, which is empty."""
    while path not in scopes and path:
        path = path.rpartition("/")[0]
    return path


class _Resource:
    """Be one resource, from its opening to its end."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._open = open
        self._opened = anyio.Event()
        self._unused = anyio.Event()
        self._scope = anyio.CancelScope()
        self._value: Any = None
        self._error: Exception | None = None
        self.is_over = False

    async def hold(self) -> None:
        """Open it, keep it open until nobody needs it, and close it."""
        try:
            with self._scope:
                async with self._open() as self._value:
                    self._opened.set()
                    await self._unused.wait()
        except Exception as error:  # noqa: BLE001 - told to those who wait for it; whoever holds the value sees for himself
            if self._opened.is_set():
                _logger.warning("a resource ended by an error: %s", error)
            self._error = error
        finally:
            self.is_over = True
            self._opened.set()

    async def get(self) -> Any:
        await self._opened.wait()
        if self._error is not None:
            raise self._error
        if self.is_over:
            raise AgentrtError("this resource was closed while a step was about to use it")
        return self._value

    def close(self) -> None:
        self._unused.set()
        self._scope.deadline = anyio.current_time() + (_LONGEST_CLOSE if self._opened.is_set() else 0.0)
