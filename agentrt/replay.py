"""Replay: a recorded run as the past of one that goes on, or is gone through again.

Finished steps answer with what is recorded, read back as the types their nodes declare. A step is known by its path;
that it is still the same step, and asked the same, is checked, since code between steps has to be deterministic.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    RunParked,
    StepFailed,
    StepFinished,
    form_of,
    plain,
    plain_output,
)
from agentrt.handoff import Handoff
from agentrt.ledger import Limit
from agentrt.messages import Message
from agentrt.node import Node
from agentrt.partial import Partial
from agentrt.plan import NOTHING, Activation, Failure, Parked
from agentrt.progress import MISSING, Past
from agentrt.question import Question
from agentrt.recorded import Recorded, RecordedStep, holds

_LEAVES: Final = frozenset({"chat", "tool", "retrieval", "embeddings", Question.kind})


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

    def outcome(self, activation: Activation) -> Any:
        """Return a finished step's outcome; raises `ReplayMismatch`."""
        path, step = activation.path, self._step(activation.path)
        _replace_input(activation, self.recorded)
        if step is not None:
            self._asked.add(path)
            if self._is_same(activation, step) and self._answers(step):
                return self._outcome(activation, step)
        if self._again and self._waits(path):
            return Parked(path)
        if self._again and self._is_new(activation, step) and not self.is_given_up(path):
            asked = (activation.node.name, plain(activation.value))
            raise ReplayMismatch(path, recorded=("nothing", "no outcome"), asked=asked)
        return MISSING

    def _waits(self, path: str) -> bool:
        """Say whether the run ended waiting for what people were asked at or below a step."""
        closing = self.recorded.closing
        asked = closing.questions if isinstance(closing, RunParked) else ()
        return any(question == path or question.startswith(f"{path}/") for question in asked)

    def place(self, path: str) -> int | None:
        step = self._step(path)
        return None if step is None or step.ended is None else step.place

    def read(self, path: str) -> frozenset[str]:
        step = self._step(path)
        return NOTHING if step is None or step.ended is None else frozenset(step.ended.untrusted)

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
        return step is not None and step.is_given_up

    def seconds(self, path: str) -> float:
        return self._steps[path].seconds

    def is_over(self, path: str) -> bool:
        step = self._step(path)
        return step is not None and step.ended is not None

    def mismatch(self, path: str, output: object) -> ReplayMismatch | None:
        """Return where a step differs that was gone through once more: in its output, or in what it did not call."""
        step = self._step(path)
        if step is None or step.started is None:
            return None
        if missed := self.unasked(path, step):
            return ReplayMismatch(path, recorded=("it called", missed), asked=("it did not", missed))
        if isinstance(step.ended, StepFinished) and plain_output(output) != step.ended.output:
            return ReplayMismatch(path, recorded=("it returned", step.ended.output), asked=("it returned", output))
        if isinstance(step.ended, StepFailed):
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

    def unasked(self, path: str, step: RecordedStep) -> Sequence[str]:
        """Return the recorded steps right below one that it has not asked for this time, if it has to.

        A graph's plan has not; nor has code with calls side by side, since how far they come depends on the time.
        """
        if self._rerun_changed or step.is_concurrent or step.started is None or step.started.kind == "graph":
            return ()
        below = [p for p in self.recorded.below.get(path, ()) if p not in self._asked]
        return [p for p in below if self._steps[p].ended is not None and not self._steps[p].is_void]

    def _is_new(self, activation: Activation, step: RecordedStep | None) -> bool:
        """Say whether a replay would have to ask a model, use a tool, or ask people what they were not asked."""
        kind = activation.node.kind
        return kind in _LEAVES and (step is None or kind != Question.kind)

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
        if self._rerun_changed or step.is_void:
            self._changed.add(activation.path)
            return False
        raise ReplayMismatch(
            activation.path, recorded=(started.name, started.input), asked=(activation.node.name, asked)
        )

    def _answers(self, step: RecordedStep) -> bool:
        """Say whether a step answers from the record; one that used its branch's memory rebuilds it."""
        started = step.started
        if started is None or step.ended is None:
            return False
        return started.kind in _LEAVES if self._again else not step.remembers

    def _outcome(self, activation: Activation, step: RecordedStep) -> Any:
        ended = step.ended
        if isinstance(ended, StepFailed):
            return Failure(activation.path, activation.value, error_of(ended.error))
        assert ended is not None
        return output_of(activation.node, ended)


class AnsweredPast(Past):
    """Be the past of a step's next attempts: nothing but what people have answered in those before."""

    def __init__(self, recorded: Recorded, tried: str) -> None:
        self._recorded = recorded
        self._steps = recorded.steps
        self._tried = tried

    def outcome(self, activation: Activation) -> Any:
        _replace_input(activation, self._recorded)
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


def _replace_input(activation: Activation, recorded: Recorded) -> None:
    """Give a step that a fork began with the input it was given there."""
    path, replaced = activation.path, recorded.replaced
    if path in replaced:
        try:
            activation.value = input_of(activation.node, replaced[path], path)
        except ReplayMismatch as error:
            raise ReplayMismatch.misfit(path, activation.node.input, error.__cause__) from error


def output_of(node: Node[Any, Any], ended: StepFinished) -> Any:
    """Return a recorded output as the type its node declares; raises `ReplayMismatch` where it is none of it."""
    try:
        if ended.form in _OWN:
            return _OWN[ended.form](ended.output)
        if ended.form == NOT_JSON or (ended.form and node.output in (object, Any)):
            raise TypeError("it was no plain JSON: declare as its type what pydantic can write and read")
        output = _adapter(node.output).validate_python(ended.output)
        _check_form(output, ended.form)
    except (ValidationError, msgspec.ValidationError, PydanticSchemaGenerationError, TypeError) as error:
        raise ReplayMismatch.unreadable(ended.path, node.output, error) from error
    return output


def _handoff(output: Any) -> Handoff:
    messages = _adapter(tuple[Message, ...]).validate_python(output["messages"])
    return Handoff(**{**output, "messages": messages})


def _partial(output: Any) -> Partial:
    return msgspec.convert(output, Partial)


_OWN: Final[Mapping[str, Callable[[Any], Any]]] = {"Partial": _partial, "Handoff": _handoff}
"""What nodes return besides their declared types, and how that is read back."""


def _check_form(output: object, form: str) -> None:
    """Raise `TypeError` for what was of another class than it is read as."""
    if form and (read := form_of(output)) != form:
        raise TypeError(
            f"it was a {form}, and would be read as {read or type(output).__name__}: declare its type in full"
        )


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
            error = known.__new__(known, info.message)
            error.__dict__.update(info.attributes)
            return error
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
