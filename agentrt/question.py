"""Questions: what a run asks people, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from agentrt.budget import DIMENSIONS
from agentrt.errors import CallDenied, DefinitionError, InvalidArguments
from agentrt.events import QuestionAnswered, QuestionAsked, plain
from agentrt.interval import UNLIMITED, Interval, Outlook
from agentrt.node import Context, Node
from agentrt.plan import Parked
from agentrt.remaining import in_words
from agentrt.usage import PICO

T = TypeVar("T")
Kind: TypeAlias = Literal["ask", "approve", "doubt"]
VERDICTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ask": ("answer",),
    "approve": ("approve", "deny"),
    "doubt": ("again", "happened"),
}
"""What may be answered to each kind of question."""
TIME_OUT: Final = "time-out"
_TOLD: Final = ("usd", "tokens", "model_calls")


class Question(Node[Any, Any]):
    """Ask people as a step of its own; it has its outcome once somebody has answered, and parks its run until then.

    The output of an `ask` is the answer, of another kind the `QuestionAnswered`. `parse` raises `InvalidArguments` for
    edited arguments that do not fit.
    """

    kind = "question"

    def __init__(
        self,
        kind: Kind,
        prompt: str,
        output: Any = str,
        *,
        about: Mapping[str, object],
        schema: Mapping[str, object] | None = None,
        timeout: float | None = None,
        default: object = None,
        parse: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> None:
        self.name, self.description, self.budget = kind, prompt, None
        self.input = object
        self.output = output if kind == "ask" else QuestionAnswered
        self.about = about
        self.schema = schema if schema is not None else TypeAdapter(output).json_schema()
        self.seconds = timeout
        self.default = default
        self._kind = kind
        self._parse = parse

    async def invoke(self, ctx: Context, value: Any, /) -> Any:
        asked, answer = ctx.answered
        if asked is None or not self._is_same(asked):
            asked, answer = self._ask(ctx), None
        if answer is None and asked.until is not None and ctx.clock() >= asked.until:
            answer = self._by_default(ctx, asked)
        if answer is None:
            raise Parked(ctx.path, asked.until)
        return self._read(ctx, answer)

    def _is_same(self, asked: QuestionAsked) -> bool:
        """Say whether this is what was asked, in this attempt of the step around or in one before."""
        asks_about = plain(self.about.get("arguments"))
        return (asked.prompt, asked.about.get("arguments")) == (self.description, asks_about)

    def _ask(self, ctx: Context, *, refused: QuestionAnswered | None = None, why: str = "") -> QuestionAsked:
        """Ask, or ask again and say why the last answer was refused; what nobody answered in time waits for people."""
        if not ctx.is_recorded:
            raise DefinitionError(
                f"{ctx.path} asks people, and nothing keeps the run until they answer: run(…, journal=open_store())"
            )
        now = ctx.clock()
        seconds = None if refused is not None and refused.by == TIME_OUT else self.seconds
        asked = QuestionAsked(
            path=ctx.path,
            at=now,
            kind=self._kind,
            prompt=self.description,
            schema=self.schema,
            about={**self.about, **_kept(ctx), **({} if refused is None else {"refused": why})},
            until=None if seconds is None else now + seconds,
            default=self.default,
        )
        ctx.record(asked)
        return asked

    def _by_default(self, ctx: Context, asked: QuestionAsked) -> QuestionAnswered:
        verdict = "answer" if self._kind == "ask" else str(asked.default or VERDICTS[self._kind][-1])
        value = asked.default if self._kind == "ask" else None
        now = ctx.clock()
        answer = QuestionAnswered(
            path=ctx.path, at=now, verdict=verdict, by=TIME_OUT, value=value, waited=max(0.0, now - asked.at)
        )
        ctx.record(answer)
        return answer

    def _read(self, ctx: Context, answer: QuestionAnswered) -> Any:
        """Return the outcome; an answer that its schema let through and its type does not is refused.

        The question is asked again then: a run must not end by what somebody typed.
        """
        try:
            return self._parsed(answer)
        except (ValidationError, InvalidArguments) as error:
            said = mistakes(error) if isinstance(error, ValidationError) else error
            why = f"{answer.by} answered {answer.value!r}, which does not fit: {said}"
            raise Parked(ctx.path, self._ask(ctx, refused=answer, why=why).until) from error

    def _parsed(self, answer: QuestionAnswered) -> Any:
        if self._kind == "ask":
            return TypeAdapter(self.output).validate_python(answer.value)
        if self._parse is not None and isinstance(answer.value, Mapping):
            self._parse(answer.value)
        return answer


def mistakes(error: ValidationError) -> str:
    """Say in one line what is wrong with a value."""
    found = ((".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)


async def approved(ctx: Context, tool: Node[Any, Any], arguments: Mapping[str, Any], why: str) -> Mapping[str, Any]:
    """Ask people whether a call may be made; return its arguments as they approved them.

    Raises `CallDenied`, with what they said.
    """
    about: dict[str, object] = {"tool": tool.name, "arguments": arguments, "why": why, **_costs(ctx, tool)}
    if ctx.untrusted:
        about["untrusted"] = sorted(ctx.untrusted)
    form = tool.arguments
    question = Question("approve", f"May {tool.name} be called?", about=about, schema=form.schema, parse=form.parse)
    answer: QuestionAnswered = await ctx.run(question, arguments)
    if answer.verdict != "approve":
        raise CallDenied(f"{answer.by} denied this call" + (f": {answer.because}" if answer.because else ""))
    return tool.arguments.parse(answer.value) if isinstance(answer.value, Mapping) else arguments


def never(_: Mapping[str, Any]) -> bool:
    """Say that a call needs no approval of its own."""
    return False


async def permitted(
    ctx: Context, node: Node[Any, Any], value: Any, why: str = "", *, approval: Callable[[Mapping[str, Any]], bool]
) -> Any:
    """Return a node's input as the run's policy lets it pass, and people where that, or `approval`, has them asked.

    What people make of it may be another call, and is put to the policy as well. Raises `CallDenied`.
    """
    given = value if isinstance(value, Mapping) else {"input": value}
    if not ctx.must_be_approved(node, given) and not approval(given):
        return value
    answer: Any = await approved(ctx, node, given, why)
    if answer is given:
        return value
    ctx.must_be_approved(node, answer if isinstance(answer, Mapping) else {"input": answer})
    return answer


async def happened(ctx: Context, tool: Node[Any, Any], arguments: Mapping[str, Any]) -> QuestionAnswered | None:
    """Ask people about an effect that was cut off with its process; return the answer that says it has happened."""
    about = {"tool": tool.name, "arguments": arguments, **_costs(ctx, tool)}
    prompt = f"{tool.name} began and did not come to its end, and it is unsafe to run it twice. Did it happen?"
    question = Question("doubt", prompt, about=about, schema={})
    for n in range(ctx.doubts):  # what was made again may have been cut off again: each time is asked about
        answer: QuestionAnswered = await ctx.run(question, arguments, key=n + 1)
        if answer.verdict == "happened":
            return answer
    return None


def _kept(ctx: Context) -> Mapping[str, Sequence[str]]:
    """Return what people had kept of their answers to such questions."""
    kept = [str(g) for g in ctx.guidance]
    return {"guidance": kept} if kept else {}


def _costs(ctx: Context, tool: Node[Any, Any]) -> Mapping[str, str]:
    """Say what has been spent, what a call may cost at most by its own limits and those around it, and what is left."""
    spent = {name: amount for name, amount in ctx.budget.spent_by_run.items() if amount and name in _TOLD}
    interval = tool.interval(Outlook(path=ctx.path, models=ctx.model)).within(tool.budget, ctx.path)
    left = ctx.budget.remaining
    most = {name: min(_in_units(interval, name), left.get(name, UNLIMITED)) for name in _TOLD}
    bounded = {name: amount for name, amount in most.items() if 0 < amount < UNLIMITED}
    no_bound = "nothing" if not any(most.values()) else "no limit"
    return {
        "spent": in_words(spent) or "nothing",
        "may_cost": in_words(bounded) or no_bound,
        "left": str(ctx.budget),
    }


def _in_units(interval: Interval, dimension: str) -> float:
    amount = interval.most[DIMENSIONS.index(dimension)].value
    return amount / PICO if dimension == "usd" else amount
