"""Agents: a model and its tools in a loop, as a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar, Unpack, cast, overload

from pydantic import ValidationError

from agentrt.answer import Answer, correction, mistakes
from agentrt.budget import Budget
from agentrt.conversation import Conversation
from agentrt.deps import check_deps
from agentrt.errors import DefinitionError, MaxTurns
from agentrt.forecast import least_words, tools_interval, turn_interval
from agentrt.format import Format
from agentrt.handoff import Handoff, Transfer
from agentrt.history import added, answered, mended
from agentrt.instructions import Instructions, Instructs
from agentrt.interval import Interval, Outlook, repeated
from agentrt.messages import AssistantMessage, Message, ToolCall, ToolMessage, ToolSpec, UserMessage, marked, spotlit
from agentrt.model import Chat, Model, ModelRequest, ModelResponse, ModelSettings
from agentrt.node import Context, Node
from agentrt.partial import Partial
from agentrt.retry import Retry
from agentrt.tool import as_text, as_tool, tool_spec
from agentrt.toolbox import Repeats, Toolbox

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
U = TypeVar("U")

_WRAP_UP: Final = "The budget is used up. Use no tools: give your final answer now, with what you have."
_NO_RESULT: Final = "no result: the budget is used up"
_GIVEN: Final = "the input"
"""Who has brought the passages that an agent was given."""


class Options(TypedDict, total=False):
    """Name what every agent may be given besides its types and instructions: see `Agent`."""

    model: Model | str | None
    tools: Sequence[Node[Any, Any] | Callable[..., Any]]
    stop_at: Sequence[Node[Any, Any] | Callable[..., Any]]
    settings: ModelSettings | None
    handoffs: Sequence[str | Transfer]
    max_turns: int
    max_repeats: int | None
    tell_budget: bool
    history: Literal["fresh", "branch"]
    format: Format | None
    description: str
    budget: Budget | None
    retry: Retry | None
    timeout: float | None


class Agent(Node[In, Out], Generic[In, Out]):
    """Let a model work on the input with tools until it answers.

    model: a litellm name (`provider/model`), `local/NAME`, or any `Model`; None takes the run's default.
    instructions: the system message, or a function of the input that returns it; one of (input, ctx) is asked again
        before every model call, so that it may tell what `ctx.budget` has left. Functions may be async.
    tools: functions, retrievers, other agents, graphs: any node. Errors of tools are shown to the model.
    output: the type of the answer; the model is held to its schema, and told of validation errors.
    stop_at: tools whose result is the agent's answer, without another turn.
    handoffs: nodes of its graph to which it may hand the conversation over, by name or by `handoff(…)`. Where a model
        does, the turn's other tools are used first, the first of several handoffs counts, and the graph's edge leads
        on. Outside a graph, and as a tool, an agent has nobody to hand over to and is not offered it.
    max_turns: how many model calls one activation may make; then it raises `MaxTurns`.
    max_repeats: the call of one tool with the same arguments that raises `LoopDetected`; None lets all.
    tell_budget: tell the model, before each turn, what the budgets around it have left.
    history: "branch" goes on with the agent's own conversation when a branch visits it again.
    format: raw completion in a text format of your own instead of chat.
    budget, retry, timeout: for every activation; `timeout` in seconds. Under `Budget(on_exhausted="wrap_up")` the model
        is asked a last time, without tools, to answer with what there is.
    """

    kind = "agent"
    wraps_up = True

    @overload
    def __init__(
        self: Agent[object, str],
        name: str,
        *,
        instructions: Instructs[Any] = "",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[object, U],
        name: str,
        *,
        output: type[U],
        instructions: Instructs[Any] = "",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[T, str],
        name: str,
        *,
        input: type[T],
        instructions: Instructs[T] = "",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        input: type[In],
        output: type[Out],
        instructions: Instructs[In] = "",
        **options: Unpack[Options],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        input: Any = object,
        output: Any = str,
        model: Model | str | None = None,
        instructions: Instructs[Any] = "",
        tools: Sequence[Node[Any, Any] | Callable[..., Any]] = (),
        stop_at: Sequence[Node[Any, Any] | Callable[..., Any]] = (),
        settings: ModelSettings | None = None,
        handoffs: Sequence[str | Transfer] = (),
        max_turns: int = 10,
        max_repeats: int | None = 5,
        tell_budget: bool = False,
        history: Literal["fresh", "branch"] = "fresh",
        format: Format | None = None,
        description: str = "",
        budget: Budget | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> None:
        about = description or (instructions if isinstance(instructions, str) else "")
        super().__init__(
            name, input=input, output=output, description=about, budget=budget, retry=retry, timeout=timeout
        )
        if max_turns < 1:
            raise DefinitionError(f"agent {name!r}: max_turns={max_turns} leaves no turn to answer in")
        if max_repeats is not None and max_repeats < 2:
            raise DefinitionError(f"agent {name!r}: max_repeats={max_repeats} leaves no tool to be used; None lets all")
        if history not in ("fresh", "branch"):
            raise DefinitionError(f'agent {name!r}: history={history!r}: write "fresh" or "branch"')
        if description:  # instructions are content: traces keep them only where asked to
            self.attributes = {"description": description}
        self.model = model
        self.instructions = Instructions(instructions)
        self.needs = self.instructions.needs
        self.settings = settings or ModelSettings()
        self.max_turns = max_turns
        self.max_repeats = max_repeats
        self.tell_budget = tell_budget
        self.history = history
        self.format = format
        self.toolbox = Toolbox(name, tools)
        self.parts = self.tools = self.toolbox.tools
        self.stop_at = frozenset(tool_spec(as_tool(t)).name for t in stop_at)
        if unknown := self.stop_at - set(self.toolbox.names):
            raise DefinitionError(f"agent {name!r}: stop_at names {', '.join(sorted(unknown))}, not among its tools")
        self._transfers = _transfers(name, handoffs, self.toolbox)
        self.handoffs = tuple(t.to for t in self._transfers.values())

    def interval(self, outlook: Outlook) -> Interval:
        """Return one to `max_turns` model calls, one more where the agent may wrap up, and what its tools take."""
        words = (
            0 if self.format is not None else least_words(self.instructions.fixed, outlook)
        )  # a format may leave out any
        call = turn_interval(outlook.models(self.model), self.settings, words, outlook.path)
        turns = Interval(call.least, repeated(call.most, self.max_turns + outlook.wraps), call.call)
        return turns + tools_interval(self.tools, outlook)

    async def invoke(self, ctx: Context, value: In, /) -> Out:
        check_deps(self.name, self.needs, ctx.deps)
        conversation = self._begin(ctx, value)
        ctx.state = conversation  # where `wrap_up` finds it
        chat, repeats = Chat(ctx.model(self.model)), Repeats(self.max_repeats)
        mistake = ""
        for _ in range(self.max_turns):
            request = await self._request(ctx, conversation, self._offered(ctx))
            response = await ctx.run(chat, request)
            said = await self._take_turn(ctx, self._read(response, request), conversation, repeats)
            if isinstance(said, Handoff):
                self._keep(ctx, conversation)
                return cast("Out", said)  # the graph's edge takes it, so that nothing typed ever meets it
            if said is None:
                continue
            try:
                output = self._answer.parse(said, conversation.passages)
            except ValidationError as error:
                mistake = self._mistake(ctx, error, response.finish_reason)
                conversation.messages.append(UserMessage(mistake))
                continue
            self._keep(ctx, conversation)
            return cast("Out", output)
        last = f"; it was told last: {mistake}" if mistake else ""
        raise MaxTurns(f"no answer after {self.max_turns} turns; raise max_turns= or simplify the task{last}")

    async def wrap_up(self, ctx: Context, value: Any, partial: Partial, /) -> Out:
        """Ask once more, without tools, for an answer from what there is; raises `MaxTurns` where it does not fit."""
        conversation = ctx.state if isinstance(ctx.state, Conversation) else self._begin(ctx, value)
        conversation.messages[:] = [*answered(conversation.messages, _NO_RESULT), UserMessage(_WRAP_UP)]
        request = await self._request(ctx, conversation, ())
        reply = self._read(await ctx.run(Chat(ctx.model(self.model)), request), request)
        conversation.messages.append(replace(reply, tool_calls=()))
        if reply.tool_calls and not reply.text:
            raise MaxTurns("asked for a last answer, as the budget was used up, the model called a tool")
        try:
            output = self._answer.parse(self._text(reply.text, conversation), conversation.passages)
        except ValidationError as error:
            raise MaxTurns(f"the last answer, as the budget was used up, does not fit:\n{mistakes(error)}") from error
        self._keep(ctx, conversation)
        return cast("Out", output)

    def _begin(self, ctx: Context, value: In) -> Conversation:
        """Begin the conversation, or go on with the branch's own, or with one that was handed over."""
        said = ctx.memory.get(self) if self.history == "branch" else None
        earlier: list[Message] = [] if said is None else said.messages
        if isinstance(value, Handoff):
            task, messages = value.input, mended([*earlier, *added(earlier, value.messages)])
        else:
            task, messages = value, [*earlier, UserMessage(as_text(value), untrusted=bool(ctx.untrusted))]
        guidance = ""
        if ctx.is_recorded or ctx.goes_on:
            guidance = ctx.draw("guidance", lambda: "\n".join(f"- {g}" for g in ctx.guidance))
        conversation = Conversation(self.instructions, task, messages, tell_budget=self.tell_budget, guidance=guidance)
        if self._answer.may_cite:
            if said is not None:
                conversation.passages = said.passages.copy()
            conversation.passages.add(task, by=_GIVEN)
        if earlier or isinstance(value, Handoff):  # it keeps its marks, whoever vouched for what has come of it
            ctx.mark_untrusted(*(_source(m, self.name) for m in messages if _is_untrusted(m)))
        return conversation

    def _keep(self, ctx: Context, conversation: Conversation) -> None:
        if self.history == "branch":
            ctx.memory[self] = conversation

    async def _request(self, ctx: Context, conversation: Conversation, tools: tuple[ToolSpec, ...]) -> ModelRequest:
        messages = await conversation.shown(ctx)
        if self.format is not None:
            prompt = self.format.write(messages, tools)
            return ModelRequest(messages=messages, prompt=prompt, settings=self._settings_of_format)
        if ctx.untrusted:
            messages = tuple(map(marked, messages))
        return ModelRequest(messages=messages, tools=tools, output_schema=self._answer.schema, settings=self.settings)

    def _read(self, response: ModelResponse, request: ModelRequest) -> AssistantMessage:
        said = response.message
        return said if self.format is None else self.format.read(said.text, request.messages)

    async def _take_turn(
        self, ctx: Context, reply: AssistantMessage, conversation: Conversation, repeats: Repeats
    ) -> str | Handoff | None:
        """Carry out what the model said; return what ends the conversation, an answer's text or a handoff."""
        over = self._handing_over(ctx, reply)
        calls = tuple(c for c in reply.tool_calls if c not in over)
        if not over or calls or reply.text:
            conversation.messages.append(replace(reply, tool_calls=calls) if over else reply)
        text: str | None = reply.text
        if calls:
            repeats.check(calls)
            used = await self.toolbox.use(ctx, calls, reply.text)
            results = [u.message for u in used]
            conversation.messages += results
            if self._answer.may_cite:
                for name in dict.fromkeys(r.name for r in results):  # what is read together is told apart
                    conversation.passages.add([u.outcome for u in used if u.message.name == name], by=name)
            text = next((r.text for r in results if r.name in self.stop_at and not r.failed), None)
        if over:
            transfer = self._transfers[over[0].name]
            is_marked = bool(ctx.untrusted)
            return transfer.handoff(self.name, over[0], conversation.input, conversation.messages, untrusted=is_marked)
        return None if text is None else self._text(text, conversation)

    def _mistake(self, ctx: Context, error: ValidationError, finish_reason: str) -> str:
        """Say what is wrong with an answer; what is quoted may be from outside, and is marked then."""
        wrong = mistakes(error)
        return correction(spotlit(wrong, "mistakes") if ctx.untrusted else wrong, finish_reason)

    def _offered(self, ctx: Context) -> tuple[ToolSpec, ...]:
        """Describe the tools that may be called now, and the handoffs that an edge leads on."""
        specs = self.toolbox.offered(ctx)
        if not self._transfers:
            return specs
        named = {n.name: n for n in ctx.targets}
        return (*specs, *(t.spec(named[t.to]) for t in self._transfers.values() if t.to in named))

    def _handing_over(self, ctx: Context, reply: AssistantMessage) -> list[ToolCall]:
        if not self._transfers or not reply.tool_calls:
            return []
        named = {n.name for n in ctx.targets}
        return [c for c in reply.tool_calls if c.name in self._transfers and self._transfers[c.name].to in named]

    def _text(self, text: str, conversation: Conversation) -> str:
        return text if self.format is None else self.format.answer(conversation.whole)

    @cached_property
    def _settings_of_format(self) -> ModelSettings:
        assert self.format is not None
        return replace(self.settings, stop=(*self.settings.stop, *self.format.stop))

    @cached_property
    def _answer(self) -> Answer:
        return Answer(self.name, self.output)


def _is_untrusted(message: Message) -> bool:
    return isinstance(message, ToolMessage | UserMessage) and message.untrusted


def _source(message: Message, agent: str) -> str:
    return message.name if isinstance(message, ToolMessage) else agent


def _transfers(agent: str, handoffs: Sequence[str | Transfer], toolbox: Toolbox) -> dict[str, Transfer]:
    """Return an agent's handoffs by the name of the tool that stands for each."""
    if isinstance(handoffs, str):
        raise DefinitionError(f"agent {agent!r}: handoffs={handoffs!r}: write a list of names, [{handoffs!r}]")
    offers = [h if isinstance(h, Transfer) else Transfer(h) for h in handoffs]
    named = {t.tool: t for t in offers}
    if len(named) < len(offers) or named.keys() & set(toolbox.names):
        raise DefinitionError(f"agent {agent!r} has two handoffs, or a handoff and a tool, of one name; rename one")
    return named
