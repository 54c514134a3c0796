"""What every store of runs promises, whatever it keeps them in."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from agentrt.errors import JournalError, QuestionClosed, RunTaken
from agentrt.events import (
    Emitted,
    ErrorInfo,
    Event,
    QuestionAnswered,
    QuestionAsked,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunForked,
    RunParked,
    RunResumed,
    RunStarted,
    StepAbandoned,
    StepCancelled,
    StepFailed,
    StepFinished,
    UsageRecorded,
)
from agentrt.journal import Journal, Note
from agentrt.owner import Owner, this_process
from agentrt.usage import Usage
from tests.stores.places import Place

pytestmark = pytest.mark.anyio

USED = Usage(input_tokens=30, output_tokens=12, cost=700)


def started(run_id: str = "r", at: float = 1.0, **more: Any) -> RunStarted:
    return RunStarted(run_id=run_id, at=at, name="brief", input="why?", limits={"tokens": 100}, **more)


def finished(run_id: str = "r", at: float = 3.0) -> RunFinished:
    return RunFinished(run_id=run_id, at=at, output="so", usage=USED, stop_reason="done")


def failed(at: float = 3.0) -> RunFailed:
    error = ErrorInfo("X", "x")
    return RunFailed(run_id="r", at=at, path="a", error=error, usage=USED, stop_reason="budget_exceeded")


def step(output: object = 1, path: str = "brief/a") -> StepFinished:
    return StepFinished(path=path, at=2.0, output=output)


def asked(path: str = "brief/ask", at: float = 2.0) -> QuestionAsked:
    return QuestionAsked(path=path, at=at, kind="ask", prompt="Which?", schema={"type": "string"}, about={"usd": 0.1})


def answered(path: str = "brief/ask", by: str = "ada") -> QuestionAnswered:
    return QuestionAnswered(path=path, at=2.5, verdict="answer", by=by, value="this")


async def begin(journal: Journal, run_id: str = "r", *events: Event, at: float = 1.0) -> int:
    """Claim a new run and start it."""
    epoch = await journal.claim(run_id, "me", seconds=30, new=True)
    await journal.append(run_id, epoch, [started(run_id, at), *events])
    return epoch


# Events


async def test_events_come_back_in_order(journal: Journal) -> None:
    """As they were appended, group after group; the first may be left out."""
    epoch = await begin(journal)
    await journal.append("r", epoch, [])
    await journal.append("r", epoch, [step({"n": [1, 2]}), finished()])
    assert await journal.events("r") == [started(), step({"n": [1, 2]}), finished()]
    assert (await journal.events("r"))[1:] == [step({"n": [1, 2]}), finished()]
    assert (await journal.events("r"))[3:] == []


async def test_appends_of_one_run_keep_their_order(journal: Journal) -> None:
    """Even when none waits for the one before, among those of other runs."""
    epochs = {f"r{i}": await begin(journal, f"r{i}") for i in range(5)}
    async with anyio.create_task_group() as tasks:
        for n in range(20):
            for run_id, epoch in epochs.items():
                tasks.start_soon(journal.append, run_id, epoch, [step(n), step(-n)])
    for run_id in epochs:
        outputs = [e.output for e in await journal.events(run_id) if isinstance(e, StepFinished)]
        assert outputs == [m for n in range(20) for m in (n, -n)]


@pytest.mark.parametrize("size", [200, 2_000, 3_000_000])
async def test_values_of_any_size(journal: Journal, size: int) -> None:
    """Come back as they were; megabytes too."""
    event = step({"text": "é" * size, "n": 1})
    await begin(journal, "r", event, event)
    assert (await journal.events("r"))[1:] == [event, event]


async def test_every_field_may_be_big(journal: Journal) -> None:
    """Not only inputs and outputs."""
    error = ErrorInfo("X" * 300, "x" * 300)
    big = StepFailed(path="p" * 300, at=1.0, error=error)
    await begin(journal, "r", big, Emitted(path="e", at=1.0, value=["v"] * 300))
    assert (await journal.events("r"))[1:] == [big, Emitted(path="e", at=1.0, value=["v"] * 300)]


ODD = ["", "\0", "\U0001f989", "\u2028", '"}\n{"', "x\0" * 300, '",}' * 300]


@pytest.mark.parametrize("text", ODD)
async def test_any_text_comes_back(journal: Journal, text: str) -> None:
    """Quotes, NUL and what lies beyond the first plane."""
    event = step({text: text}, path=text)
    await begin(journal, "r", event)
    assert (await journal.events("r"))[1:] == [event]


async def test_what_json_does_not_know(journal: Journal) -> None:
    """NaN and the infinities come back, in small values and in big ones; lone surrogates become question marks."""
    big = [0.5] * 300 + [math.inf, math.nan]
    await begin(journal, "r", step(math.inf), step(big), step("\ud800" * 300, path="\udfff"))
    _, small, back, text = await journal.events("r")
    assert isinstance(small, StepFinished)
    assert isinstance(back, StepFinished)
    assert isinstance(text, StepFinished)
    assert small.output == math.inf
    assert isinstance(back.output, list)
    assert back.output[:301] == big[:301]
    assert math.isnan(back.output[301])
    assert text.output == "?" * 300
    assert text.path == "?"


async def test_unknown_run_is_an_error(journal: Journal) -> None:
    """Neither reading nor writing invents a run."""
    calls: list[Callable[[str], Any]] = [
        lambda run_id: journal.claim(run_id, "me", seconds=1),
        lambda run_id: journal.renew(run_id, 1, seconds=1),
        lambda run_id: journal.release(run_id, 1),
        lambda run_id: journal.append(run_id, 1, [step()]),
        journal.run,
        journal.events,
        journal.questions,
    ]
    await begin(journal)
    for call in calls:
        for run_id in ("nobody", "nobody\0", "\ud800"):
            with pytest.raises(JournalError, match=r"no run '(nobody|.ud800)"):
                await call(run_id)


# Summaries


async def test_summary_follows_the_run(journal: Journal) -> None:
    """It counts what is settled while the run goes on, and takes the total where it ends."""
    epoch = await begin(journal, "r", UsageRecorded(path="brief/chat", at=2.0, usage=USED))
    running = await journal.run("r")
    await journal.append("r", epoch, [UsageRecorded(path="brief/chat", at=2.0, usage=USED), finished()])
    done = await journal.run("r")
    assert (running.status, running.ended, running.tokens, running.cost) == ("running", None, 42, 700)
    assert (running.name, running.started, running.owner, running.until) == ("brief", 1.0, "me", 1_000_030.0)
    assert (done.status, done.ended, done.tokens, done.cost) == ("done", 3.0, 42, 700)


async def test_summary_says_where_a_run_comes_from(journal: Journal) -> None:
    """What the shell ran, and the run it was forked from."""
    epoch = await journal.claim("r", "me", seconds=1, new=True)
    await journal.append("r", epoch, [started(target="a.py:b\0\ud800", parent="q")])
    run = await journal.run("r")
    assert (run.target, run.parent) == ("a.py:b\ufffd?", "q")


PARKED = RunParked(run_id="r", at=2.0, usage=USED)
ANSWERED_LATE = QuestionAnswered("brief/ask", 90.0, "answer", "ada")
WAITING = RunParked(run_id="r", at=2.0, usage=USED, questions=("brief/ask",))
RESUMED = RunResumed(run_id="r", at=4.0, name="brief", limits={})
FORKED = RunForked(run_id="r", at=1.5, parent="q", path="brief/a")
CANCELLED = RunCancelled(run_id="r", at=2.0, usage=USED)


@pytest.mark.parametrize(
    ("events", "status", "ended"),
    [
        ([], "running", None),
        ([PARKED], "waiting", None),
        ([PARKED, RESUMED], "running", None),
        ([CANCELLED], "cancelled", 2.0),
        ([failed()], "budget_exceeded", 3.0),
        ([failed(), RESUMED], "running", None),
        ([PARKED, FORKED], "running", None),
        ([failed(), FORKED], "running", None),
        ([failed(), RESUMED, finished(at=5.0)], "done", 5.0),
    ],
)
async def test_status_follows_the_run(journal: Journal, events: list[Event], status: str, ended: float | None) -> None:
    """It says what the run does, or how it has ended."""
    await begin(journal, "r", *events)
    run = await journal.run("r")
    assert (run.status, run.ended) == (status, ended)
    assert await journal.runs(status=status) == [run]
    assert await journal.runs(status="else") == []


async def test_a_fork_has_not_paid_for_its_past(journal: Journal) -> None:
    """It counts what is used from there on, and is as old as itself."""
    used = UsageRecorded(path="brief/chat", at=2.0, usage=USED)
    await begin(journal, "r", used, used, FORKED, used)
    run = await journal.run("r")
    assert (run.tokens, run.cost, run.started) == (42, 700, FORKED.at)


@pytest.mark.parametrize(
    ("events", "worked", "latest"),
    [
        ([], 0.0, 1.0),
        ([step()], 1.0, 2.0),
        ([step(), finished(at=3.5)], 2.5, 3.5),
        ([asked(), msgspec.structs.replace(WAITING, at=3.0), ANSWERED_LATE], 2.0, 3.0),
        ([RunParked("r", 3.0, USED), RunResumed("r", 100.0, "brief", {}), finished(at=102.0)], 4.0, 102.0),
        ([step(), RunResumed("r", 100.0, "brief", {}), StepAbandoned("a", 100.5)], 1.5, 100.5),
        ([step(), RunForked("r", 9.0, "q", "brief/a"), RunResumed("r", 11.0, "b", {}), finished(at=13.0)], 2.0, 13.0),
        ([step(), Emitted("a", 0.5, "the clock was set"), finished(at=1.5)], 2.0, 1.5),
    ],
)  # fmt: skip
async def test_the_time_of_work_is_that_of_all_parts(
    journal: Journal, events: list[Event], worked: float, latest: float
) -> None:
    """Without what lies between them; where a part was cut off, up to its last event."""
    epoch = await begin(journal)
    for event in events:
        if isinstance(event, QuestionAnswered):
            await journal.answer("r", event)
        else:
            await journal.append("r", epoch, [event])
    summary = await journal.run("r")
    assert (summary.worked, summary.latest) == (worked, latest)


def parked(*questions: str, due: float | None = None) -> RunParked:
    return RunParked(run_id="r", at=2.0, usage=USED, questions=questions, due=due)


A, B = asked("a"), asked("b")


@pytest.mark.parametrize(
    ("events", "due"),
    [
        ([A, parked("a")], None),
        ([A, parked("a"), answered("a")], 0.0),
        ([A, answered("a"), parked("a")], 0.0),
        ([A, answered("a")], None),
        ([A, B, parked("a", "b"), answered("b")], 0.0),
        ([A, B, parked("a", "b"), answered("a"), RESUMED, parked("b")], None),
        ([A, B, parked("a", "b"), answered("a"), RESUMED, parked("b"), answered("b")], 0.0),
        ([A, B, step(path="a"), parked("a", "b")], None),
        ([A, B, parked("b"), RESUMED, parked("a", "b")], None),
        ([A, parked("a"), answered("a"), RESUMED], None),
        ([A, parked("a"), answered("a"), RESUMED, A, parked("a")], None),
        ([A, parked("a", due=9.0), FORKED], None),
        ([A, parked("a", due=9.0), started()], None),
        ([A, parked("a", due=9.0), finished()], None),
        ([A, parked("a", due=9.0), failed()], None),
        ([A, parked("a", due=9.0), CANCELLED], None),
        ([A, parked("a", due=9.0)], 9.0),
        ([A, answered("a"), parked("a", due=9.0)], 0.0),
        ([A, parked("a", due=9.0), answered("a")], 0.0),
        ([A, parked("a", due=9.0), answered("else")], 9.0),
        ([A, B, parked("a", "b", due=9.0), RESUMED, parked("b")], None),
        ([asked("\0"), answered("\0"), parked("\0")], 0.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_run_that_waits_is_due_once_something_it_parked_on_is_over(
    journal: Journal, events: list[Event], due: float | None, at_once: bool
) -> None:
    """Answered, before it parked or after, or else out of time, in whatever groups the events come."""
    epoch = await begin(journal)
    for group in [events] if at_once else [[event] for event in events]:
        await journal.append("r", epoch, group)
    assert (await journal.run("r")).due == due


async def test_a_run_that_waits_is_due_once_a_person_has_answered(place: Place) -> None:
    """From another process."""
    mine, yours = place.open(), place.open()
    await begin(mine, "r", asked("a"), parked("a", due=9.0))
    await yours.answer("r", answered("a"))
    assert [run.due for run in await mine.runs(status="waiting")] == [0.0]


async def test_a_run_may_wait_for_any_number_of_answers(journal: Journal) -> None:
    """More than a statement of SQL takes."""
    epoch = await begin(journal, "r", asked("last"), answered("last"))
    await journal.append("r", epoch, [parked(*[f"a{i}" for i in range(40_000)], "last")])
    assert (await journal.run("r")).due == 0.0


async def test_a_bill_beyond_what_databases_count(journal: Journal) -> None:
    """Stays at the most they do."""
    await begin(journal, "r", *[UsageRecorded(path="p", at=1.0, usage=Usage(cost=2**62))] * 3)
    assert (await journal.run("r")).cost == 2**63 - 1


async def test_newest_run_first(journal: Journal) -> None:
    """By their start, then by when they were made; at most as many as asked for."""
    for run_id, at in (("old", 1.0), ("new", 3.0), ("middle", 2.0), ("also new", 3.0)):
        await begin(journal, run_id, at=at)
    assert [r.run_id for r in await journal.runs(3)] == ["also new", "new", "middle"]
    assert await journal.runs(0) == []
    assert await journal.runs(-1) == []


async def test_a_thousand_runs_are_listed(journal: Journal) -> None:
    """Made at once."""
    async with anyio.create_task_group() as tasks:
        for i in range(1000):
            tasks.start_soon(lambda i: begin(journal, f"r{i}", at=float(i)), i)
    assert [r.run_id for r in await journal.runs(2000)] == [f"r{i}" for i in reversed(range(1000))]


# Claims


async def test_a_run_is_made_once(place: Place) -> None:
    """Whoever comes second is told, and has made nothing."""
    one, other = place.open(), place.open()
    await begin(one)
    for journal in (one, other):
        with pytest.raises(JournalError, match="already holds a run 'r'"):
            await journal.claim("r", "you", seconds=1, new=True)
    assert (await other.run("r")).owner == "me"


@pytest.mark.parametrize("run_id", ["a\0b", "\ud800"])
async def test_a_run_that_cannot_be_named_is_told(journal: Journal, run_id: str) -> None:
    """Before anything is kept."""
    with pytest.raises(JournalError, match="cannot be called"):
        await journal.claim(run_id, "me", seconds=1, new=True)
    assert await journal.runs() == []


async def opened(place: Place, number: int) -> list[Journal]:
    """Open a place so many times, and write each time, so that no later write waits for a connection."""
    journals = [place.open() for _ in range(number)]
    for i, journal in enumerate(journals):
        await begin(journal, f"warm {i}")
    return journals


async def test_many_make_one_run_at_once(place: Place) -> None:
    """One does; the others are told."""
    journals = await opened(place, 4)
    made: list[int] = []
    told: list[str] = []

    async def make(journal: Journal, run_id: str) -> None:
        try:
            made.append(await journal.claim(run_id, "me", seconds=1, new=True))
        except JournalError as error:
            told.append(str(error))

    for i in range(3):
        async with anyio.create_task_group() as tasks:
            for journal in journals:
                tasks.start_soon(make, journal, f"r{i}")
    assert made == [1] * 3
    assert len(told) == 9
    assert all("already holds a run 'r" in t for t in told)


async def test_a_claim_holds_until_its_end(place: Place) -> None:
    """Somebody else is told who holds it, and until when; then the run is his, under a higher epoch."""
    mine, yours = place.open(), place.open()
    first = await begin(mine)
    with pytest.raises(RunTaken, match=r"'r'.*driven by me.*until 1970-01-1.*wait for that"):
        await yours.claim("r", "you", seconds=30)
    place.clock.now += 29
    await mine.renew("r", first, seconds=30)
    place.clock.now += 29
    with pytest.raises(RunTaken, match="driven by me"):
        await yours.claim("r", "you", seconds=30)
    place.clock.now += 1
    second = await yours.claim("r", "you", seconds=30)
    assert second > first
    assert ((await mine.run("r")).owner, (await mine.run("r")).until) == ("you", place.clock.now + 30)


async def test_an_owner_may_claim_again(journal: Journal) -> None:
    """Which fences what he did before."""
    first = await begin(journal)
    second = await journal.claim("r", "me", seconds=30)
    assert second > first
    with pytest.raises(RunTaken):
        await journal.append("r", first, [step()])


async def test_a_claim_that_is_released_is_free(journal: Journal) -> None:
    """At once, and only by who holds it."""
    first = await begin(journal)
    await journal.release("r", first)
    run = await journal.run("r")
    assert (run.owner, run.until) == (None, 0.0)
    await journal.claim("r", "you", seconds=30)
    await journal.release("r", first)
    assert (await journal.run("r")).owner == "you"


async def test_a_stale_writer_is_fenced(place: Place) -> None:
    """It keeps nothing, of no group, and cannot renew; it is told who has the run."""
    mine, yours = place.open(), place.open()
    first = await begin(mine)
    place.clock.now += 31
    second = await yours.claim("r", "you", seconds=30)
    groups: list[list[Event]] = [[step()], [step(), finished()]]
    for group in groups:
        with pytest.raises(RunTaken, match=r"taken over by you until .*\(claim 2, this one was 1\)"):
            await mine.append("r", first, group)
    with pytest.raises(RunTaken):
        await mine.renew("r", first, seconds=30)
    await yours.append("r", second, [step(2)])
    assert await mine.events("r") == [started(), step(2)]


async def test_one_refusal_leaves_the_others_alone(journal: Journal) -> None:
    """Of what is appended at once, only what is stale is refused."""
    stale = await begin(journal, "a")
    fresh = await journal.claim("a", "me", seconds=30)
    other = await begin(journal, "b")
    errors: list[str] = []

    async def append(run_id: str, epoch: int) -> None:
        try:
            await journal.append(run_id, epoch, [step(epoch)])
        except RunTaken:
            errors.append(run_id)

    async with anyio.create_task_group() as tasks:
        for run_id, epoch in (("a", stale), ("a", fresh), ("b", other), ("a", stale), ("b", other)):
            tasks.start_soon(append, run_id, epoch)
    assert errors == ["a", "a"]
    assert (await journal.events("a"))[1:] == [step(fresh)]
    assert (await journal.events("b"))[1:] == [step(other)] * 2


async def test_two_claim_at_once(place: Place) -> None:
    """One has it, the other is told."""
    journals = await opened(place, 2)
    had: list[tuple[str, int]] = []
    told: list[str] = []

    async def claim(journal: Journal, owner: str) -> None:
        try:
            had.append((owner, await journal.claim("warm 0", owner, seconds=30)))
        except RunTaken:
            told.append(owner)

    for rounds in range(1, 4):
        place.clock.now += 31
        async with anyio.create_task_group() as tasks:
            for i in range(6):
                tasks.start_soon(claim, journals[i % 2], f"owner {i}")
        assert len(had) == rounds
        assert len(told) == 5 * rounds
        assert (await journals[0].run("warm 0")).owner == had[-1][0]
    assert [epoch for _, epoch in had] == [2, 3, 4]


async def test_the_claim_of_a_dead_process_is_over(journal: Journal) -> None:
    """At once, where it ran on this machine; that of a living one holds."""
    code = "from agentrt.owner import this_process; print(this_process(), flush=True); input()"
    pipe = subprocess.PIPE
    async with await anyio.open_process([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        owner = (await process.stdout.receive()).decode().strip()
        first = await journal.claim("r", owner, seconds=1e9, new=True)
        with pytest.raises(RunTaken):
            await journal.claim("r", this_process(), seconds=30)
        process.kill()
    assert await journal.claim("r", this_process(), seconds=30) > first


async def test_two_writers_of_one_process(place: Place) -> None:
    """The second is told at once while the first lives; when that has ended without a release, the run is free."""
    mine, yours = place.open(), place.open()
    one, other = Owner(), Owner()
    first = await mine.claim("r", one.name, seconds=1e9, new=True)
    for journal in (mine, yours):
        with pytest.raises(RunTaken, match=f"driven by {one.name}"):
            await journal.claim("r", other.name, seconds=30)
    one.end()
    assert await yours.claim("r", other.name, seconds=30) > first
    with pytest.raises(RunTaken, match=f"taken over by {other.name}"):
        await mine.append("r", first, [step()])


# Questions


async def test_a_question_is_open_until_it_is_answered(place: Place) -> None:
    """By anybody, without a claim; the answer is among the run's events."""
    mine, yours = place.open(), place.open()
    epoch = await begin(mine, "r", asked())
    (question,) = await yours.questions()
    assert (question.run_id, question.name, question.asked) == ("r", "brief", asked())
    assert (await mine.run("r")).questions == 1
    await yours.answer("r", answered())
    await mine.append("r", epoch, [step()])
    assert (await mine.events("r"))[1:] == [asked(), answered(), step()]
    assert await mine.questions() == []
    assert (await mine.run("r")).questions == 0


