"""Events: frozen values, the one language of journal, stream, traces and progress.

Every step that starts ends in exactly one `Ending`, and each attempt before its last in one `StepRetried`; every run,
and every part of one that goes on, in one of `RunFinished`, `RunFailed`, `RunCancelled` and `RunParked`. `at` is
seconds since the epoch. `TextDelta` is a lossy side channel: the journal does not keep it, nor `EventsDropped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from pydantic_core import from_json, to_json

from agentrt.messages import Message, new_messages
from agentrt.usage import Usage
from agentrt.value import Value

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_LONGEST: Final = 1000
"""Texts on an error that are longer are left out of its description."""


class ErrorInfo(Value):
    """Describe an error as data; `module` is where its class is defined, `attributes` are its own that are plain."""

    type: str
    message: str
    module: str = ""
    attributes: Mapping[str, str | int | float | bool | None] = {}

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        plain = {name: value for name, value in error.__dict__.items() if _is_small(value)}
        kind = type(error)
        return cls(type=kind.__name__, message=_text(error), module=kind.__module__, attributes=plain)


def _is_small(value: object) -> bool:
    return type(value) in _SCALARS and len(str(value)) <= _LONGEST


class RunStarted(Value):
    """A run begins; `limits` are those of the run and of its root node, the tightest of each dimension.

    options: how it was started, as far as that can be written down: budget, model, concurrency. target: what the shell
    ran, `FILE:NAME`. parent: the run it was forked from.
    """

    run_id: str
    at: float
    name: str
    input: object
    limits: Mapping[str, float]
    options: Mapping[str, object] = {}
    target: str | None = None
    parent: str | None = None


class RunResumed(Value):
    """A part of a run begins that is not its first, or the first of a fork; what had finished is not run again.

    kind: how it came about: `resume`, `fork` or `replay`. attempt: which part of the run it is, from 1; 0 where nobody
    counted. usage: what the parts before had spent. trace: the latest `Traced.carrier`. answers: what people answered
    that no step has made use of yet, without what they said. options: as in `RunStarted`, as they are from now on.
    """

    run_id: str
    at: float
    name: str
    limits: Mapping[str, float]
    kind: str = "resume"
    attempt: int = 0
    usage: Usage = Usage()
    trace: Mapping[str, str] = {}
    answers: tuple[QuestionAnswered, ...] = ()
    options: Mapping[str, object] = {}


class Traced(Value):
    """The spans of a run go below a new root; `carrier` leads there, as headers of the W3C's trace context do."""

    run_id: str
    at: float
    carrier: Mapping[str, str]


class RunForked(Value):
    """A run takes over what is recorded of `parent` up to the step at `path`, which it runs anew; the past is not paid.

    `input` takes the place of that step's input, if `replaced`.
    """

    run_id: str
    at: float
    parent: str
    path: str
    replaced: bool = False
    input: object = None


class RunFinished(Value):
    """A run has its output: of `stop_reason` `partial` it is the `Partial` there was."""

    run_id: str
    at: float
    output: object
    usage: Usage
    stop_reason: str


class RunFailed(Value):
    """`path` is the step whose error ended the run; `stop_reason` is `failed` or `budget_exceeded`."""

    run_id: str
    at: float
    path: str
    error: ErrorInfo
    usage: Usage
    stop_reason: str


class RunCancelled(Value):
    """A run was cancelled from outside."""

    run_id: str
    at: float
    usage: Usage


class StepStarted(Value):
    """`after` names the steps this one follows (at most 128); `join` is (arrived, branches) where a fork closed;
    `waited` is the time in the queue, in seconds; `attributes` are the node's, such as the name of a chat's model;
    `counts` names the dimensions of which the start has spent one; `untrusted` the untrusted nodes whose results may be
    in the input, or are known to whoever gives it."""

    path: str
    at: float
    name: str
    kind: str
    input: object
    after: tuple[str, ...] = ()
    join: tuple[int, int] | None = None
    waited: float = 0.0
    attributes: Mapping[str, object] | None = None
    counts: tuple[str, ...] = ("steps",)
    untrusted: tuple[str, ...] = ()


