"""The rows of runs, for every store: what events make of a run's summary and its questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple

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
from agentrt.journal import RunSummary
from agentrt.result import StopReason
from agentrt.stores.content import Row
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