async def test_questions_oldest_first(journal: Journal) -> None:
    """Of one run, or of all."""
    await begin(journal, "a", asked("a/2", at=3.0), asked("a/1", at=2.0), asked("a/3", at=3.0))
    await begin(journal, "b", asked("b/1", at=2.5), asked("b/2", at=3.0))
    assert [q.asked.path for q in await journal.questions()] == ["a/1", "b/1", "a/2", "a/3", "b/2"]
    assert [q.asked.path for q in await journal.questions("b")] == ["b/1", "b/2"]


CLOSED: list[tuple[list[Event], str]] = [
    ([], "run 'r' has never asked it"),
    ([asked(), answered(by="time-out")], "time-out answered it"),
    ([asked(), step(path="brief/ask")], "its step has ended"),
    ([asked(), StepFailed(path="brief/ask", at=2.0, error=ErrorInfo("X", "x"))], "its step has ended"),
    ([asked(), StepCancelled(path="brief/ask", at=2.0)], "its step has ended"),
    ([asked(), finished()], "run 'r' has ended: done"),
    ([asked(), CANCELLED], "run 'r' has ended: cancelled"),
    ([asked(), failed()], "run 'r' has ended: budget_exceeded"),
]


@pytest.mark.parametrize(("events", "reason"), CLOSED)
async def test_a_question_that_is_not_open_is_told(journal: Journal, events: list[Event], reason: str) -> None:
    """With the reason, and nothing is kept."""
    await begin(journal, "r", asked("else"), *events)
    with pytest.raises(QuestionClosed, match=f"brief/ask cannot be answered: {reason}"):
        await journal.answer("r", answered())
    assert (await journal.events("r"))[2:] == events
    assert all(q.asked.path == "else" for q in await journal.questions())


