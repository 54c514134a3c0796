"""Progress of work that is counted: live on a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio

from agentrt.cli.console import console, note, on_terminal
from agentrt.group import beside

_FRAMES_A_SECOND: Final = 8
_LINE_EVERY: Final = 5.0


@asynccontextmanager
async def counted(describe: Callable[[], str], *, quiet: bool) -> AsyncIterator[None]:
    """Show on stderr what `describe` says, again and again, while the body runs."""
    if quiet:
        yield
        return
    async with beside(partial(_draw if on_terminal(sys.stderr) else _write, describe)):
        yield


async def _draw(describe: Callable[[], str]) -> None:
    with console(sys.stderr).status(describe()) as status:
        while True:
            await anyio.sleep(1 / _FRAMES_A_SECOND)
            status.update(describe())


async def _write(describe: Callable[[], str]) -> None:
    while True:
        await anyio.sleep(_LINE_EVERY)
        note(describe())
