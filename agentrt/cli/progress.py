"""Progress of a run on stderr: live on a terminal, an occasional line in a pipe, nothing where it is not wanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Final, Protocol

import anyio
from rich.console import Console, Group
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from agentrt.cli.console import clean, console, dollars, note, on_terminal, plural, seconds
from agentrt.cli.tally import Tally
from agentrt.events import Emitted, Event

_FRAMES_A_SECOND: Final = 8
_LINE_EVERY: Final = 5.0
_MOST_NODES: Final = 8


class Progress(Protocol):
    """Show a run: `tick` is called `interval` seconds apart, `say` shows a line, an observer gets every event."""

    interval: float

    def __call__(self, event: Event) -> None: ...

    def say(self, text: str) -> None: ...

    def tick(self) -> None: ...


async def keep_ticking(progress: Progress) -> None:
    """Draw again and again until cancelled."""
    while True:
        await anyio.sleep(progress.interval)
        progress.tick()


@contextmanager
def shown(tally: Tally, *, quiet: bool) -> Iterator[Progress]:
    """Show progress in the way that fits stderr while the body runs."""
    if quiet:
        yield Silence()
    elif on_terminal(sys.stderr):
        with LiveDisplay(tally, console(sys.stderr)) as display:
            yield display
    else:
        yield Lines(tally)


class Silence:
    """Show nothing."""

    interval = 3600.0

    def __call__(self, event: Event) -> None:
        """Take no notice."""

    def say(self, text: str) -> None:
        """Keep it to itself."""

    def tick(self) -> None:
        """Draw nothing."""


class Lines:
    """Write a line when the user's code says something, and every few seconds how far the run is."""

    interval = _LINE_EVERY

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __call__(self, event: Event) -> None:
        if isinstance(event, Emitted) and isinstance(event.value, str):
            sys.stderr.write(clean(event.value) + "\n")

    def say(self, text: str) -> None:
        note(text)

    def tick(self) -> None:
        sys.stderr.write(f"{_counts(self._tally)} · running: {_running(self._tally)}\n")
        sys.stderr.flush()


class Above(FileProxy):
    """Write lines above the live display. It is no terminal, so that nobody draws a progress bar into the picture."""

    def isatty(self) -> bool:
        return False


class LiveDisplay:
    """Draw the nodes that run, what they have done and spent, and a bar for each limit."""

    interval = 1 / _FRAMES_A_SECOND

    def __init__(self, tally: Tally, out: Console) -> None:
        self._tally = tally
        self._spinner = Spinner("dots")
        # Drawn by `tick` in the event loop: a thread of rich's own would read the tally while it changes.
        self._live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._redirected = ExitStack()

    def __enter__(self) -> LiveDisplay:
        above = Above(self._live.console, sys.stderr)
        self._redirected.enter_context(redirect_stdout(above))
        self._redirected.enter_context(redirect_stderr(above))
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        self._redirected.close()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Emitted) and isinstance(event.value, str):
            self._live.console.print(Text(clean(event.value)))

    def say(self, text: str) -> None:
        self._live.console.print(Text(text, style="dim"), soft_wrap=True)

    def tick(self) -> None:
        self._live.update(self.picture(), refresh=True)

    def picture(self) -> Group:
        """Return what is drawn now."""
        self._spinner.update(text=Text.assemble((_running(self._tally), "bold")))
        counts = Text("  " + _counts(self._tally), style="dim")
        return Group(self._spinner, counts, *([_bars(self._tally)] if self._tally.limits else []))


def _running(tally: Tally) -> str:
    counts = tally.running()
    names = [f"{name} ×{n}" if n > 1 else name for name, n in counts.items()]
    if len(names) > _MOST_NODES:
        names[_MOST_NODES - 1 :] = [f"{len(names) - _MOST_NODES + 1} more"]
    return clean("  ".join(names)) or tally.name or "starting"


def _counts(tally: Tally) -> str:
    now = time.time()
    waiting = tally.retrying(now)
    parts = [
        plural(tally.done, "step"),
        f"{tally.failed:,} failed" if tally.failed else "",
        f"{tally.retries:,} retried" + (f", {waiting:,} about to be" if waiting else "") if tally.retries else "",
        f"{seconds(tally.held_back)} held back by rate limits" if tally.held_back else "",
        f"{tally.cached:,} from the cache" if tally.cached else "",
        plural(tally.usage.tokens, "token") if tally.usage.tokens else "",
        dollars(tally.usage.cost) if tally.usage.cost else "",
        seconds(tally.elapsed(now)),
    ]
    return " · ".join(filter(None, parts))


def _bars(tally: Tally) -> Table:
    table = Table.grid(padding=(0, 1))
    for name, spent in tally.spent(time.time()).items():
        limit = tally.limits[name]
        full = spent >= 0.9 * limit
        bar = ProgressBar(
            total=limit or 1, completed=min(spent, limit), width=24, complete_style="red" if full else "green"
        )
        table.add_row(
            Text(f"  {name}", style="dim"), bar, Text(f"{_amount(name, spent)} of {_amount(name, limit)}", "dim")
        )
    return table


def _amount(name: str, value: float) -> str:
    if name == "usd":
        return f"${value:.4g}"
    return f"{value:.0f} s" if name == "seconds" else f"{value:,.0f}"
