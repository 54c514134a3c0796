"""`agentrt resume --due` and `--watch`: runs go on once they are answered."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import agentrt.cli.due
from agentrt import Context, run
from agentrt.cli.due import EVERY, next_due, worse_of
from agentrt.cli.exits import ExitStatus
from agentrt.cli.source import load
from agentrt.clock import event_clock
from agentrt.journal import Journal, RunSummary
from agentrt.people import answer, due_runs
from agentrt.stores import MemoryJournal, open_store
from tests.cli.conftest import Shell, Write

FILE = """
import anyio, signal

async def trip(name: str, ctx: Context) -> str:
    nights = await ctx.ask("How many nights?", int)
    if nights < 0:
        raise ValueError("never")
    if nights == 0:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()
    return f"{nights} nights in {name}"
"""
MEANWHILE = """
import threading
import anyio
from agentrt.events import RunCancelled
from agentrt.stores import open_store
from agentrt.usage import Usage

asked = []

def meanwhile(name):
    asked.append(name)
    if asked[2:] == ["Rome"]:  # the third time, after both have begun
        thread = threading.Thread(target=anyio.run, args=(cancel,))
        thread.start()
        thread.join()

async def cancel():
    journal = open_store()
    epoch = await journal.claim("Oslo", "elsewhere:1:1", seconds=60)
    await journal.append("Oslo", epoch, [RunCancelled(run_id="Oslo", at=1.0, usage=Usage())])
    await journal.release("Oslo", epoch)
    await journal.aclose()
"""


def in_store(work: Callable[[Journal], Awaitable[Any]]) -> Any:
    """Work with the store of the test."""

    async def main() -> Any:
        journal = open_store()
        try:
            return await work(journal)
        finally:
            await journal.aclose()

    return anyio.run(main)


def begun(file: str, **nights: int | None) -> None:
    """Run a file for each name, under that id, until it waits, and answer what it asks."""
    source = load(f"{file}:trip")

    async def begin(journal: Journal) -> None:
        for name, answered in nights.items():
            await run(source.node, name, journal=journal, run_id=name, target=source.address)
            if answered is not None:
                await answer(journal, name, answered)

    in_store(begin)


def statuses(shell: Shell) -> dict[str, str]:
    return {r["run_id"]: r["status"] for r in json.loads(shell("runs", "--json").stdout)}


def test_what_is_due_goes_on_and_the_rest_waits(shell: Shell, write: Write) -> None:
    """One JSON document a run, the one that began first before the others."""
    begun(write(FILE), Rome=2, Oslo=None, Bonn=3)
    done = shell("resume", "--due", "--json")
    assert done.exit_code == ExitStatus.DONE
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(d["run_id"], d["output"]) for d in documents] == [
        ("Rome", "2 nights in Rome"),
        ("Bonn", "3 nights in Bonn"),
    ]
    assert statuses(shell) == {"Rome": "done", "Oslo": "waiting", "Bonn": "done"}


def test_nothing_is_due(shell: Shell) -> None:
    """That is no failure."""
    nothing = shell("resume", "--due")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (ExitStatus.DONE, "", "no run is due\n")
    assert shell("resume", "--due", "--quiet").stderr == ""


def test_one_that_fails_does_not_stop_the_others(shell: Shell, write: Write) -> None:
    """The exit status is the worst."""
    begun(write(FILE), Rome=-1, Oslo=3)
    went = shell("resume", "--due")
    assert (went.exit_code, went.stdout) == (ExitStatus.FAILED, "3 nights in Oslo\n")
    for part in ("run Rome goes on", "ValueError: never", "run Oslo goes on"):
        assert part in went.stderr


def test_one_that_somebody_else_goes_on_with_is_passed_over(shell: Shell, write: Write) -> None:
    """Without a word."""
    begun(write(FILE), Rome=2, Oslo=3)
    in_store(lambda journal: journal.claim("Rome", "elsewhere:1:1", seconds=60))
    went = shell("resume", "--due")
    assert (went.exit_code, went.stdout) == (ExitStatus.DONE, "3 nights in Oslo\n")
    assert "Rome" not in went.stderr
    assert "is driven by elsewhere:1:1" in shell("resume", "Rome").stderr


def test_one_that_somebody_else_has_gone_on_with_is_not_due_any_more(shell: Shell, write: Write) -> None:
    """Even if that was while another run went on."""
    file = write(f"import flow_store\n{FILE}".replace("    nights =", "    flow_store.meanwhile(name)\n    nights ="))
    write(MEANWHILE, "flow_store.py")
    begun(file, Rome=2, Oslo=3)
    went = shell("resume", "--due")
    assert (went.exit_code, went.stdout) == (ExitStatus.DONE, "2 nights in Rome\n")
    assert statuses(shell) == {"Rome": "done", "Oslo": "cancelled"}


def test_one_that_python_began_is_named_and_skipped(shell: Shell) -> None:
    """The shell does not know where its graph is."""

    async def ask(text: str, ctx: Context) -> str:
        return await ctx.ask("Well?")

    async def begin(journal: Journal) -> None:
        await run(ask, "go", journal=journal, run_id="python")
        await answer(journal, "python", "so")

    in_store(begin)
    skipped = shell("resume", "--due")
    assert (skipped.exit_code, skipped.stdout) == (ExitStatus.DONE, "")
    assert "run python was not started by the shell" in skipped.stderr
    assert "agentrt resume python --in FILE:NAME" in skipped.stderr
    alone = shell("resume", "python")
    assert (alone.exit_code, alone.stderr[:6]) == (ExitStatus.USAGE, "error:")


def test_one_whose_file_has_gone_is_told(shell: Shell, write: Write, tmp_path: Path) -> None:
    """And stays as it is."""
    begun(write(FILE), Rome=2)
    (tmp_path / "flow.py").unlink()
    went = shell("resume", "--due")
    assert (went.exit_code, "no file" in went.stderr) == (ExitStatus.USAGE, True)
    assert statuses(shell) == {"Rome": "waiting"}


def test_a_run_is_either_named_or_due(shell: Shell) -> None:
    """Not both."""
    for words in (["last", "--due"], ["--watch", "--in", "flow.py"]):
        refused = shell("resume", *words)
        assert (refused.exit_code, "leave out RUN and --in" in refused.stderr) == (ExitStatus.USAGE, True)


def test_a_watch_goes_on_until_it_is_interrupted(shell: Shell, write: Write) -> None:
    """A run that the interruption meets is cancelled, those after it wait."""
    begun(write(FILE), Rome=2, Oslo=0, Bonn=3)
    watched = shell("resume", "--watch")
    assert (watched.exit_code, watched.stdout) == (ExitStatus.INTERRUPTED, "2 nights in Rome\n")
    assert watched.stderr.startswith("going on with runs as they are answered, until Ctrl-C\n")
    assert statuses(shell) == {"Rome": "done", "Oslo": "cancelled", "Bonn": "waiting"}


@pytest.mark.anyio
async def test_a_watch_looks_again_and_again() -> None:
    """Until a run is answered, or its question's time is over; what it leaves out it does not come back to."""

    async def ask(timeout: int, ctx: Context) -> str:
        return await ctx.ask("Well?", timeout=timeout)

    journal = MemoryJournal()
    for timeout in (1000, 2000):
        await run(ask, timeout, journal=journal, run_id=f"r{timeout}")
    began = anyio.current_time()
    assert await next_due(journal, (), watch=False) is None

    async def answer_later() -> None:
        await anyio.sleep(100)
        await answer(journal, "r2000", "so")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_later)
        found = await next_due(journal, (), watch=True)
    assert found is not None
    assert found.run_id == "r2000"
    assert 100 <= anyio.current_time() - began <= 100 + EVERY
    found = await next_due(journal, {"r2000"}, watch=True)
    assert found is not None
    assert found.run_id == "r1000"


