"""The rules of the record, for every store: who may write to a run, and what its summary and questions become.

A store reads the runs that some operations touch, lets `Records` carry these out, and writes what has changed, in one
transaction. An operation that is refused changes nothing, and the others are none the worse.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple

from agentrt.errors import JournalError, QuestionClosed, RunTaken
from agentrt.events import (
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
    StepCancelled,
    StepFailed,
    StepFinished,
    UsageRecorded,
)
from agentrt.journal import Note, RunSummary
from agentrt.owner import has_died
from agentrt.result import StopReason
from agentrt.stores.content import Row, to_row
from agentrt.usage import Usage

_MOST: Final = 2**63 - 1
"""The greatest number that databases hold."""
_STEP_ENDED: Final = "its step has ended"
_WITHDRAWN: Final = "its run does not wait for it any more"
_WAITING: Final = "waiting"


@dataclass(slots=True)
class QuestionRow:
    """Hold a question: where in the run it was asked, when, and why it is closed if it is."""

    seq: int
    asked: float
    closed: str | None = None

    @property
    def is_answered(self) -> bool:
        return self.closed not in {None, _STEP_ENDED, _WITHDRAWN}


class Kept(NamedTuple):
    """Name an answer to be kept for later questions: where in the run its question and it are, and when it came."""

    asked: int
    answered: int
    at: float


@dataclass(slots=True)
class RunRow:
    """Hold what a store knows of a run besides its events; `COLUMNS` says which of it is the run's row.

    id: the store's own key, None before the first write. events: how many there are. questions: how many are neither
    answered nor withdrawn. asked: the questions by path: all of these, and those that the operations name.
    added, changed, kept: the events, the questions and the answers for later questions that are to be written.
    """

    id: int | None
    run_id: str
    name: str
    status: str
    started: float
    ended: float | None = None
    target: str | None = None
    parent: str | None = None
    owner: str | None = None
    epoch: int = 0
    until: float = 0.0
    tokens: int = 0
    cost: int = 0
    events: int = 0
    questions: int = 0
    worked: float = 0.0
    latest: float = 0.0
    due: float | None = None
    asked: dict[str, QuestionRow] = field(default_factory=dict)
    added: list[tuple[int, Row]] = field(default_factory=list)
    changed: dict[str, QuestionRow] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)

    def summary(self) -> RunSummary:
        """Return what users see of the run; one that has ended has no open questions."""
        return RunSummary(
            run_id=self.run_id,
            name=self.name,
            status=self.status,
            started=self.started,
            ended=self.ended,
            tokens=self.tokens,
            cost=self.cost,
            questions=self.questions if self.ended is None else 0,
            target=self.target,
            parent=self.parent,
            owner=self.owner,
            until=self.until,
            worked=self.worked,
            latest=self.latest,
            due=self.due,
        )

    def append(self, events: Iterable[Event], rows: Iterable[Row]) -> None:
        """Add events, and let the summary and the questions follow."""
        for event, row in zip(events, rows, strict=True):
            self.events += 1
            self.added.append((self.events, row))
            self._work(event)
            if (follow := _FOLLOW.get(type(event))) is not None:
                follow(self, event)

    def _work(self, event: Event) -> None:
        """Count the time between two events, unless it is that before a part of the run or before an answer."""
        if isinstance(event, QuestionAnswered):
            return
        if self.latest and not isinstance(event, RunStarted | RunResumed | RunForked):
            self.worked += max(event.at - self.latest, 0.0)
        self.latest = event.at

    def ask(self, event: QuestionAsked) -> None:
        path = writable(event.path)
        self.close(path, _STEP_ENDED)
        self.asked[path] = self.changed[path] = QuestionRow(self.events, event.at)
        self.questions += 1

    def open(self, path: str) -> QuestionRow | None:
        """Return a question, if it is open."""
        question = self.asked.get(path)
        return question if question is not None and question.closed is None else None

    def close(self, path: str, reason: str) -> None:
        """Close a question, if it is open."""
        if (question := self.open(path)) is not None:
            question.closed = reason
            self.changed[path] = question
            self.questions -= 1

    def reopen(self, path: str) -> None:
        """Ask a question again that was closed without an answer."""
        question = self.asked.get(path)
        if question is not None and question.closed is not None and not question.is_answered:
            question.closed = None
            self.changed[path] = question
            self.questions += 1

    def go_on(self) -> None:
        """Begin a part of the run."""
        self.status, self.ended, self.due = "running", None, None

    def use(self, tokens: int, cost: int) -> None:
        self.tokens, self.cost = min(tokens, _MOST), min(cost, _MOST)


COLUMNS: Final = tuple(n for n in RunRow.__dataclass_fields__ if n not in {"id", "asked", "added", "changed", "kept"})
COUNTS: Final = COLUMNS[COLUMNS.index("until") :]
"""What changes all the time, and is in no index."""
columns: Final[Callable[[RunRow], tuple[Any, ...]]] = attrgetter(*COLUMNS)


def _started(run: RunRow, event: RunStarted) -> None:
    run.go_on()
    run.name, run.started = writable(event.name), event.at
    run.target = None if event.target is None else writable(event.target)
    run.parent = None if event.parent is None else writable(event.parent)


def _resumed(run: RunRow, _: RunResumed) -> None:
    run.go_on()


def _forked(run: RunRow, event: RunForked) -> None:
    """Leave out what was recorded before: that is another run's, and paid, and kept if it was to be."""
    run.go_on()
    run.started, run.worked = event.at, 0.0
    run.use(0, 0)
    run.kept.clear()


