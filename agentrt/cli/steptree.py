"""The tree of a run's steps, built from its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agentrt.cli.console import as_json, moment, verdict
from agentrt.events import (
    BranchDied,
    BudgetClamped,
    BudgetDenied,
    BudgetExhausted,
    BudgetOverrun,
    BudgetWaited,
    CacheHit,
    CallRefused,
    Emitted,
    Ending,
    ErrorInfo,
    Event,
    QuestionAnswered,
    QuestionAsked,
    RateLimitWaited,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunForked,
    RunParked,
    RunResumed,
    RunStarted,
    StepAbandoned,
    StepFailed,
    StepFinished,
    StepRetried,
    StepStarted,
    UsageRecorded,
    outcome,
)
from agentrt.usage import Usage


@dataclass(slots=True)
class Step:
    """Hold one step; `tokens`, those of them that are `uncertain`, and `cost` (pico-dollars) include the steps below.

    `started` is when it first did, `worked` how many seconds it has run in all parts of its run. An earlier attempt
    that called others is a step of the kind `attempt` below the one that was retried. `edited` are the arguments that
    people approved in place of the input.
    """

    path: str
    label: str
    name: str = ""
    kind: str = ""
    outcome: str = "running"
    started: float | None = None
    ended: float | None = None
    worked: float = 0.0
    waited: float = 0.0
    join: tuple[int, int] | None = None
    after: tuple[str, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)
    input: object = None
    edited: object = None
    output: object = None
    error: ErrorInfo | None = None
    tokens: int = 0
    uncertain: int = 0
    cost: int = 0
    below: int = 0
    attempt: int = 1
    exhausted: str = ""
    notes: list[str] = field(default_factory=list)
    children: list[Step] = field(default_factory=list)

    @property
    def node(self) -> str:
        """Return the node's name, from the path where the step never started."""
        return self.name or self.label.partition("[")[0].partition("#")[0]

    @property
    def seconds(self) -> float | None:
        return None if self.started is None or self.ended is None else self.worked


class StepTree:
    """Fold a run's events into its steps: `roots` are the steps without one above, `steps` all by path, of those
    that were retried what the last attempt called; `total` counts every attempt's."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.roots: list[Step] = []
        self.steps: dict[str, Step] = {}
        self.total = 0
        self.opening: RunStarted | None = None
        self.closing: RunFinished | RunFailed | RunCancelled | RunParked | None = None
        self._latest = self._cut_off = 0.0
        self._began: dict[str, float] = {}
        for event in events:
            self._take(event)
            if not isinstance(event, QuestionAnswered):  # it may come while nobody works
                self._latest = event.at
        self._sum_up()

    def _take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.opening = event
        elif isinstance(event, RunForked):
            self._fork(event)
        elif isinstance(event, RunResumed):
            self._resume(event)
        elif isinstance(event, RunFinished | RunFailed | RunCancelled | RunParked):
            self.closing = event
        elif isinstance(event, StepStarted):
            self._start(event)
        elif isinstance(event, Ending):
            self._end(event)
        elif isinstance(event, StepRetried):
            self._retry(event)
        elif isinstance(event, UsageRecorded):
            step = self._at(event.path)
            self._charge(step, event.usage)
        elif (write := _NOTES.get(type(event))) is not None:
            self._note(event, write(event))

    def _note(self, event: Any, text: str) -> None:
        step = self._at(event.path)
        step.notes.append(text)
        if isinstance(event, BudgetDenied) and step.started is None:
            step.outcome = "denied"
        elif isinstance(event, BudgetExhausted):
            step.exhausted = event.policy
        elif isinstance(event, QuestionAnswered) and event.verdict == "approve":
            self._at(event.path.rpartition("/")[0]).edited = event.value

    def _charge(self, step: Step, usage: Usage) -> None:
        step.tokens += usage.tokens
        step.uncertain += usage.uncertain
        step.cost += usage.cost
        if usage.uncertain:
            step.notes.append(
                f"{usage.uncertain:,} tokens in doubt: nobody knows the bill, and the most it can be is charged"
            )

    def _resume(self, event: RunResumed) -> None:
        self.closing, self._cut_off = None, self._latest
        if event.kind != "fork":
            limits = ", ".join(f"{name}={limit:g}" for name, limit in event.limits.items())
            self._at(event.name).notes.append(f"resumed {moment(event.at)}" + (f" under {limits}" if limits else ""))
        if self.opening is not None:
            self.opening = msgspec.structs.replace(self.opening, limits=event.limits)

    def _fork(self, event: RunForked) -> None:
        """Count the time of what was under way from here: before it was that of another run."""
        self.closing = None
        for path in self._began:
            self.steps[path].started = event.at
        self._began.clear()
        self._at(event.path.partition("/")[0]).notes.append(f"forked from {event.parent} at {event.path}")

    def _start(self, event: StepStarted) -> None:
        step = self._at(event.path)
        step.name, step.kind, step.outcome = event.name, event.kind, "running"
        step.started = event.at if step.started is None else step.started
        step.ended, self._began[event.path] = None, event.at
        step.input, step.after, step.join, step.waited = event.input, event.after, event.join, event.waited
        step.attributes = event.attributes or {}

    def _end(self, event: Ending) -> None:
        step = self._at(event.path)
        step.ended, step.outcome = event.at, outcome(event, step.exhausted)
        if isinstance(event, StepAbandoned):  # which is written when its run goes on
            step.ended = self._cut_off
        step.worked += step.ended - self._began.pop(event.path, step.ended)
        if isinstance(event, StepFinished | StepFailed) and step.name in event.untrusted:
            step.notes.append("untrusted: it comes from outside")
        if isinstance(event, StepFinished):
            step.output = event.output
        elif isinstance(event, StepFailed):
            step.error = event.error

    def _retry(self, event: StepRetried) -> None:
        """Put what the failed attempt called below a step of its own: the next one's steps have the same paths."""
        step = self._at(event.path)
        again = f"again after {event.delay:.2f} s" + (f" with {event.model}" if event.model else "")
        step.attempt = event.attempt + 1
        earlier = [child for child in step.children if child.kind == "attempt"]
        called = step.children[len(earlier) :]
        if not called:
            step.notes.append(f"attempt {event.attempt} failed, {again}: {event.error.type}: {event.error.message}")
            return
        attempt = Step(event.path, f"attempt {event.attempt}", kind="attempt", outcome="failed", children=called)
        attempt.started, attempt.ended, attempt.error = called[0].started, event.at, event.error
        attempt.worked = event.at - (attempt.started or event.at)
        attempt.attempt = event.attempt
        attempt.notes.append(again)
        step.children = [*earlier, attempt]
        for lost in walk(called):
            self.steps.pop(lost.path, None)

    def cut_off(self) -> None:
        """Take it that the run's process has gone: what seems to run was cut off with it."""
        for step in walk(self.roots):
            if step.outcome == "running":
                step.outcome = "cut off"

    def _at(self, path: str) -> Step:
        """Return the step of a path; a step that a budget denied its start is known by that alone."""
        if (step := self.steps.get(path)) is None:
            above, _, label = path.rpartition("/")
            step = self.steps[path] = Step(path, label)
            (self._at(above).children if above else self.roots).append(step)
        return step

    def _sum_up(self) -> None:
        self.total = sum(step.kind != "attempt" for step in walk(self.roots))
        for step in reversed(list(walk(self.roots))):  # a step comes after the one it is below
            for child in step.children:
                step.tokens += child.tokens
                step.uncertain += child.uncertain
                step.cost += child.cost
                step.below += 1 + child.below