@pytest.mark.anyio
async def test_a_watch_does_not_spin_while_somebody_drives_what_is_due() -> None:
    """It looks again every other second, and goes on once the claim is over."""
    looks = 0

    class Looks(MemoryJournal):
        async def runs(self, limit: int = 50, *, status: str | None = None) -> list[RunSummary]:
            nonlocal looks
            looks += 1
            return await super().runs(limit, status=status)

    async def ask(text: str, ctx: Context) -> str:
        return await ctx.ask("Well?")

    journal = Looks(clock=event_clock())
    await run(ask, "go", journal=journal, run_id="r")
    await answer(journal, "r", "so")
    await journal.claim("r", "elsewhere:1:1", seconds=60)
    began = anyio.current_time()
    assert await next_due(journal, (), watch=False) is None
    found = await next_due(journal, (), watch=True)
    assert found is not None
    assert 60 <= anyio.current_time() - began <= 60 + EVERY
    assert 60 / EVERY <= looks <= 60 / EVERY + 3


@pytest.mark.parametrize(
    ("one", "other", "worse"),
    [
        (ExitStatus.DONE, ExitStatus.DONE, ExitStatus.DONE),
        (ExitStatus.DONE, ExitStatus.WAITING, ExitStatus.WAITING),
        (ExitStatus.USAGE, ExitStatus.WAITING, ExitStatus.USAGE),
        (ExitStatus.FAILED, ExitStatus.USAGE, ExitStatus.FAILED),
    ],
)
def test_the_worse_of_two_exit_statuses(one: ExitStatus, other: ExitStatus, worse: ExitStatus) -> None:
    """Whichever comes first."""
    assert worse_of(one, other) is worse_of(other, one) is worse


def test_a_watch_that_waits_is_interrupted(
    shell: Shell, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the status of an interruption; a run that it cannot go on with is told of once, however often it is due."""
    begun(write(FILE), Rome=2)
    (tmp_path / "flow.py").unlink()
    looks: list[int] = []

    async def look(journal: Journal, now: float) -> list[RunSummary]:
        found = await due_runs(journal, now)
        looks.append(len(found))
        if len(looks) == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(agentrt.cli.due, "due_runs", look)
    monkeypatch.setattr(agentrt.cli.due, "EVERY", 0.0)
    watched = shell("resume", "--watch", "--quiet")
    assert (watched.exit_code, watched.stdout, looks) == (ExitStatus.INTERRUPTED, "", [1, 1, 1])
    assert watched.stderr.count("\n") == 1
    assert watched.stderr.startswith("error: no file")
