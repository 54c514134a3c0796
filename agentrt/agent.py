"""Agents: a model and its tools in a loop, as a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from pydantic import TypeAdapter, ValidationError, create_model

from agentrt.budget import Budget
from agentrt.errors import BudgetExceeded, DefinitionError, InvalidArguments, MaxTurns
from agentrt.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, ToolSpec, UserMessage
from agentrt.model import Chat, Model, ModelRequest, ModelSettings
from agentrt.node import Context, Node
from agentrt.tool import ToolUse, as_text, as_tool, tool_spec

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
U = TypeVar("U")


class Format(Protocol):
    """Write a conversation as plain text for a model to continue, and read what it wrote.

    Small base models follow examples in text far better than a chat template; an agent with a format asks for raw
    completion instead of chat.
    """

    @property
    def stop(self) -> tuple[str, ...]:
        """Return the strings at which the model is stopped."""
        ...

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        """Return the prompt whose continuation is the agent's next turn."""
        ...

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        """Return what the model's continuation says: an answer, or calls of tools."""
        ...

    def answer(self, messages: Sequence[Message]) -> str:
        """Return the answer of a finished conversation, as text or as the JSON of the agent's output type.

        The last message is the model's, or the result of a tool in `stop_at`.
        """
        ...


class Options(TypedDict, total=False):
    """Name what every agent may be given besides its types and instructions: see `Agent`."""

    model: Model | str | None
    tools: Sequence[Node[Any, Any] | Callable[..., Any]]
    stop_at: Sequence[Node[Any, Any] | Callable[..., Any]]
    settings: ModelSettings | None
    max_turns: int
    history: Literal["fresh", "branch"]
    format: Format | None
    description: str
    budget: Budget | None


