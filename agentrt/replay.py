"""Replay: a recorded run as the past of one that goes on, or is gone through again.

Finished steps answer with what is recorded, read back as the types their nodes declare. A step is known by its path;
that it is still the same step, and asked the same, is checked, since code between steps has to be deterministic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

import msgspec
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from agentrt.errors import AgentrtError, ReplayMismatch
from agentrt.events import (
    NOT_JSON,
    Drawn,
    ErrorInfo,
    QuestionAnswered,
    QuestionAsked,
    RunFailed,
    StepFailed,
    StepFinished,
    plain,
)
from agentrt.handoff import Handoff
from agentrt.ledger import Limit
from agentrt.node import Node
from agentrt.partial import Partial
from agentrt.plan import Activation, Failure
from agentrt.progress import MISSING, Past
from agentrt.question import Question
from agentrt.recorded import Recorded, RecordedStep, holds

_FORMS: Final = {"Partial": Partial, "Handoff": Handoff}
_LEAVES: Final = frozenset({"chat", "tool", "retrieval", Question.kind})


class RecordedPast(Past):
    """Be the past of a run that goes on in another process.

    `rerun_changed` runs steps anew that are not what the record says, instead of refusing. `again` goes through a
    whole run: only leaves answer from the record, and what code makes of them is compared with it.
    """

    def __init__(self, recorded: Recorded, *, rerun_changed: bool = False, again: bool = False) -> None:
        self.recorded = recorded
        self._rerun_changed = rerun_changed
        self._again = again
        self._steps = recorded.steps
        self._asked: set[str] = set()
        self._changed: set[str] = set()
        self._unfinished = frozenset(() if again else _passed_on(recorded))

    def outcome(self, activation: Activation) -> Any:
        """Return a finished step's outcome; raises `ReplayMismatch`."""
        path, step = activation.path, self._step(activation.path)
        self._replace_input(activation)
        if step is not None:
            self._asked.add(path)
            if self._is_same(activation, step) and self._answers(path, step):
                return self._outcome(activation, step)
        if self._again and self._is_new(activation, step) and not self.is_given_up(path):
            asked = (activation.node.name, plain(activation.value))
            raise ReplayMismatch(path, recorded=("nothing", "no outcome"), asked=asked)
        return MISSING

    def place(self, path: str) -> int | None:
        step = self._step(path)
        return None if step is None or not self._has_outcome(step) else step.place

    def is_counted(self, path: str) -> bool:
        step = self._step(path)
        return step is not None and step.is_counted and not self._again

    def limits(self, path: str) -> tuple[Limit, ...]:
        return ()

    def branch(self, path: str) -> Limit | None:
        return None

    def spent(self, path: str) -> Sequence[int]:
        return () if self._again else self.recorded.spent(path)

    def spent_on_branch(self, path: str, label: str) -> Sequence[int]:
        if self._again:
            return ()
        return self.recorded.spent_on(p for p in self.recorded.below.get(path, ()) if _is_on(p, label))

    def restarted(self, path: str) -> Past | None:
        return self if self._again else AnsweredPast(self.recorded, path)  # again: it must not reach models and tools

    def attempts(self, path: str) -> int:
        step = self._step(path)
        return 0 if step is None or self._again else step.attempts

    def awaits_attempt(self, path: str) -> bool:
        step = self._step(path)
        return step is not None and step.awaits_attempt and not self._again

    def is_given_up(self, path: str) -> bool:
        step = self._step(path)
        around = path.rpartition("/")[0]  # if it failed with the run, it may do otherwise now
        return step is not None and step.is_given_up and around not in self._unfinished

    def is_over(self, path: str) -> bool:
        step = self._step(path)
        return step is not None and self._has_outcome(step)

    def mismatch(self, path: str, output: object) -> ReplayMismatch | None:
        """Return where a step differs that was gone through once more: in its output, or in what it did not call."""
        step = self._step(path)
        if step is None or step.started is None:
            return None
        if step.started.kind != "graph" and (missed := self.unasked(path)):
            return ReplayMismatch(path, recorded=("it called", missed), asked=("it did not", missed))
        if isinstance(step.ended, StepFinished) and self._has_outcome(step) and plain(output) != step.ended.output:
            return ReplayMismatch(path, recorded=("it returned", step.ended.output), asked=("it returned", output))
        if isinstance(step.ended, StepFailed) and self._has_outcome(step):
            return ReplayMismatch(path, recorded=("it raised", step.ended.error), asked=("it returned", output))
        return None

    def question(self, path: str) -> tuple[QuestionAsked | None, QuestionAnswered | None]:
        step = self._steps.get(path)
        return (None, None) if step is None else (step.question, step.answer)

    def spends(self, path: str) -> int:
        step = self._step(path)
        return 0 if step is None or self._again else step.spends

    def doubts(self, path: str) -> int:
        step = self._step(path)
        return 0 if step is None else step.began

    def drawn(self, path: str) -> Iterator[Drawn]:
        step = self._step(path)
        return iter(step.drawn if step is not None else ())

    def unasked(self, path: str) -> Sequence[str]:
        """Return the recorded steps right below one that it has not asked for this time."""
        return [
            p for p in self.recorded.below.get(path, ()) if p not in self._asked and self._has_outcome(self._steps[p])
        ]

    def _is_new(self, activation: Activation, step: RecordedStep | None) -> bool:
        """Say whether a replay would have to ask a model, use a tool, or ask people what they were not asked."""
        kind = activation.node.kind
        return kind in _LEAVES and (step is None or kind != Question.kind)

    def _replace_input(self, activation: Activation) -> None:
        """Give the step that a fork begins with the input it was given there."""
        fork = self.recorded.fork
        if fork is not None and fork.replaced and activation.path == fork.path:
            try:
                activation.value = input_of(activation.node, fork.input, fork.path)
            except ReplayMismatch as error:
                raise ReplayMismatch.misfit(fork.path, activation.node.input, error.__cause__) from error

    def _step(self, path: str) -> RecordedStep | None:
        step = self._steps.get(path)
        return None if step is None or step.started is None or self._is_changed(path) else step

    def _is_changed(self, path: str) -> bool:
        """Say whether a step is one that changed, or below one."""
        while path and self._changed:
            if path in self._changed:
                return True
            path = path.rpartition("/")[0]
        return False

    def _is_same(self, activation: Activation, step: RecordedStep) -> bool:
        """Say whether a step is what the record says; raises `ReplayMismatch` if not, unless it may be run anew."""
        started = step.started
        assert started is not None
        asked = plain(activation.value)
        if (activation.node.name, asked) == (started.name, started.input):
            return True
        if self._rerun_changed:
            self._changed.add(activation.path)
            return False
        raise ReplayMismatch(
            activation.path, recorded=(started.name, started.input), asked=(activation.node.name, asked)
        )

    def _answers(self, path: str, step: RecordedStep) -> bool:
        """Say whether a step answers from the record; one that used its branch's memory rebuilds it."""
        if not self._has_outcome(step) or path in self._unfinished:
            return False
        started = step.started
        return started is not None and (started.kind in _LEAVES if self._again else not step.remembers)

    def _has_outcome(self, step: RecordedStep) -> bool:
        return step.ended is not None and step.ended.path not in self._unfinished

    def _outcome(self, activation: Activation, step: RecordedStep) -> Any:
        ended = step.ended
        if isinstance(ended, StepFailed):
            return Failure(activation.path, activation.value, error_of(ended.error))
        assert ended is not None
        return output_of(activation.node, ended)