async def test_an_unknown_runs_question_is_told(journal: Journal) -> None:
    """As closed."""
    with pytest.raises(QuestionClosed, match="there is no run 'nobody'"):
        await journal.answer("nobody", answered())


async def test_many_answer_at_once(place: Place) -> None:
    """The first one counts; the others are told whose it is."""
    journals = await opened(place, 2)
    await begin(journals[0], "r", asked())
    told: list[str] = []

    async def answer(i: int) -> None:
        try:
            await journals[i % 2].answer("r", answered(by=f"person {i}"))
        except QuestionClosed as error:
            told.append(str(error))

    async with anyio.create_task_group() as tasks:
        for i in range(8):
            tasks.start_soon(answer, i)
    (kept,) = [e for e in await journals[0].events("r") if isinstance(e, QuestionAnswered)]
    assert len(told) == 7
    assert all(f"{kept.by} answered it" in t for t in told)


async def test_answers_and_appends_share_one_order(place: Place) -> None:
    """Whoever writes, nothing is lost and nothing overwritten."""
    mine, yours = await opened(place, 2)
    epoch = await begin(mine, "r", *[asked(f"q{i}") for i in range(10)])
    async with anyio.create_task_group() as tasks:
        for i in range(10):
            tasks.start_soon(mine.append, "r", epoch, [step(i)])
            tasks.start_soon(yours.answer, "r", answered(f"q{i}"))
    events = (await mine.events("r"))[11:]
    assert [e.output for e in events if isinstance(e, StepFinished)] == list(range(10))
    assert [e.path for e in events if isinstance(e, QuestionAnswered)] == [f"q{i}" for i in range(10)]


