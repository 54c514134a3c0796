"""Operations on runs, for every store: who may write to a run, and what.

A store reads the runs that some operations touch, lets `Records` carry these out, and writes what has changed, in one
transaction. An operation that is refused changes nothing, and the others are none the worse.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from agentrt.errors import JournalError, QuestionClosed, RunTaken
from agentrt.events import Event, QuestionAnswered, RunParked
from agentrt.journal import Note
from agentrt.owner import has_died
from agentrt.stores.content import to_row
from agentrt.stores.record import RunRow, writable


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
    """Take a run over, or make a new one."""

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
    """Hold a claim for longer."""

    def __init__(self, run_id: str, epoch: int, seconds: float) -> None:
        super().__init__(run_id)
        self._epoch = epoch
        self._seconds = seconds

    def apply(self, records: Records) -> None:
        records.fenced(self.run_id, self._epoch).until = records.now + self._seconds


class Release(Operation):
    """Give a claim back, unless another holds the run."""

    def __init__(self, run_id: str, epoch: int) -> None:
        super().__init__(run_id)
        self._epoch = epoch

    def apply(self, records: Records) -> None:
        run = records.find(self.run_id)
        if run.epoch == self._epoch:
            run.owner, run.until = None, 0.0


class Append(Operation):
    """Add events to a run."""

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
    """Answer a question, whoever holds its run."""

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
    """Write a note, or take it away."""

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
    """Return the error for a run that a store does not hold."""
    return JournalError(f"no run {run_id!r} in {where}: `agentrt runs` lists them")


def _until(seconds: float) -> str:
    try:
        return "until " + datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):  # beyond what calendars hold
        return "for ever"
