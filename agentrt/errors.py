"""The one tree of errors.

AgentrtError
├── DefinitionError         an agent, tool or function that cannot be what it says
│   └── GraphError          a graph that does not validate; `.problems` lists all of them
├── BudgetExceeded          a limit refused a step; names the scope, the dimension and the step
│   └── BudgetTooSmall          not even the least that a run takes fits its budget: refused before it begins
├── StepFailed              what `run` raises: `.path`, `.input` and `.cause` of the step that failed
├── DeadEnd                 outside every fork no edge holds
├── NothingArrived          `vote` or `best` closed a fork in which every branch died
├── MaxTurns                an agent used all its turns without an answer
├── InvalidArguments        a tool was called with arguments that do not fit its schema
├── StepTimeout             a step took longer than its time-out
├── LoopDetected            an agent called the same tool with the same arguments again and again
├── GuardrailTripped        a guardrail refused what went into a node or came out of it
├── CallDenied              a person denied a call that needs approval
├── IndexTaken              another update writes to the index
├── IndexUnavailable        the index cannot be read or written: its server is away, its disk full
├── Waiting                 there is no output yet: the run waits for people
├── ModelError              what a model's adapter raises, vendor errors mapped once
│   ├── UnknownModel            no such model, or its extra is not installed
│   ├── UnknownPrice            a `usd` limit meets a model without a known price
│   ├── AuthenticationFailed    a missing or refused key
│   ├── RateLimited             the provider asks to slow down; `.retry_after` seconds
│   ├── ContextOverflow         the prompt does not fit the model's window
│   ├── RequestRefused          the provider refuses this request (content, parameters)
│   └── ModelUnavailable        unreachable, overloaded or broken
└── JournalError            the run record cannot be read or written
    ├── RunTaken                another process drives the run
    ├── QuestionClosed          a question that nobody can answer (any more)
    └── ReplayMismatch          a run that goes on does not do what its record says it did
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrt.partial import Partial
    from agentrt.result import Result


class AgentrtError(Exception):
    """Be the root of every error this package raises on purpose."""


class DefinitionError(AgentrtError):
    """Say that an agent, a tool or a function cannot be what it declares."""


class GraphError(DefinitionError):
    """Say everything that is wrong with a graph, one problem a line."""

    def __init__(self, graph: str, problems: Sequence[str]) -> None:
        self.graph = graph
        self.problems = tuple(problems)
        lines = [f"graph {graph!r} has {len(problems)} problem{'s' if len(problems) != 1 else ''}:"]
        super().__init__("\n".join(lines + [f"  - {p}" for p in problems]))


class BudgetExceeded(AgentrtError):
    """Say which limit refused which step.

    `scope` is the path of the step whose budget refused; `path` is the step that asked. `needed` and `limit` are in
    the dimension's unit (dollars for `usd`). Where it leaves its scope, `partial` says what had been done; where it
    ends the run, `result` says what it came to, and can be resumed under a higher limit if the run had a budget of its
    own and the limit is none on `calls`. `account` is the ledger's account that refused;
    `refused_by` the one that refused first, where a wrap-up was refused and the next scope out is exhausted instead.
    """

    partial: Partial | None = None
    result: Result[Any] | None = None
    account: object = None
    refused_by: object = None
    scope = dimension = path = ""
    needed = spent = limit = 0.0

    def __init__(
        self,
        *,
        scope: str,
        dimension: str,
        needed: float,
        spent: float,
        limit: float,
        path: str,
        account: object = None,
    ) -> None:
        self.account = self.refused_by = account
        self.scope = scope
        self.dimension = dimension
        self.needed = needed
        self.spent = spent
        self.limit = limit
        self.path = path
        if dimension == "seconds":
            state = f"its time of {number(limit)} s is over"
        else:
            state = (
                f"{number(spent)} of {number(limit)} {dimension} are spent and at least {number(needed)} more "
                "are needed"
            )
        super().__init__(f"{path}: the budget of {scope!r} is exhausted: {state}; raise Budget({dimension}=…)")


class BudgetTooSmall(BudgetExceeded):
    """Say that a run cannot succeed within its budget, before anything has run.

    `needed` is the least it takes, `path` the step that needs most of it. Where `needed` is infinite a limit inside
    `scope` is in the way, and `reason` says which.
    """

    def __init__(self, *, scope: str, dimension: str, needed: float, limit: float, path: str, reason: str = "") -> None:
        super().__init__(scope=scope, dimension=dimension, needed=needed, spent=0, limit=limit, path=path)
        self.reason = reason
        if reason:
            text = f"no run of {scope!r} can succeed: {reason}"
        else:
            most = f", most of it for {path}" if path != scope else ""
            text = (
                f"a run of {scope!r} needs at least {number(needed)} {dimension}{most}, and its budget is "
                f"{number(limit)}; raise Budget({dimension}=…)"
            )
        self.args = (text,)


def number(value: float) -> str:
    """Write an amount with the digits that count: a pico-dollar has twelve."""
    if not isinstance(value, float):
        return f"{value:,}"
    digits = 6 if abs(value) >= 0.001 else 12
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".")


class StepFailed(AgentrtError):
    """Name the step that ended a run, with its input; the cause is the error it raised."""

    def __init__(self, path: str, input: object, cause: BaseException) -> None:
        self.path = path
        self.input = input
        self.cause = cause
        reason = _said(cause) or type(cause).__name__
        label = "" if isinstance(cause, AgentrtError) else f"{type(cause).__name__}: "
        super().__init__(f"{path}: {label}{reason}")


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the `__str__` of somebody's error; its class must do
        return ""


class DeadEnd(AgentrtError):
    """Say that no outgoing edge of a node holds, outside every fork."""


class NothingArrived(AgentrtError):
    """Say that a join had nothing to choose from."""


class MaxTurns(AgentrtError):
    """Say that an agent used all its turns without an answer."""


class InvalidArguments(AgentrtError):
    """Say which arguments of a call do not fit the schema."""


class StepTimeout(AgentrtError):
    """Say that a step took longer than its time-out."""


class LoopDetected(AgentrtError):
    """Say which call an agent repeated, with the same arguments, as often as it may."""

    def __init__(self, message: str, *, tool: str, arguments: str, times: int) -> None:
        self.tool = tool
        self.arguments = arguments
        self.times = times
        super().__init__(message)


class GuardrailTripped(AgentrtError):
    """Say which guardrail refused what went into a node, or came out of it, and why."""

    def __init__(self, reason: str, *, guardrail: str = "", node: str = "") -> None:
        self.reason = reason
        self.guardrail = guardrail
        self.node = node
        where = f"{guardrail} tripped at {node}: " if guardrail and node else ""
        super().__init__(f"{where}{reason}")


class ModelError(AgentrtError):
    """Say that a model call failed.

    `billed` is False where the provider is known not to charge for the failure; None where nobody knows.
    """

    billed: bool | None = None

    def __init__(self, message: str, *, model: str = "") -> None:
        self.model = model
        super().__init__(f"{model}: {message}" if model else message)


class UnknownModel(ModelError):
    """Say that a model's name leads nowhere."""

    billed = False


