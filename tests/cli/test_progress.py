"""What progress looks like."""

import io
import sys
import time

import anyio
import pytest
from rich.console import Console

from agentrt.cli.progress import Lines, LiveDisplay, Silence, keep_ticking, shown
from agentrt.cli.tally import Tally
from agentrt.events import CacheHit, Emitted, ErrorInfo, RateLimitWaited, RunStarted, StepRetried, StepStarted


class Terminal(io.StringIO):
    """Take what is drawn, as a terminal does."""

    def isatty(self) -> bool:
        return True


def tally(**limits: float) -> Tally:
    counted = Tally(limits)
    counted(RunStarted(run_id="r", at=1.0, name="g", input=None, limits={}))
    for i in range(7):
        counted(StepStarted(path=f"g/researcher[{i}]", at=1.0, name="researcher", kind="agent", input=None))
    return counted


def drawn(display: LiveDisplay, out: io.StringIO) -> str:
    Console(file=out, width=80).print(display.picture())
    return out.getvalue()


def test_picture_names_what_runs_and_each_limit() -> None:
    """The live display groups the nodes that run and has a bar for each limit."""
    out = io.StringIO()
    display = LiveDisplay(tally(tokens=20_000, usd=0.5), Console(file=io.StringIO()))
    text = drawn(display, out)
    assert "researcher ×7" in text
    assert "tokens" in text
    assert "0 of 20,000" in text
    assert "$0 of $0.5" in text


def test_many_nodes_are_cut() -> None:
    """More nodes than fit a line are counted."""
    counted = tally()
    for i in range(20):
        counted(StepStarted(path=f"g/n{i}", at=1.0, name=f"n{i}", kind="node", input=None))
    assert "14 more" in drawn(LiveDisplay(counted, Console(file=io.StringIO())), io.StringIO())


def test_emitted_text_is_a_line_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """Text that code publishes is shown without control characters; other values are not shown."""
    lines = Lines(tally())
    lines(Emitted(path="g", at=1.0, value="red \x1b[31malert\x07"))
    lines(Emitted(path="g", at=1.0, value={"not": "text"}))
    assert capsys.readouterr().err == "red [31malert\n"


def test_plain_line_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a tick is one line."""
    Lines(tally()).tick()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("0 steps · ")
    assert line.endswith("running: researcher ×7")


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet shows nothing at all."""
    with shown(tally(), quiet=True) as progress:
        assert isinstance(progress, Silence)
        progress.say("run r begins")
        progress.tick()
    assert capsys.readouterr().err == ""


def test_retries_and_waits_are_visible(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says how often steps were tried again, what waits to be, and what rate limits cost."""
    counted = tally()
    for i, delay in enumerate((0.0, 1000.0)):
        error = ErrorInfo("RateLimited", "slow")
        counted(StepRetried(path=f"g/researcher[{i}]", at=time.time(), attempt=1, error=error, delay=delay))
    counted(RateLimitWaited(path="g/researcher[2]/chat", at=1.0, seconds=3.25))
    counted(CacheHit(path="g/researcher[3]/chat", at=1.0, model="m"))
    Lines(counted).tick()
    line = capsys.readouterr().err
    assert "2 retried, 1 about to be · 3.2 s held back by rate limits · 1 from the cache" in line


def test_on_a_terminal_it_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """What code says and prints stands above the picture, harmless; afterwards the streams are as they were."""
    terminal, out = Terminal(), sys.stdout
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown(tally(tokens=100), quiet=False) as progress:
        progress(Emitted(path="g", at=1.0, value="red \x1b]0;alert\x07"))
        progress(Emitted(path="g", at=1.0, value={"not": "text"}))
        progress.say("run r begins")
        print("printed by a tool")
        assert not sys.stdout.isatty(), "nobody else should draw here"
        progress.tick()
    drawn = terminal.getvalue()
    assert "red ]0;alert\n" in drawn
    assert "run r begins" in drawn
    assert "printed by a tool\n" in drawn
    assert "not" not in drawn
    assert drawn.index("printed by a tool") < drawn.index("researcher ×7")
    assert (sys.stdout, sys.stderr) == (out, terminal)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_elsewhere_it_is_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    """In a pipe, and on a terminal that cannot move its cursor."""
    monkeypatch.setattr(sys, "stderr", Terminal() if term == "dumb" else io.StringIO())
    monkeypatch.setenv("TERM", term)
    with shown(tally(), quiet=False) as progress:
        assert isinstance(progress, Lines)


@pytest.mark.anyio
async def test_it_is_drawn_at_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """Every five seconds a line, until the run has ended."""
    with anyio.move_on_after(12):
        await keep_ticking(Lines(tally()))
    assert len(capsys.readouterr().err.splitlines()) == 2