def _died(event: BranchDied) -> str:
    return "the branch ended here: no edge held" if event.error is None else "the branch was dropped for its error"


def _emitted(event: Emitted) -> str:
    return event.value if isinstance(event.value, str) else f"emitted {event.value!r}"


def _answered(event: QuestionAnswered) -> str:
    used = f"; its arguments: {as_json(event.value)}" if event.verdict == "approve" and event.diff else ""
    return verdict(event) + used


_POLICIES: Final = {"wrap_up": "wrapping up with what was held back", "partial": "the output is what there was"}
_NOTES: Final[Mapping[type, Callable[[Any], str]]] = {
    BudgetClamped: lambda e: f"budget: clamped to {e.granted:,} of {e.wanted:,} output tokens",
    BudgetWaited: lambda e: f"budget: waited {e.seconds:.2f} s for others to settle",
    BudgetDenied: lambda e: f"budget: denied, {e.dimension} of {e.scope} are exhausted",
    BudgetOverrun: lambda e: f"budget: billed {e.billed:,} tokens, {e.reserved:,} were reserved",
    BudgetExhausted: lambda e: f"budget: {e.dimension} exhausted, {_POLICIES.get(e.policy, e.policy)}",
    RateLimitWaited: lambda e: f"rate limit: held back for {e.seconds:.2f} s",
    CallRefused: lambda e: f"refused: {e.because}",
    CacheHit: lambda e: f"answered from the cache, {e.model} was not asked",
    BranchDied: _died,
    Emitted: _emitted,
    QuestionAsked: lambda e: f"asks people: {e.prompt}",
    QuestionAnswered: _answered,
}


def said(step: Step) -> tuple[object, object]:
    """Return what a step was given and what it answered.

    Of a model call that is the last message and the reply, of an approval the verdict, and of what was approved the
    arguments as they were used.
    """
    if step.kind == "question" and isinstance(step.output, dict) and "verdict" in step.output:
        return step.input, step.output["verdict"]
    if step.kind != "chat":
        return step.input if step.edited is None else step.edited, step.output
    return _last_text(step.input), _reply(step.output)


def _last_text(request: object) -> object:
    messages = request.get("messages") if isinstance(request, dict) else None
    return messages[-1].get("text", "") if messages else request


def _reply(response: object) -> object:
    message = response.get("message") if isinstance(response, dict) else None
    if not isinstance(message, dict):
        return response
    calls = [f"{c['name']}({c['arguments']})" for c in message.get("tool_calls", ())]
    return " ".join([*filter(None, [message.get("text")]), *calls])


def walk(roots: Iterable[Step]) -> Iterator[Step]:
    """Yield every step, those below right after the one above."""
    waiting = list(reversed(list(roots)))
    while waiting:
        step = waiting.pop()
        yield step
        waiting += reversed(step.children)
