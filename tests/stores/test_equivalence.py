"""All stores do the same: any sequence of calls, by two processes, against the one that is plain to see."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrt.errors import JournalError
from agentrt.events import (
    Event,
    QuestionAnswered,
    QuestionAsked,
    RunFinished,
    RunForked,
    RunParked,
    RunResumed,
    RunStarted,
    StepCancelled,
    StepFinished,
    UsageRecorded,
)
from agentrt.journal import Journal
from agentrt.stores import MemoryJournal, PostgresJournal, SqliteJournal
from agentrt.usage import Usage
from tests.stores.places import Clock
from tests.stores.postgresql import Server

pytestmark = pytest.mark.anyio

Call: TypeAlias = Callable[[Journal, str, "Epochs"], Any]
Epochs: TypeAlias = dict[str, int]

RUNS = st.sampled_from(["a", "b", "never"])
PATHS = st.sampled_from(["p", "q"])
USED = Usage(input_tokens=3, cost=5)
NUMBERS = itertools.count()


def asked(path: str) -> QuestionAsked:
    return QuestionAsked(path=path, at=2.0, kind="ask", prompt="?", schema={}, about={})


def answered(path: str, keep: bool = False) -> QuestionAnswered:
    return QuestionAnswered(path=path, at=2.0, verdict="answer", by="ada", value=1, keep=keep)


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(asked, PATHS),
    st.builds(answered, PATHS, st.booleans()),
    st.builds(StepFinished, path=PATHS, at=st.just(3.0), output=st.text(max_size=5) | st.just("x" * 400)),
    st.builds(StepCancelled, path=PATHS, at=st.just(3.0)),
    st.just(UsageRecorded(path="p", at=3.0, usage=USED)),
    st.just(RunStarted(run_id="r", at=1.0, name="n", input=1, limits={}, target="t")),
    st.builds(
        RunParked,
        run_id=st.just("r"),
        at=st.just(4.0),
        usage=st.just(USED),
        questions=st.lists(PATHS, unique=True).map(tuple),
        due=st.sampled_from([None, 9.0]),
    ),
    st.just(RunForked(run_id="r", at=5.0, parent="q", path="p")),
    st.just(RunResumed(run_id="r", at=5.0, name="n", limits={})),
    st.just(RunFinished(run_id="r", at=6.0, output=1, usage=USED, stop_reason="done")),
)


def claim(run: str, owner: str, new: bool) -> Call:
    async def call(journal: Journal, prefix: str, epochs: Epochs) -> int:
        epochs[run] = await journal.claim(prefix + run, owner, seconds=10, new=new)
        return epochs[run]

    return call


def renew(run: str, behind: int) -> Call:
    return lambda journal, prefix, epochs: journal.renew(prefix + run, epochs.get(run, 1) - behind, seconds=10)


def release(run: str, behind: int) -> Call:
    return lambda journal, prefix, epochs: journal.release(prefix + run, epochs.get(run, 1) - behind)


def append(run: str, behind: int, events: Sequence[Event]) -> Call:
    return lambda journal, prefix, epochs: journal.append(prefix + run, epochs.get(run, 1) - behind, events)


def answer(run: str, path: str, keep: bool) -> Call:
    return lambda journal, prefix, epochs: journal.answer(prefix + run, answered(path, keep))


def write_note(space: str, name: str, text: str | None) -> Call:
    return lambda journal, prefix, epochs: journal.write_note(prefix + space, name, text)


BEHIND = st.sampled_from([0, 0, 0, 1])
CALLS = st.one_of(
    st.builds(claim, RUNS, st.sampled_from(["me", "you"]), st.booleans()),
    st.builds(renew, RUNS, BEHIND),
    st.builds(release, RUNS, BEHIND),
    st.builds(append, RUNS, BEHIND, st.lists(EVENTS, max_size=4)),
    st.builds(append, RUNS, BEHIND, st.lists(EVENTS, max_size=4)),
    st.builds(answer, RUNS, PATHS, st.booleans()),
    st.builds(write_note, RUNS, st.text(max_size=2), st.none() | st.text(max_size=5)),
)
STEPS = st.lists(st.tuples(CALLS, st.sampled_from([0, 0, 1, 6]), st.booleans()), max_size=25)


async def outcome(call: Any) -> object:
    """Return what a call returns, or its error, without the name of the place."""
    try:
        return await call
    except JournalError as error:
        return type(error).__name__, str(error).split(" in ")[0].split(" already")[-1]


async def seen(journal: Journal, prefix: str) -> object:
    """Return all that can be seen of the runs with a prefix."""
    runs = [run for run in await journal.runs(10_000) if run.run_id.startswith(prefix)]
    questions = [q for q in await journal.questions() if q.run_id.startswith(prefix)]
    events = [await journal.events(run.run_id) for run in runs]
    each = [await journal.run(run.run_id) for run in runs]
    guidance = [g for g in await journal.guidance("n", 10_000) if g.run_id.startswith(prefix)]
    notes = [await journal.notes(prefix + space) for space in ("a", "b", "never")]
    return runs, questions, events, each, notes, sorted(guidance, key=lambda g: (g.run_id, g.asked.path))


async def compare(clock: Clock, places: Sequence[Sequence[Journal]], steps: Sequence[tuple[Call, int, bool]]) -> None:
    """Do the steps in each place, by one of its two journals, and compare what comes out."""
    prefix = f"{next(NUMBERS)}-"
    epochs: list[Epochs] = [{} for _ in places]
    for call, seconds, second in steps:
        clock.now += seconds
        outcomes = [
            await outcome(call(pair[second], prefix, known)) for pair, known in zip(places, epochs, strict=True)
        ]
        assert outcomes == outcomes[:1] * len(places)
    views = [await seen(pair[0], prefix) for pair in places]
    assert views == views[:1] * len(places)


@given(STEPS)
@settings(max_examples=25)
async def test_sqlite_does_as_memory(steps: Any) -> None:
    """In a file of its own."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        memory = MemoryJournal(clock=clock)
        path = Path(folder) / "runs.db"
        files = [SqliteJournal(path, clock=clock), SqliteJournal(path, clock=clock)]
        for file in files:
            file._connection.execute("PRAGMA synchronous = OFF")
        await compare(clock, [[memory] * 2, files], steps)
        for file in files:
            await file.aclose()


@pytest.fixture
async def trio_of_stores(server: Server, tmp_path: Path) -> AsyncIterator[tuple[Clock, list[list[Journal]]]]:
    server.sql("DROP SCHEMA IF EXISTS agentrt CASCADE")
    clock = Clock()
    memory: list[Journal] = [MemoryJournal(clock=clock)] * 2
    files: list[Journal] = [SqliteJournal(tmp_path / "runs.db", clock=clock) for _ in range(2)]
    tables: list[Journal] = [PostgresJournal(server.url, clock=clock) for _ in range(2)]
    yield clock, [memory, files, tables]
    for journal in files + tables:
        await journal.aclose()


@given(STEPS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_postgres_does_as_both(trio_of_stores: tuple[Clock, list[list[Journal]]], steps: Any) -> None:
    """In a database that fills up with runs."""
    clock, places = trio_of_stores
    await compare(clock, places, steps)