class StepFinished(Value):
    """A step has its output; in a record `form` says of what class, where plain JSON does not.

    `untrusted` names the untrusted nodes whose results it, or a step below it, has met.
    """

    path: str
    at: float
    output: object
    form: str = ""
    untrusted: tuple[str, ...] = ()


class StepFailed(Value):
    """A step raised an error; `of` names the steps right below that it comes of, if a record is kept.

    `untrusted` is as in `StepFinished`: an error may repeat what was read.
    """

    path: str
    at: float
    error: ErrorInfo
    of: tuple[str, ...] = ()
    untrusted: tuple[str, ...] = ()


class StepCancelled(Value):
    """A step was cancelled before it had an output.

    given_up: whether code of the step around it did that, and may go on; else all around was cancelled with it.
    """

    path: str
    at: float
    given_up: bool = False


class StepRetried(Value):
    """Attempt `attempt` of a step (from 1) failed, which ends it; the next begins after `delay` seconds.

    `model` names the model the next attempt asks, where it is another one; `attempts` is how many there may be, where
    that is known.
    """

    path: str
    at: float
    attempt: int
    error: ErrorInfo
    delay: float
    model: str | None = None
    attempts: int | None = None


class AttemptStarted(Value):
    """The next attempt of a step begins; `counts` names the dimensions of which it has spent one."""

    path: str
    at: float
    counts: tuple[str, ...] = ()


class BranchDied(Value):
    """`path` is the branch's last step: none of its edges held, or its error was dropped (then `error` says so)."""

    path: str
    at: float
    error: ErrorInfo | None = None


class BudgetClamped(Value):
    """A model call got fewer output tokens than it wanted."""

    path: str
    at: float
    wanted: int
    granted: int


class BudgetWaited(Value):
    """A reservation waited this many seconds for others in flight to settle."""

    path: str
    at: float
    seconds: float


class BudgetDenied(Value):
    """The budget of `scope` refused what this step asked for."""

    path: str
    at: float
    scope: str
    dimension: str


class BudgetOverrun(Value):
    """A bill came in above its reservation; the accounts that cap what it overran are closed (rule B10)."""

    path: str
    at: float
    reserved: int
    billed: int


class BudgetExhausted(Value):
    """The scope at `path` is exhausted: its account is closed, and `policy` (`wrap_up`, `partial`) takes over."""

    path: str
    at: float
    dimension: str
    policy: str


class RateLimitWaited(Value):
    """A model call was held back for this many seconds by the limits on its model."""

    path: str
    at: float
    seconds: float


class CacheHit(Value):
    """A model call was answered from a cache, without asking the model."""

    path: str
    at: float
    model: str


class UsageRecorded(Value):
    """A leaf settled its reservation at this usage."""

    path: str
    at: float
    usage: Usage


class UsageReserved(Value):
    """A leaf is about to have its effect, which may cost so much at most; it is in doubt until it is settled.

    `counts` names the dimensions of which it has spent one besides.
    """

    path: str
    at: float
    usage: Usage
    counts: tuple[str, ...] = ()


class Counted(Value):
    """A step has spent one of each of these dimensions, besides what its start and its leaves count."""

    path: str
    at: float
    counts: tuple[str, ...]


class StepParked(Value):
    """A step waits for people, itself or below, and has let go of its process; it is run again once they answered."""

    path: str
    at: float


class EffectBegun(Value):
    """A tool is about to have its effect; until its step has ended, nobody knows whether it has had it."""

    path: str
    at: float


class CallRefused(Value):
    """A tool was not used, since the run does not allow it, or its policy does not."""

    path: str
    at: float
    tool: str
    because: str


class CallGivenUp(Value):
    """Code gave up a step that waited for people, and may go on."""

    path: str
    at: float


class StepAbandoned(Value):
    """A step was cut off with its process; written when the run goes on."""

    path: str
    at: float


class RunMismatched(Value):
    """The program did otherwise than is on record, and was stopped: what this part of the run began is not its own."""

    run_id: str
    at: float
    error: ErrorInfo