def _parked(run: RunRow, event: RunParked) -> None:
    waited_for = {writable(path) for path in event.questions}
    is_answered = any(question.is_answered for path, question in run.asked.items() if path in waited_for)
    run.status, run.due = _WAITING, 0.0 if is_answered else event.due
    for path in set(run.asked) - waited_for:
        run.close(path, _WITHDRAWN)
    for path in waited_for:
        run.reopen(path)
    _used(run, event.usage)


def _ended(run: RunRow, event: RunFinished | RunFailed | RunCancelled) -> None:
    run.status = str(StopReason.CANCELLED if isinstance(event, RunCancelled) else event.stop_reason)
    run.ended, run.due = event.at, None
    _used(run, event.usage)


def _used(run: RunRow, total: Usage) -> None:
    run.use(total.tokens, total.cost)


def _recorded(run: RunRow, event: UsageRecorded) -> None:
    run.use(run.tokens + event.usage.tokens, run.cost + event.usage.cost)


def _step_ended(run: RunRow, event: StepFinished | StepFailed | StepCancelled) -> None:
    if run.questions:
        run.close(writable(event.path), _STEP_ENDED)


def _answered(run: RunRow, event: QuestionAnswered) -> None:
    path = writable(event.path)
    if (question := run.open(path)) is None:
        return
    if event.keep:
        run.kept.append(Kept(question.seq, run.events, event.at))
    if run.status == _WAITING:
        run.due = 0.0
    run.close(path, f"{writable(event.by)} answered it")


_FOLLOW: Final[dict[type[Event], Callable[[RunRow, Any], None]]] = {
    RunStarted: _started,
    RunResumed: _resumed,
    RunForked: _forked,
    RunParked: _parked,
    RunFinished: _ended,
    RunFailed: _ended,
    RunCancelled: _ended,
    StepFinished: _step_ended,
    StepFailed: _step_ended,
    StepCancelled: _step_ended,
    UsageRecorded: _recorded,
    QuestionAsked: RunRow.ask,
    QuestionAnswered: _answered,
}


def writable(text: str) -> str:
    """Return the text without what databases refuse: lone surrogates and NUL."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


class Operation(ABC):
    """Be one change of one run, or of the notes; once carried out it has a `result` or an `error`."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.result = 0
        self.error: JournalError | None = None

    @property
    def paths(self) -> Collection[str]:
        """Return the paths of the questions that must be known, besides those that are open."""
        return ()

    @abstractmethod
    def apply(self, records: Records) -> int | None:
        """Change the run, or raise `JournalError` before anything is changed."""


class Claim(Operation):
    def __init__(self, run_id: str, owner: str, seconds: float, new: bool) -> None:
        super().__init__(run_id)
        self._owner = writable(owner)
        self._seconds = seconds
        self._new = new

    def apply(self, records: Records) -> int:
        run = records.create(self.run_id) if self._new else records.find(self.run_id)
        if run.owner not in {None, self._owner} and run.until > records.now and not has_died(str(run.owner)):
            raise RunTaken(
                f"run {run.run_id!r} in {records.where} is driven by {run.owner}, whose claim holds "
                f"{_until(run.until)} unless it is renewed: wait for that, or stop that process"
            )
        run.epoch += 1
        run.owner, run.until = self._owner, records.now + self._seconds
        return run.epoch


class Renew(Operation):
    def __init__(self, run_id: str, epoch: int, seconds: float) -> None:
        super().__init__(run_id)
        self._epoch = epoch
        self._seconds = seconds

    def apply(self, records: Records) -> None:
        records.fenced(self.run_id, self._epoch).until = records.now + self._seconds


class Release(Operation):
    def __init__(self, run_id: str, epoch: int) -> None:
        super().__init__(run_id)
        self._epoch = epoch

    def apply(self, records: Records) -> None:
        run = records.find(self.run_id)
        if run.epoch == self._epoch:
            run.owner, run.until = None, 0.0


