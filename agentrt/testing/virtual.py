"""Virtual time: waiting costs a test nothing, and takes exactly as long as it says."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, TypeVarTuple, Unpack

import anyio

if TYPE_CHECKING:
    from agentrt.testing.loop import VirtualLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Backend: TypeAlias = tuple[str, dict[str, Any]]


def run_virtual(
    function: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: *Ts,
    seed: int | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
) -> T:
    """Run an async function as `anyio.run` does, in virtual time, and return what it returns.

    Whenever everything waits, time jumps to the next timer: sleeps, deadlines, `seconds` of budgets, back-off and
    waits of limits take no real time, and events are stamped accordingly. Time waits for threads and open sockets.
    With a `seed` tasks that are ready are served in a random order, the same for the same seed (asyncio only).
    """
    name, options = virtual_backend(seed, backend)
    return anyio.run(function, *args, backend=name, backend_options=options)


def virtual_backend(seed: int | None = None, backend: Literal["asyncio", "trio"] = "asyncio") -> Backend:
    """Return what makes anyio run in virtual time: what an `anyio_backend` fixture may return."""
    if backend == "asyncio":
        return "asyncio", {"loop_factory": partial(virtual_loop, seed)}
    if seed is not None:
        raise ValueError("seed= needs the asyncio backend: trio shuffles by itself, and not by a seed")
    trio_testing = importlib.import_module("trio.testing")
    return "trio", {"clock": trio_testing.MockClock(autojump_threshold=0)}


def virtual_loop(seed: int | None = None) -> VirtualLoop:
    """Build an asyncio event loop in virtual time, for whatever takes a loop factory."""
    from agentrt.testing.loop import VirtualLoop

    return VirtualLoop(seed)