async def test_a_question_may_be_asked_again(journal: Journal) -> None:
    """By the next attempt of its step; then the newer one counts."""
    epoch = await begin(journal, "r", asked())
    await journal.answer("r", answered())
    await journal.append("r", epoch, [asked(at=5.0)])
    assert [q.asked for q in await journal.questions()] == [asked(at=5.0)]
    await journal.append("r", epoch, [asked(at=6.0)])
    assert [q.asked for q in await journal.questions("r")] == [asked(at=6.0)]
    assert (await journal.run("r")).questions == 1


async def test_a_question_outlives_its_process(journal: Journal) -> None:
    """It is open while the run is parked, and after a crash; and again when a run that had ended goes on."""
    epoch = await begin(journal, "r", asked(), WAITING, StepAbandoned(path="brief/ask", at=3.0))
    assert len(await journal.questions()) == 1
    await journal.append("r", epoch, [failed()])
    assert (await journal.questions("r"), (await journal.run("r")).questions) == ([], 0)
    await journal.append("r", epoch, [RESUMED])
    assert (await journal.run("r")).questions == 1
    await journal.answer("r", answered())


@pytest.mark.parametrize("path", ["\0", "\ud800", "\U0001f989" * 400])
async def test_a_question_of_any_path(journal: Journal, path: str) -> None:
    """Is answered by it."""
    await begin(journal, "r", asked(path))
    assert len(await journal.questions()) == 1
    await journal.answer("r", answered(path))
    assert await journal.questions() == []


