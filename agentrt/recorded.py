"""Recorded: what a run's record tells, folded from its events in their order (rule P1).

Every step has at most one outcome here, that of its last attempt; what the attempts before had called is forgotten,
but what they had spent is not. What was under way when the record ends has no outcome: it is run again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from agentrt.budget import DIMENSIONS, MODEL_CALLS, STEPS, TOOL_CALLS
from agentrt.events import (
    AttemptStarted,
    BudgetExhausted,
    CallGivenUp,
    Counted,
    Drawn,
    EffectBegun,
    Event,
    QuestionAnswered,
    QuestionAsked,
    Remembered,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunForked,
    RunMismatched,
    RunParked,
    RunResumed,
    RunStarted,
    StepAbandoned,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepParked,
    StepRetried,
    StepStarted,
    Traced,
    UsageRecorded,
    UsageReserved,
)
from agentrt.ledger import vector
from agentrt.usage import Usage
from agentrt.value import Value

Closing = RunParked | RunFinished | RunFailed | RunCancelled


class Before(Value):
    """Say what came before a part of a run: what `RunResumed` tells of it. `parts` is how many there were."""

    kind: str = "resume"
    parts: int = 0
    usage: Usage = Usage()
    trace: Mapping[str, str] = {}
    answers: tuple[QuestionAnswered, ...] = ()


class RecordedStep:
    """Hold one step of a record.

    place: when its outcome came, among those of all steps. is_given_up: whether its caller cancelled it and went on.
    seconds: how long it had run when it was cancelled. is_void: whether a program began it that did otherwise than is
    on record. is_concurrent: whether it had calls side by side. lost: the steps right below that code has cancelled
    since it last did anything.
    """

    __slots__ = (
        "answer",
        "attempts",
        "awaits_attempt",
        "before",
        "began",
        "began_before",
        "drawn",
        "ended",
        "is_concurrent",
        "is_counted",
        "is_exhausted",
        "is_given_up",
        "is_running",
        "is_void",
        "lost",
        "place",
        "question",
        "remembers",
        "running",
        "seconds",
        "spends",
        "started",
    )

    def __init__(self) -> None:
        self.started: StepStarted | None = None
        self.ended: StepFinished | StepFailed | None = None
        self.is_running = False
        self.is_counted = False
        self.is_given_up = False
        self.lost: list[str] = []
        self.awaits_attempt = False
        self.place = 0
        self.attempts = 0
        self.is_exhausted = False
        self.is_void = False
        self.is_concurrent = False
        self.running = 0
        self.seconds = 0.0
        self.before: frozenset[str] = frozenset()
        self.drawn: list[Drawn] = []
        self.remembers = False
        self.spends = 0
        self.began = self.began_before = 0
        self.question: QuestionAsked | None = None
        self.answer: QuestionAnswered | None = None

    @property
    def is_denied(self) -> bool:
        return isinstance(self.ended, StepFailed) and self.ended.error.type == "BudgetExceeded"


class Recorded:
    """Hold a run's record: its steps by path, what was spent at and below each, and what is in doubt."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.run: RunStarted | None = None
        self.replaced: dict[str, object] = {}
        """The inputs that forks have given to the steps they began at, by path."""
        self.closing: Closing | None = None
        self.steps: dict[str, RecordedStep] = {}
        self.below: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.reserved: dict[str, Usage] = {}
        self.usage = Usage()
        self.parts = 0
        self.options: Mapping[str, object] = {}
        """How the run was started, or went on last."""
        self.trace: Mapping[str, str] = {}
        self._spent: dict[str, list[int]] = {}
        self._length = 0
        self._is_void = False
        events = list(events)
        void = _void_parts(events)
        for event, self._is_void in zip(events, void, strict=True):
            self.add(event)
        self._is_void = False

    def add(self, event: Event) -> None:
        """Take in the next event."""
        self._length += 1
        self._add_to_run(event)
        self._add_spending(event)
        self._add_to_step(event)

    def _add_to_run(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.run, self.parts, self.options = event, 1, event.options
            case RunForked():
                self._fork(event)
            case RunResumed():
                self.reopen()
                self.closing = None
                self.parts += 1
                self.options = {**self.options, **event.options}
            case Traced():
                self.trace = event.carrier
            case RunParked() | RunFinished() | RunFailed() | RunCancelled():
                self.closing = event

    def _fork(self, event: RunForked) -> None:
        """Take all that was recorded before for the past of a new run, which pays for none of it."""
        self.usage, self.parts, self.closing = Usage(), 0, None
        self._spent.clear()
        self.reserved.clear()
        if event.replaced:
            self.replaced[event.path] = event.input

    def reopen(self) -> None:
        """Forget what the next part of the run does anew (rule E5).

        That is what ended the last part with an error, what a budget refused and nobody went on from, and the answer
        and last words of a run that was out of budget.
        """
        if self.run is None:
            return
        root = self.steps.get(self.run.name)
        is_done = isinstance(self.closing, RunFinished) and self.closing.stop_reason == "done"
        if root is not None and root.is_exhausted and not is_done:
            root.ended, root.is_exhausted = None, False
            for path in self.below[self.run.name].keys() - root.before:
                self._forget(path)
            self._call_back(self.run.name)
        for path in list(_passed_on(self)):
            self.steps[path].ended = None
            self._call_back(path)

    def _call_back(self, path: str) -> None:
        """Let what a step had given up run again: it may do otherwise this time."""
        for below in self.below[path]:
            self.steps[below].is_given_up = False

    def _add_spending(self, event: Event) -> None:
        match event:
            case StepStarted() | AttemptStarted() | Counted():
                self._count(event.path, event.counts)
            case UsageReserved():
                self.reserved[event.path] = event.usage
                self._count(event.path, event.counts)
            case UsageRecorded():
                self.reserved.pop(event.path, None)
                self.usage += event.usage
                self._spend(event.path, vector(event.usage))

    def _add_to_step(self, event: Event) -> None:
        match event:
            case StepStarted():
                self._start(event)
            case StepFinished() | StepFailed():
                step = self._end(event.path)
                self._goes_on(step)
                step.ended, step.place, step.attempts = event, self._length, 0
            case StepRetried():
                step = self._step(event.path)
                step.attempts, step.began, step.spends = step.attempts + 1, 0, 0
                # A model is tried again within its step; its attempts count no step.
                step.awaits_attempt = step.started is not None and step.started.kind != "chat"
                step.lost, step.drawn = [], []
                self._forget_attempt(event.path)
            case AttemptStarted():
                self._step(event.path).awaits_attempt = False
            case StepCancelled():
                self._cancel(event)
            case CallGivenUp():
                self._cancel(event)
            case StepParked():
                step = self._end(event.path)
                step.ended = None
                step.began = step.began_before  # it left by itself: what this start began is not in doubt
            case StepAbandoned():
                self._end(event.path).ended = None
            case BudgetExhausted():
                step = self._step(event.path)
                step.is_exhausted, step.before = True, frozenset(self.below[event.path])
            case _:
                self._add_note(event)

    def _start(self, event: StepStarted) -> None:
        if (caller := self.steps.get(event.path.rpartition("/")[0])) is not None:
            self._goes_on(caller)
            caller.is_concurrent = caller.is_concurrent or caller.running > 0
            caller.running += 1
        step = self._step(event.path)
        step.is_void, step.running = self._is_void, 0
        step.started, step.ended, step.is_running = event, None, True
        step.is_counted = step.is_counted or bool(event.counts)
        step.is_given_up = False
        step.began_before = step.began
        step.lost = []

    def _goes_on(self, caller: RecordedStep) -> None:
        """Take for given up what code cancelled below a step that now does something else."""
        for path in caller.lost:
            self.steps[path].is_given_up = True
        caller.lost = []

    def _end(self, path: str) -> RecordedStep:
        step = self._step(path)
        if step.is_running and (caller := self.steps.get(path.rpartition("/")[0])) is not None:
            caller.running -= 1
        step.is_running = False
        return step

    def _cancel(self, event: StepCancelled | CallGivenUp) -> None:
        step = self._end(event.path)
        step.ended = None
        if step.started is not None:
            step.seconds = event.at - step.started.at
        caller = self.steps.get(event.path.rpartition("/")[0])
        if caller is not None and (isinstance(event, CallGivenUp) or event.given_up):
            caller.lost.append(event.path)

    def _add_note(self, event: Event) -> None:
        match event:
            case EffectBegun():
                self._step(event.path).began += 1
            case Counted():
                step = self._step(event.path)
                self._goes_on(step)
                step.spends += 1
            case Drawn():
                step = self._step(event.path)
                self._goes_on(step)
                step.drawn.append(event)
            case Remembered():
                self._step(event.path).remembers = True
            case QuestionAsked():
                step = self._step(event.path)
                step.question, step.answer = event, None
            case QuestionAnswered():
                self._step(event.path).answer = event

    @property
    def seed(self) -> str:
        """Return what the run's random numbers and ids follow from: its id, or that of the run it was forked from."""
        return "" if self.run is None else str(self.options.get("seed") or self.run.run_id)

    @property
    def total(self) -> Usage:
        """Return what the run has used, counts included."""
        spent = self.spent("")
        counts = {"model_calls": spent[MODEL_CALLS], "tool_calls": spent[TOOL_CALLS], "steps": spent[STEPS]}
        return msgspec.structs.replace(self.usage, **counts)

    @property
    def before(self) -> Before:
        """Return what the part that goes on from here has to tell; a fork shares its past, and has no part yet."""
        return Before(
            kind="resume" if self.parts else "fork",
            parts=self.parts,
            usage=self.total,
            trace=self.trace,
            answers=tuple(self._answers()),
        )

    def _answers(self) -> Iterator[QuestionAnswered]:
        """Return the answers to questions whose steps have not ended, without what they say: that is on record once."""
        for step in self.steps.values():
            if step.question is not None and step.answer is not None and step.ended is None:
                answer = step.answer
                waited = max(0.0, answer.at - step.question.at)
                yield QuestionAnswered(answer.path, answer.at, answer.verdict, answer.by, waited=waited)

    def spent(self, path: str) -> Sequence[int]:
        """Return what the step at a path and all below it have spent, by dimension; the whole run's for ''."""
        return self._spent.get(path) or [0] * len(DIMENSIONS)

    def spent_on(self, paths: Iterable[str]) -> Sequence[int]:
        """Return what several steps have spent together."""
        return [sum(amounts) for amounts in zip(*map(self.spent, paths), [0] * len(DIMENSIONS), strict=True)]

    def cut_off(self, at: float) -> Iterator[Event]:
        """Return what is to be recorded of what the end of the process cut off, the innermost steps first.

        A call whose bill nobody knows is charged at its maximum (rule B9).
        """
        for path, usage in self.reserved.items():
            yield UsageRecorded(path=path, at=at, usage=usage)
        for path, step in reversed(self.steps.items()):
            if step.is_running:
                yield StepAbandoned(path=path, at=at)

    def _step(self, path: str) -> RecordedStep:
        if (step := self.steps.get(path)) is None:
            step = self.steps[path] = RecordedStep()
            self.below[path.rpartition("/")[0]][path] = None
        return step

    def _forget_attempt(self, path: str) -> None:
        """Forget what an attempt that failed had called: the next one calls under the same paths, on new accounts.

        What people have answered holds for the next.
        """
        kept = {p: self.steps[p] for p in self._under(path) if holds(p, self.steps[p], path)}
        for child in list(self.below[path]):
            self._forget(child)
        for known, asked in kept.items():
            step = self._step(known)
            step.question, step.answer = asked.question, asked.answer

    def _forget(self, path: str) -> None:
        for child in list(self.below[path]):
            self._forget(child)
        self._spent.pop(path, None)
        del self.steps[path], self.below[path.rpartition("/")[0]][path]

    def _under(self, path: str) -> Iterator[str]:
        """Return all steps below a path."""
        for child in self.below[path]:
            yield child
            yield from self._under(child)

    def _count(self, path: str, counts: Sequence[str]) -> None:
        if counts:
            self._spend(path, [counts.count(name) for name in DIMENSIONS])

    def _spend(self, path: str, amounts: Sequence[int]) -> None:
        for scope in _around(path):
            total = self._spent.setdefault(scope, [0] * len(DIMENSIONS))
            for d, amount in enumerate(amounts):
                total[d] += amount


def _void_parts(events: Sequence[Event]) -> Iterator[bool]:
    """Say of each event whether a part of the run holds it that a mismatch ended: another program's, perhaps."""
    parts: list[list[bool]] = [[]]
    for event in events:
        if isinstance(event, RunStarted | RunForked | RunResumed):
            parts.append([])
        parts[-1].append(False)
        if isinstance(event, RunMismatched):
            parts[-1] = [True] * len(parts[-1])
    return chain.from_iterable(parts)


def _passed_on(recorded: Recorded) -> Iterator[str]:
    """Return the steps whose error ended the run, or passed through them unanswered."""
    if isinstance(recorded.closing, RunFailed):
        path = recorded.closing.path
        while path:
            yield from _failed_at(path, recorded)
            path = path.rpartition("/")[0]
    for path, step in recorded.steps.items():
        around = recorded.steps.get(path.rpartition("/")[0])
        if step.is_denied and (around is None or around.ended is None or around.is_denied):
            yield path


def _failed_at(path: str, recorded: Recorded) -> Iterator[str]:
    """Return a step that failed, and those below that its error comes of; none where an edge out of it failed."""
    step = recorded.steps.get(path)
    if step is not None and isinstance(step.ended, StepFailed):
        yield path
        for below in step.ended.of:
            yield from _failed_at(below, recorded)


def holds(path: str, step: RecordedStep, tried: str) -> bool:
    """Say whether what a step asked people holds for the next attempt of the step at `tried`, around it.

    An approval is one of the call right around it; of a call that may have had its effect people are asked each time.
    """
    if step.question is None or step.answer is None:
        return False
    return step.question.kind == "ask" or (step.question.kind == "approve" and path.rpartition("/")[0] == tried)


def _around(path: str) -> Iterator[str]:
    """Return a path, those of the steps around it, and '' for the run."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""