class RunParked(Value):
    """A run has nothing to do but wait for people, who are asked `questions`, by path; its process may end.

    due: when the first of them is answered by itself, in seconds since the epoch.
    """

    run_id: str
    at: float
    usage: Usage
    questions: tuple[str, ...] = ()
    due: float | None = None


class QuestionAsked(Value):
    """The step at `path` asks people.

    kind: `ask` for an answer, `approve` a call, or what to do about a call in `doubt`. prompt: what is asked.
    schema: JSON schema of the answer, or of the arguments that may be edited. about: what a person should see: the
    tool, its arguments, the agent's last words, what was spent, what the call may cost and what is left.
    until: when it is answered by itself, in seconds since the epoch, with `default`.
    """

    path: str
    at: float
    kind: str
    prompt: str
    schema: Mapping[str, object]
    about: Mapping[str, object]
    until: float | None = None
    default: object = None


class QuestionAnswered(Value):
    """Somebody answered the question of the step at `path`.

    verdict: `answer`, `approve`, `deny`, or for a call in doubt `happened`, `again`. value: the answer, the edited
    arguments, or the result that the call had. by: who; `time-out` where nobody did. because: why, for the agent to
    read. diff: what an edit changed. keep: whether the answer is guidance for later questions of its kind. waited: how
    long after it was asked, in seconds.
    """

    path: str
    at: float
    verdict: str
    by: str
    value: object = None
    because: str = ""
    diff: str = ""
    keep: bool = False
    waited: float = 0.0


class Remembered(Value):
    """A step used what its branch keeps in memory; when the run goes on it is gone through again to rebuild that."""

    path: str
    at: float


class Drawn(Value):
    """Code asked its context for something that comes out differently each time: the time, for instance."""

    path: str
    at: float
    name: str
    value: object


class TextDelta(Value):
    """A model streamed a piece of text."""

    path: str
    at: float
    text: str


class EventsDropped(Value):
    """A stream's reader was too slow and misses this many events from here on; only streams hold this event."""

    at: float
    count: int


class Emitted(Value):
    """A value that user code passed to `ctx.emit`."""

    path: str
    at: float
    value: object


RunEvent: TypeAlias = (
    RunStarted | RunForked | RunResumed | Traced | RunMismatched | RunParked | RunFinished | RunFailed | RunCancelled
)
StepEvent: TypeAlias = (
    StepStarted | StepRetried | AttemptStarted | StepFinished | StepFailed | StepCancelled | StepParked | StepAbandoned
)
BudgetEvent: TypeAlias = (
    BudgetClamped
    | BudgetWaited
    | BudgetDenied
    | BudgetOverrun
    | BudgetExhausted
    | UsageReserved
    | UsageRecorded
    | Counted
)
ModelEvent: TypeAlias = RateLimitWaited | CacheHit | TextDelta
PersonEvent: TypeAlias = QuestionAsked | QuestionAnswered
Event: TypeAlias = (
    RunEvent
    | StepEvent
    | BranchDied
    | BudgetEvent
    | ModelEvent
    | PersonEvent
    | EffectBegun
    | CallRefused
    | CallGivenUp
    | Drawn
    | Remembered
    | Emitted
    | EventsDropped
)

_JSON_CONTAINERS: Final = frozenset({list, dict})
_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})
_PLAIN: Final = frozenset({str, int, float, bool, type(None), dict, list, tuple})
NOT_JSON: Final = "not JSON"
"""The `form` of an output of which only the text is kept."""
_TYPES: dict[str, type[Event]] = {t.__name__: t for t in Event.__args__}


Ending: TypeAlias = StepFinished | StepFailed | StepCancelled | StepParked | StepAbandoned


def outcome(event: Ending, exhausted: str) -> str:
    """Say in one word how a step ended; `exhausted` is the policy that took over when its budget ran out, if any."""
    if isinstance(event, StepCancelled | StepParked | StepAbandoned):
        return {StepCancelled: "cancelled", StepParked: "waiting", StepAbandoned: "abandoned"}[type(event)]
    if isinstance(event, StepFailed):
        return "exhausted" if event.error.type == "BudgetExceeded" else "failed"
    return "partial" if exhausted == "partial" else "done"