# Cancellation


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_append_is_kept_whole_or_not_at_all(journal: Journal, turns: int) -> None:
    """Whenever that comes, and what is appended later is kept."""
    epoch = await begin(journal)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.append, "r", epoch, [step(1), step(2)])
        for _ in range(turns):
            await checkpoint()
        tasks.cancel_scope.cancel()
    await journal.append("r", epoch, [step(3)])
    assert (await journal.events("r"))[1:] in ([step(3)], [step(1), step(2), step(3)])


async def test_cancelling_some_leaves_the_others(journal: Journal) -> None:
    """Those that wait in the same group."""
    epochs = [await begin(journal, f"r{i}") for i in range(20)]
    async with anyio.create_task_group() as tasks, anyio.create_task_group() as cancelled:
        for i, epoch in enumerate(epochs):
            group = cancelled if i % 2 else tasks
            group.start_soon(journal.append, f"r{i}", epoch, [step(i)])
        await checkpoint()
        cancelled.cancel_scope.cancel()
    for i in range(0, 20, 2):
        assert (await journal.events(f"r{i}"))[1:] == [step(i)]


async def test_answers_are_kept_for_later_questions(journal: Journal) -> None:
    """Those that were to be, of all runs of a name, oldest first; the newest where there are many."""
    for n in range(3):
        epoch = await begin(journal, f"r{n}", asked(f"brief/pay[{n}]/approve"), asked("brief/other"))
        verdict = QuestionAnswered(
            path=f"brief/pay[{n}]/approve", at=5.0 + n, verdict="deny", by="ada", because="no " * 100, keep=True
        )
        await journal.answer(f"r{n}", verdict)
        await journal.answer(f"r{n}", QuestionAnswered(path="brief/other", at=6.0, verdict="answer", by="ada"))
        await journal.release(f"r{n}", epoch)
    kept = await journal.guidance("brief")
    assert [(g.run_id, g.asked.path, g.place, g.answered.at) for g in kept] == [
        (f"r{n}", f"brief/pay[{n}]/approve", "brief/pay/approve", 5.0 + n) for n in range(3)
    ]
    assert kept[0].answered.because == "no " * 100
    assert [g.run_id for g in await journal.guidance("brief", limit=2)] == ["r1", "r2"]
    assert await journal.guidance("brief", limit=0) == await journal.guidance("another") == []