class UnknownPrice(ModelError):
    """Say that a model without a known price was used under a `usd` limit."""

    billed = False


class AuthenticationFailed(ModelError):
    """Say that a key is missing or refused."""

    billed = False


class RateLimited(ModelError):
    """Say that the provider asks to slow down."""

    billed = False

    def __init__(self, message: str, *, model: str = "", retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message, model=model)


class ContextOverflow(ModelError):
    """Say that a prompt does not fit the model's window."""

    billed = False


class RequestRefused(ModelError):
    """Say that the provider refuses this request."""

    billed = False


class ModelUnavailable(ModelError):
    """Say that a model cannot be reached or is broken; `billed` says whether the request may have been served."""

    def __init__(self, message: str, *, model: str = "", billed: bool | None = None) -> None:
        self.billed = billed
        super().__init__(message, model=model)


class CallDenied(AgentrtError):
    """Say who denied a call, and why."""


class IndexTaken(AgentrtError):
    """Say that an update cannot begin while another one, of any process, writes to the same index."""


class IndexUnavailable(AgentrtError):
    """Say that an index cannot be read or written now, and what to do."""


class Waiting(AgentrtError):
    """Say what a run waits for."""


class JournalError(AgentrtError):
    """Say that the run record cannot be read or written."""


class RunTaken(JournalError):
    """Say that another process drives the run: who, and what to do."""


class QuestionClosed(JournalError):
    """Say why a question cannot be answered: it was never asked, is answered already, or its run has ended."""


class ReplayMismatch(JournalError):
    """Say where a run that goes on is not what its record says, and what the record says."""

    def __init__(self, path: str, *, recorded: tuple[str, object], asked: tuple[str, object]) -> None:
        self.path = path
        self.recorded = recorded
        self.asked = asked
        super().__init__(
            f"{path} is not what was recorded, so the record cannot answer for it:\n"
            f"  recorded: {recorded[0]}({_short(recorded[1])})\n"
            f"  now:      {asked[0]}({_short(asked[1])})\n"
            "Code between steps must do the same again: use ctx.now(), ctx.random and ctx.uuid(), and go on with the "
            "graph that began; or run changed steps anew (rerun_changed=True, --rerun-changed)"
        )

    @classmethod
    def unreadable(cls, path: str, type: object, cause: Exception) -> ReplayMismatch:
        """Say that what is recorded of a step is not of the type its node declares."""
        error = cls.__new__(cls)
        error.path = path
        JournalError.__init__(error, f"what is recorded of {path} cannot be read as {type}: {cause}")
        return error

    @classmethod
    def misfit(cls, path: str, type: object, cause: BaseException | None) -> ReplayMismatch:
        """Say that the input that a fork was given for its step is not of the type its node takes."""
        error = cls.__new__(cls)
        error.path = path
        JournalError.__init__(error, f"the input given to the fork does not fit {path}, which takes {type}: {cause}")
        return error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:120]} … {text[-60:]}"
