"""Killing the process of a run anywhere: what goes on afterwards loses nothing and pays nothing twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from agentrt import Result, Usage, replay, resume
from agentrt import events as ev
from agentrt.recorded import Recorded
from agentrt.stores import SqliteJournal
from tests import killed

STRIDE = 8
pytestmark = pytest.mark.slow  # each position is a process of its own


class Undisturbed:
    """Hold a run that nobody killed."""

    def __init__(self, folder: Path) -> None:
        killed.effects = folder / "effects"
        killed.tries.clear()
        self.result: Result[str] = anyio.run(killed.begin, folder / "runs.db", 0)
        self.events = anyio.run(recorded, folder / "runs.db")
        self.effects = used(folder / "effects")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


async def recorded(path: Path) -> Sequence[ev.Event]:
    journal = SqliteJournal(path)
    try:
        return await journal.events(killed.RUN)
    finally:
        await journal.aclose()


async def gone_on(path: Path) -> tuple[Result[str], Result[str]]:
    """Go on with the run that was killed, and go through it again afterwards."""
    journal = SqliteJournal(path)
    try:
        result = await resume(killed.main, killed.RUN, journal=journal)
        return result, await replay(killed.main, killed.RUN, journal=journal)
    finally:
        await journal.aclose()


def used(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines())


def charged_in_doubt(events: Sequence[ev.Event]) -> Usage:
    """Return the maxima of the calls that had begun and of which nobody knows the bill."""
    return sum(Recorded(events).reserved.values(), Usage())


@pytest.mark.parametrize("start", range(1, STRIDE + 1))
def test_killed_at_every_place_of_its_journal(undisturbed: Undisturbed, tmp_path: Path, start: int) -> None:
    """The same output; no finished tool again; the bill is the undisturbed one and what is in doubt at its maximum."""
    assert len(undisturbed.events) > STRIDE
    for at in range(start, len(undisturbed.events), STRIDE):
        check(undisturbed, tmp_path / str(at), at)


def check(undisturbed: Undisturbed, folder: Path, at: int) -> None:
    folder.mkdir()
    store, effects = folder / "runs.db", folder / "effects"
    effects.touch()
    command = [sys.executable, killed.__file__, str(store), str(effects), str(at)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    before = anyio.run(recorded, store)
    assert len(before) == at
    killed.effects = effects
    killed.tries.clear()
    result, again = anyio.run(gone_on, store)
    assert result.output == again.output == undisturbed.result.output
    check_effects(undisturbed, before, used(effects))
    after = anyio.run(recorded, store)
    check_bill(undisturbed, before, after, result.usage)
    check_record(after)


def check_effects(undisturbed: Undisturbed, before: Sequence[ev.Event], effects: Counter[str]) -> None:
    """What was in flight may have happened twice, under the same key; nothing else has, and all has happened."""
    steps = Recorded(before).steps.values()
    in_flight = sum(step.began for step in steps if step.ended is None)
    assert not undisturbed.effects - effects
    assert (effects - undisturbed.effects).total() <= in_flight
    assert set(effects) == set(undisturbed.effects)


def check_bill(undisturbed: Undisturbed, before: Sequence[ev.Event], after: Sequence[ev.Event], usage: Usage) -> None:
    """A step that fails on its first attempt in each process may have one attempt more, which is counted."""
    doubt, told = charged_in_doubt(before), Recorded(before)
    settled_alone = [
        e.usage.tokens for e in before if isinstance(e, ev.UsageRecorded) and told.steps[e.path].ended is None
    ]
    assert usage.tokens == undisturbed.result.usage.tokens + doubt.tokens + sum(settled_alone)
    assert usage.uncertain == doubt.tokens
    assert usage.steps - retries(after) == undisturbed.result.usage.steps - retries(undisturbed.events)
    assert usage.tool_calls == undisturbed.result.usage.tool_calls


def retries(events: Sequence[ev.Event]) -> int:
    return sum(isinstance(e, ev.StepRetried) for e in events)


def check_record(events: Sequence[ev.Event]) -> None:
    """Every attempt that started has ended once."""
    running: Counter[str] = Counter()
    for event in events:
        if isinstance(event, ev.StepStarted):
            running[event.path] += 1
        elif isinstance(event, ev.Ending):
            running[event.path] -= 1
        assert set(running.values()) <= {0, 1}
    assert not running.total()