class Agent(Node[In, Out], Generic[In, Out]):
    """Let a model work on the input with tools until it answers.

    model: a litellm name (`provider/model`), `local/NAME`, or any `Model`; None takes the run's default.
    instructions: the system message, or a function of the input that returns it.
    tools: functions, retrievers, other agents, graphs: any node. Errors of tools are shown to the model.
    output: the type of the answer; the model is held to its schema, and told of validation errors.
    stop_at: tools whose result is the agent's answer, without another turn.
    max_turns: how many model calls one activation may make; then it raises `MaxTurns`.
    history: "branch" goes on with the agent's own conversation when a branch visits it again.
    format: raw completion in a text format of your own instead of chat.
    """

    kind = "agent"

    @overload
    def __init__(
        self: Agent[object, str],
        name: str,
        *,
        instructions: str | Callable[[Any], str] = "",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[object, U],
        name: str,
        *,
        output: type[U],
        instructions: str | Callable[[Any], str] = "",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[T, str],
        name: str,
        *,
        input: type[T],
        instructions: str | Callable[[T], str] = "",
        **options: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        input: type[In],
        output: type[Out],
        instructions: str | Callable[[In], str] = "",
        **options: Unpack[Options],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        input: Any = object,
        output: Any = str,
        model: Model | str | None = None,
        instructions: str | Callable[[Any], str] = "",
        tools: Sequence[Node[Any, Any] | Callable[..., Any]] = (),
        stop_at: Sequence[Node[Any, Any] | Callable[..., Any]] = (),
        settings: ModelSettings | None = None,
        max_turns: int = 10,
        history: Literal["fresh", "branch"] = "fresh",
        format: Format | None = None,
        description: str = "",
        budget: Budget | None = None,
    ) -> None:
        about = description or (instructions if isinstance(instructions, str) else "")
        super().__init__(name, input=input, output=output, description=about, budget=budget)
        if max_turns < 1:
            raise DefinitionError(f"agent {name!r}: max_turns={max_turns} leaves no turn to answer in")
        if description:  # instructions are content: traces keep them only where asked to
            self.attributes = {"description": description}
        self.model = model
        self.instructions = instructions
        self.tools = tuple(as_tool(t) for t in tools)
        self.settings = settings or ModelSettings()
        self.max_turns = max_turns
        self.history = history
        self.format = format
        self._specs = tuple(tool_spec(t) for t in self.tools)
        self._named = {spec.name: t for spec, t in zip(self._specs, self.tools, strict=True)}
        self.stop_at = frozenset(tool_spec(as_tool(t)).name for t in stop_at)
        if unknown := self.stop_at - self._named.keys():
            raise DefinitionError(f"agent {name!r}: stop_at names {', '.join(sorted(unknown))}, not among its tools")
        if len(self._named) < len(self.tools):
            raise DefinitionError(f"agent {name!r} has two tools of one name; rename one")

    async def invoke(self, ctx: Context, value: In, /) -> Out:
        messages = self._opening(ctx, value)
        chat = Chat(ctx.model(self.model))
        mistake = ""
        for _ in range(self.max_turns):
            response = await ctx.run(chat, self._request(messages))
            text = await self._take_turn(ctx, response.message, messages)
            if text is None:
                continue
            try:
                output = self._answer.parse(text)
            except ValidationError as error:
                mistake = _correction(error, response.finish_reason)
                messages.append(UserMessage(mistake))
                continue
            if self.history == "branch":
                ctx.memory[self] = messages
            return cast("Out", output)
        last = f"; it was told last: {mistake}" if mistake else ""
        raise MaxTurns(f"no answer after {self.max_turns} turns; raise max_turns= or simplify the task{last}")

    async def _take_turn(self, ctx: Context, reply: AssistantMessage, messages: list[Message]) -> str | None:
        """Carry out what the model said; return the text of the answer if that ends the conversation."""
        if self.format is not None:
            reply = self.format.read(reply.text, messages)
        messages.append(reply)
        text: str | None = reply.text
        if reply.tool_calls:
            results = await self._use_tools(ctx, reply.tool_calls)
            messages += results
            text = next((r.text for r in results if r.name in self.stop_at and not r.failed), None)
        return text if text is None or self.format is None else self.format.answer(messages)

    def _opening(self, ctx: Context, value: In) -> list[Message]:
        """Begin the conversation, or go on with the branch's own."""
        earlier: list[Message] = ctx.memory.get(self, []) if self.history == "branch" else []
        messages = list(earlier)
        if not earlier:
            text = self.instructions if isinstance(self.instructions, str) else self.instructions(value)
            if text:
                messages.append(SystemMessage(text))
        messages.append(UserMessage(as_text(value)))
        return messages

    def _request(self, messages: list[Message]) -> ModelRequest:
        if self.format is None:
            return ModelRequest(
                messages=tuple(messages),
                tools=self._specs,
                output_schema=self._answer.schema,
                settings=self.settings,
            )
        prompt = self.format.write(messages, self._specs)
        return ModelRequest(messages=tuple(messages), prompt=prompt, settings=self._settings_of_format)

    @cached_property
    def _settings_of_format(self) -> ModelSettings:
        assert self.format is not None
        return replace(self.settings, stop=(*self.settings.stop, *self.format.stop))

    async def _use_tools(self, ctx: Context, calls: Sequence[ToolCall]) -> list[ToolMessage]:
        """Run the tools a turn asked for side by side; what goes wrong is told to the model (but no denial, E1)."""
        known = [c for c in calls if c.name in self._named]
        outcomes = iter(await ctx.gather([(ToolUse(self._named[c.name], c.id), c.arguments) for c in known]))
        answers: list[ToolMessage] = []
        for call in calls:
            if call.name not in self._named:
                names = ", ".join(self._named) or "none"
                answers.append(ToolMessage(call.id, call.name, f"unknown tool; there are: {names}", failed=True))
                continue
            outcome = next(outcomes)
            if isinstance(outcome, BudgetExceeded):
                raise outcome
            failed = isinstance(outcome, Exception)
            text = _tool_error(outcome) if isinstance(outcome, Exception) else as_text(outcome)
            answers.append(ToolMessage(call.id, call.name, text, failed=failed))
        return answers

    @cached_property
    def _answer(self) -> _Answer:
        return _Answer(self.name, self.output)


class _Answer:
    """Read an agent's answer as its output type; a type that is no object is wrapped as {"result": …}."""

    def __init__(self, name: str, output: Any) -> None:
        self.schema: dict[str, Any] | None = None
        self._adapter: TypeAdapter[Any] | None = None
        self._wrapped = False
        if output in (str, object, Any):
            return
        self._adapter = TypeAdapter(output)
        if self._adapter.json_schema().get("type") != "object":
            self._wrapped = True
            self._adapter = TypeAdapter(create_model(name, result=(output, ...)))
        self.schema = {"additionalProperties": False, **self._adapter.json_schema(), "title": name}

    def parse(self, text: str) -> Any:
        if self._adapter is None:
            return text
        answer = self._adapter.validate_json(_unfenced(text))
        return answer.result if self._wrapped else answer


def _unfenced(text: str) -> str:
    """Return a JSON answer without the Markdown fence that chat models like to put around it."""
    inside = text.strip()
    if inside.startswith("```") and inside.endswith("```"):
        return inside[3:-3].removeprefix("json")
    return text


def _correction(error: ValidationError, finish_reason: str) -> str:
    cut = " (it was cut off at the token limit: be shorter)" if finish_reason == "length" else ""
    lines = [f"- {'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()]
    return f"That answer does not fit the required form{cut}:\n" + "\n".join(lines) + "\nAnswer again, corrected."


def _tool_error(error: Exception) -> str:
    if isinstance(error, InvalidArguments):
        return f"the arguments do not fit: {error}"
    return f"{type(error).__name__}: {error}"