async def test_a_fork_does_not_keep_again_what_its_past_had_kept(journal: Journal) -> None:
    """Its parent has; what is answered in the fork it keeps."""
    kept = QuestionAnswered(path="brief/ask", at=5.0, verdict="answer", by="ada", value="this", keep=True)
    for run_id in ("r", "fork", "fork of it"):
        await begin(journal, run_id, asked(), kept, *([] if run_id == "r" else [FORKED]))
    await begin(journal, "another", FORKED, asked(), kept)
    assert [g.run_id for g in await journal.guidance("brief")] == ["r", "another"]


# Notes


async def test_notes_are_kept_by_name(place: Place) -> None:
    """Written, replaced and taken away, for whoever opens the place; each space on its own."""
    journal, other = place.open(), place.open()
    await journal.write_note("a", "x", "1")
    place.clock.now += 5
    await journal.write_note("a", "w", "2" * 5_000)
    await journal.write_note("b", "x", "3")
    assert await other.notes("a") == [Note("w", "2" * 5_000, 1_000_005.0), Note("x", "1", 1_000_000.0)]
    await other.write_note("a", "x", "4")
    await other.write_note("a", "w", None)
    await other.write_note("a", "never", None)
    assert await journal.notes("a") == [Note("x", "4", 1_000_005.0)]
    assert await journal.notes("b") == [Note("x", "3", 1_000_005.0)]
    assert await journal.notes("c") == []


async def test_notes_written_side_by_side(journal: Journal) -> None:
    """All are kept, with what a run appends meanwhile; of one name the last."""
    epoch = await begin(journal)
    async with anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(journal.write_note, "a", f"{n % 10}", f"{n}")
            tasks.start_soon(journal.append, "r", epoch, [step(n)])
    assert [(note.name, note.text) for note in await journal.notes("a")] == [(f"{n}", f"{n + 10}") for n in range(10)]
    assert len(await journal.events("r")) == 21


@pytest.mark.parametrize("text", ODD)
async def test_a_note_may_hold_any_text(journal: Journal, text: str) -> None:
    """But for NUL and lone surrogates, which databases do not take."""
    await journal.write_note(text, text, text + "\ud800")
    kept = text.replace("\0", "\ufffd")
    assert [(note.name, note.text) for note in await journal.notes(text)] == [(kept, kept + "?")]


async def test_names_are_in_order(journal: Journal) -> None:
    """Of their code points, in every store."""
    names = ["", " ", "A", "B", "_", "a", "b", "ä", "é", "\uffee", "\U0001f989"]
    for name in reversed(names):
        await journal.write_note("s", name, name)
    assert [note.name for note in await journal.notes("s")] == names