class AnsweredPast(Past):
    """Be the past of a step's next attempts: nothing but what people have answered in those before."""

    def __init__(self, recorded: Recorded, tried: str) -> None:
        self._steps = recorded.steps
        self._tried = tried

    def outcome(self, activation: Activation) -> Any:
        return MISSING

    def place(self, path: str) -> int | None:
        return None

    def is_counted(self, path: str) -> bool:
        return False

    def limits(self, path: str) -> tuple[Limit, ...]:
        return ()

    def branch(self, path: str) -> Limit | None:
        return None

    def restarted(self, path: str) -> Past | None:
        return self

    def question(self, path: str) -> tuple[QuestionAsked | None, QuestionAnswered | None]:
        step = self._steps.get(path)
        return (step.question, step.answer) if step is not None and holds(path, step, self._tried) else (None, None)


def output_of(node: Node[Any, Any], ended: StepFinished) -> Any:
    """Return a recorded output as the type its node declares; raises `ReplayMismatch` where it is none of it."""
    try:
        if ended.form in _FORMS:
            return msgspec.convert(ended.output, _FORMS[ended.form])
        if ended.form == NOT_JSON or (ended.form and node.output in (object, Any)):
            raise TypeError("it was no plain JSON: declare as its type what pydantic can write and read")
        return _adapter(node.output).validate_python(ended.output)
    except (ValidationError, msgspec.ValidationError, PydanticSchemaGenerationError, TypeError) as error:
        raise ReplayMismatch.unreadable(ended.path, node.output, error) from error


def input_of(node: Node[Any, Any], value: object, path: str) -> Any:
    """Return a recorded input as the type its node takes."""
    try:
        return _adapter(node.input).validate_python(value)
    except (ValidationError, PydanticSchemaGenerationError) as error:
        raise ReplayMismatch.unreadable(path, node.input, error) from error


def error_of(info: ErrorInfo) -> Exception:
    """Return a recorded error as one of its class, if that is loaded, else an `AgentrtError` that names it."""
    known = getattr(sys.modules.get(info.module), info.type, None)
    if isinstance(known, type) and issubclass(known, Exception):
        with suppress(TypeError):  # a class that wants more than a message
            return known.__new__(known, info.message)
    return AgentrtError(f"{info.type}: {info.message}")


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        hash(annotation)
    except TypeError:  # an `Annotated` with a list in it
        return TypeAdapter(annotation)
    return _known_adapter(annotation)


@cache
def _known_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _is_on(path: str, label: str) -> bool:
    """Say whether a step right below a graph lies on the branch of a label, or on one inside it."""
    own = path.rpartition("/")[2]
    here = own[own.index("[") :] if "[" in own else ""
    return here.startswith(label)


def _passed_on(recorded: Recorded) -> Iterator[str]:
    """Return the steps whose error ended the run, or passed through them unanswered: these are run again."""
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