class Append(Operation):
    def __init__(self, run_id: str, epoch: int, events: Sequence[Event]) -> None:
        super().__init__(run_id)
        self._epoch = epoch
        self._events = events
        self._rows = [to_row(e) for e in events]

    @property
    def paths(self) -> Collection[str]:
        return {writable(path) for event in self._events if isinstance(event, RunParked) for path in event.questions}

    def apply(self, records: Records) -> None:
        records.fenced(self.run_id, self._epoch).append(self._events, self._rows)


class Answer(Operation):
    def __init__(self, run_id: str, answered: QuestionAnswered) -> None:
        super().__init__(run_id)
        self._answered = answered
        self._row = to_row(answered)

    @property
    def paths(self) -> Collection[str]:
        return {writable(self._answered.path)}

    def apply(self, records: Records) -> None:
        run = records.runs.get(self.run_id)
        question = None if run is None else run.asked.get(writable(self._answered.path))
        if run is None:
            reason = f"there is no run {self.run_id!r} in {records.where}"
        elif question is None:
            reason = f"run {self.run_id!r} has never asked it"
        elif question.closed is not None:
            reason = question.closed
        elif run.ended is not None:
            reason = f"run {self.run_id!r} has ended: {run.status}"
        else:
            run.append([self._answered], [self._row])
            return
        raise QuestionClosed(f"the question of {self._answered.path} cannot be answered: {reason}")


class WriteNote(Operation):
    def __init__(self, space: str, name: str, text: str | None) -> None:
        super().__init__("")
        self._key = writable(space), writable(name)
        self._text = None if text is None else writable(text)

    def apply(self, records: Records) -> None:
        records.notes[self._key] = None if self._text is None else Note(self._key[1], self._text, records.now)


class OperatedJournal(ABC):
    """Be the half of a journal that writes: each of its methods is an operation, which the store carries out."""

    @abstractmethod
    async def _carry_out(self, operation: Operation) -> None:
        """Carry an operation out, and note on it how that ended."""

    async def claim(self, run_id: str, owner: str, *, seconds: float, new: bool = False) -> int:
        return await self._do(Claim(run_id, owner, seconds, new))

    async def renew(self, run_id: str, epoch: int, *, seconds: float) -> None:
        await self._do(Renew(run_id, epoch, seconds))

    async def release(self, run_id: str, epoch: int) -> None:
        await self._do(Release(run_id, epoch))

    async def append(self, run_id: str, epoch: int, events: Sequence[Event]) -> None:
        await self._do(Append(run_id, epoch, events))

    async def answer(self, run_id: str, answered: QuestionAnswered) -> None:
        await self._do(Answer(run_id, answered))

    async def write_note(self, space: str, name: str, text: str | None) -> None:
        await self._do(WriteNote(space, name, text))

    async def _do(self, operation: Operation) -> int:
        await self._carry_out(operation)
        if operation.error is not None:
            raise operation.error
        return operation.result


class Records:
    """Hold the runs that one transaction works on, by id; `now` is its time, `where` names the store.

    notes: those that are to be written, None for one that is to be taken away, by space and name.
    """

    def __init__(self, where: object, now: float, runs: dict[str, RunRow]) -> None:
        self.where = where
        self.now = now
        self.runs = runs
        self.notes: dict[tuple[str, str], Note | None] = {}

    def carry_out(self, operations: Iterable[Operation]) -> None:
        """Apply the operations in their order; one that is refused keeps its error."""
        for operation in operations:
            operation.error = None
            try:
                operation.result = operation.apply(self) or 0
            except JournalError as error:
                operation.error = error

    def create(self, run_id: str) -> RunRow:
        if run_id in self.runs:
            raise JournalError(f"{self.where} already holds a run {run_id!r}: give the new one another id")
        if run_id != writable(run_id):
            raise JournalError(f"a run cannot be called {run_id!r}: leave out NUL and lone surrogates")
        run = self.runs[run_id] = RunRow(None, run_id, "", "running", self.now)
        return run

    def find(self, run_id: str) -> RunRow:
        if (run := self.runs.get(run_id)) is None:
            raise unknown_run(run_id, self.where)
        return run

    def fenced(self, run_id: str, epoch: int) -> RunRow:
        """Return a run to whoever holds its last claim; raises `RunTaken` to anybody else."""
        run = self.find(run_id)
        if run.epoch != epoch:
            owner = run.owner or "a process that has released it since"
            until = f" {_until(run.until)}" if run.owner else ""
            raise RunTaken(
                f"run {run_id!r} in {self.where} was taken over by {owner}{until} (claim {run.epoch}, this one was "
                f"{epoch}): nothing was written; let that process finish, or claim the run again"
            )
        return run


def unknown_run(run_id: str, where: object) -> JournalError:
    return JournalError(f"no run {run_id!r} in {where}: `agentrt runs` lists them")


def _until(seconds: float) -> str:
    try:
        return "until " + datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):  # beyond what calendars hold
        return "for ever"
