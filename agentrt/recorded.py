"""Recorded: what a run's record tells, folded from its events in their order (rule P1).

Every step has at most one outcome here, that of its last attempt; what the attempts before had called is forgotten,
but what they had spent is not. What was under way when the record ends has no outcome: it is run again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from agentrt.budget import DIMENSIONS, MODEL_CALLS, STEPS, TOOL_CALLS
from agentrt.events import (
    AttemptStarted,
    BudgetExhausted,
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
    lost: the steps right below that were cancelled since it last did anything; lost_before: those before them.
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
        "is_counted",
        "is_given_up",
        "is_running",
        "lost",
        "lost_before",
        "place",
        "policy",
        "question",
        "remembers",
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
        self.lost_before: list[str] = []
        self.awaits_attempt = False
        self.place = 0
        self.attempts = 0
        self.policy = ""
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
        self.fork: RunForked | None = None
        self.closing: Closing | None = None
        self.steps: dict[str, RecordedStep] = {}
        self.below: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.reserved: dict[str, Usage] = {}
        self.usage = Usage()
        self.parts = 0
        self.trace: Mapping[str, str] = {}
        self._spent: dict[str, list[int]] = {}
        self._length = 0
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Take in the next event."""
        self._length += 1
        self._add_to_run(event)
        self._add_spending(event)
        self._add_to_step(event)

    def _add_to_run(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.run, self.parts = event, 1
            case RunForked():
                self.fork, self.usage, self.parts = event, Usage(), 0
                self._spent.clear()
                self.reserved.clear()
            case RunResumed():
                self.reopen()
                self.closing = None
                self.parts += 1
            case Traced():
                self.trace = event.carrier
            case RunParked() | RunFinished() | RunFailed() | RunCancelled():
                self.closing = event

    def reopen(self) -> None:
        """Forget the answer and the last words of a run that was out of budget: it goes on without them (rule E5)."""
        if self.run is None or not isinstance(self.closing, RunFinished) or self.closing.stop_reason == "done":
            return
        root = self._step(self.run.name)
        root.ended = None
        for path in self.below[self.run.name].keys() - root.before:
            self._forget(path)

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
                step = self._step(event.path)
                self._goes_on(step)
                step.ended, step.place, step.attempts, step.is_running = event, self._length, 0, False
            case StepRetried():
                step = self._step(event.path)
                step.attempts, step.began, step.spends = step.attempts + 1, 0, 0
                # A model is tried again within its step; its attempts count no step.
                step.awaits_attempt = step.started is not None and step.started.kind != "chat"
                step.lost, step.lost_before, step.drawn = [], [], []
                self._forget_attempt(event.path)
            case AttemptStarted():
                self._step(event.path).awaits_attempt = False
            case StepCancelled():
                self._cancel(event.path)
            case StepParked():
                step = self._step(event.path)
                step.ended, step.is_running = None, False
                step.began = step.began_before  # it left by itself: what this start began is not in doubt
            case StepAbandoned():
                step = self._step(event.path)
                step.ended, step.is_running = None, False
            case BudgetExhausted():
                step = self._step(event.path)
                step.policy, step.before = event.policy, frozenset(self.below[event.path])
            case _:
                self._add_note(event)

    def _start(self, event: StepStarted) -> None:
        if (caller := self.steps.get(event.path.rpartition("/")[0])) is not None:
            self._goes_on(caller)
        step = self._step(event.path)
        step.started, step.ended, step.is_running = event, None, True
        step.is_counted = step.is_counted or bool(event.counts)
        step.is_given_up = False
        step.began_before = step.began
        step.lost, step.lost_before = [], []

    def _goes_on(self, caller: RecordedStep) -> None:
        """Take for given up what was cancelled below a step that now does something else."""
        if caller.lost:
            for path in caller.lost:
                self.steps[path].is_given_up = True
            caller.lost_before, caller.lost = caller.lost, []

    def _cancel(self, path: str) -> None:
        """Note that a step was cancelled; what was cancelled last below it was so with it, not by it."""
        step = self._step(path)
        step.ended, step.is_running = None, False
        if not step.lost:
            for below in step.lost_before:
                self.steps[below].is_given_up = False
        if (caller := self.steps.get(path.rpartition("/")[0])) is not None:
            caller.lost.append(path)

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