def encode(event: Event) -> bytes:
    """Return the event as one JSON object with its type's name under `event`.

    Values that are not JSON become their `repr`; a model request keeps only its new messages.
    """
    row: dict[str, object] = {"event": type(event).__name__, **msgspec.structs.asdict(event)}
    for name, value in row.items():
        if type(value) not in _PLAIN:
            row[name] = _untouched(value)
    if isinstance(event, StepStarted):
        row["input"] = _new_content(event.input)
    if row.get("untrusted") == ():  # most are, and a record has two of them a step
        del row["untrusted"]
    try:
        return _dump_finished(event, row) if isinstance(event, StepFinished) else _dump(row)
    except Exception:  # noqa: BLE001 - values are the user's and may refuse in any way; the record goes on without them
        certain = {name: _certain(value) for name, value in row.items()}
        return _dump({**certain, "form": NOT_JSON} if isinstance(event, StepFinished) else certain)


def _dump_finished(event: StepFinished, row: dict[str, object]) -> bytes:
    """Write a step's output so that nobody takes it for another value when the run goes on: `form` says what it was."""
    if form := form_of(event.output):
        row["form"] = form
    lost: list[str] = []

    def text(value: object) -> str:
        lost.append(repr(value))
        return lost[-1]

    data = _dump(row, text)
    return _dump({**row, "form": NOT_JSON}) if lost else data


def form_of(value: object) -> str:
    """Return of what class a value is, and of what classes what it holds, '' if plain JSON says that."""
    kind = type(value)
    if kind in _SCALARS or (kind in _JSON_CONTAINERS and _is_json(value)):
        return ""
    if kind not in _CONTAINERS:
        return _class_name(kind)
    inside = sorted({_class_name(one) for one in _classes_in(value)})
    return f"{kind.__name__} of {', '.join(inside) or 'nothing'}"


def _class_name(kind: type[Any]) -> str:
    short = kind.__module__ == "builtins" or issubclass(kind, Value)
    return kind.__name__ if short else f"{kind.__module__}.{kind.__qualname__}"


def _is_json(value: Any) -> bool:
    """Say whether a list or a dict holds nothing but what JSON has."""
    if type(value) is dict and not all(type(key) is str for key in value):
        return False
    for one in value.values() if type(value) is dict else value:
        kind = type(one)
        if kind not in _SCALARS and not (kind in _JSON_CONTAINERS and _is_json(one)):
            return False
    return True


def _classes_in(value: Any) -> Iterator[type[Any]]:
    for one in (*value, *value.values()) if isinstance(value, dict) else value:
        yield type(one)
        if type(one) in _CONTAINERS:
            yield from _classes_in(one)


def _dump(value: object, fallback: Callable[[object], object] = repr) -> bytes:
    return to_json(value, fallback=fallback, inf_nan_mode="constants", serialize_unknown=True)


def _untouched(value: object) -> object:
    """Return an iterator's `repr`, since writing it would use it up under the next step's hands."""
    return repr(value) if isinstance(value, Iterator) else value


def _certain(value: object) -> object:
    """Return the value if it can be written, else a text that can."""
    try:
        _dump(value)
    except Exception:  # noqa: BLE001 - see encode
        return _text(value)
    return value


def _text(value: object) -> str:
    """Return the value's `str`, whatever it does, without the lone surrogates that UTF-8 cannot write."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - its class must do
        text = f"<{type(value).__name__}>"
    return text.encode(errors="replace").decode()


def plain(value: object) -> object:
    """Return a step's input as `decode` gives it."""
    return from_json(_dump(_new_content(_untouched(value))))


def plain_output(value: object) -> object:
    """Return a step's output as `decode` gives it."""
    return from_json(_dump(_untouched(value)))


def _new_content(value: object) -> object:
    if not getattr(value, "is_recorded_by_new_messages", False):
        return value
    messages: tuple[Message, ...] = getattr(value, "messages", ())
    return {"messages": new_messages(messages)}


def decode(data: bytes | str) -> Event:
    """Return the event that `encode` wrote; its inputs and outputs are plain JSON values."""
    row: dict[str, Any] = from_json(data)
    return msgspec.convert(row, _TYPES[row.pop("event")])
