"""Toolboxes: an agent's tools, offered to its model and used as the model asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from agentrt.errors import BudgetExceeded, CallDenied, DefinitionError, InvalidArguments, LoopDetected
from agentrt.messages import ToolCall, ToolMessage, ToolSpec
from agentrt.node import Context, Node
from agentrt.tool import ToolUse, as_text, as_tool, tool_spec


class Used(NamedTuple):
    """Hold what a model is told of a call, and what has really come of it."""

    message: ToolMessage
    outcome: Any


class Toolbox:
    """Hold the tools of one agent; raises `DefinitionError` for two of one name."""

    def __init__(self, agent: str, tools: Sequence[Node[Any, Any] | Callable[..., Any]]) -> None:
        self.tools = tuple(as_tool(t) for t in tools)
        self._specs = tuple(tool_spec(t) for t in self.tools)
        self._named = {spec.name: t for spec, t in zip(self._specs, self.tools, strict=True)}
        if len(self._named) < len(self.tools):
            names = [spec.name for spec in self._specs]
            twice = next(tool.name for tool, name in zip(self.tools, names, strict=True) if names.count(name) > 1)
            raise DefinitionError(f"agent {agent!r} has two tools named {twice!r}: give one of them another name=")

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._named)

    def offered(self, ctx: Context) -> tuple[ToolSpec, ...]:
        """Describe the tools that may still be called: none that the run forbids, or whose own limit is used up."""
        each = zip(self._specs, self.tools, strict=True)
        is_guarded = ctx.is_guarded
        return tuple(s for s, t in each if ctx.calls_left(t) != 0 and (not is_guarded or ctx.allows(t)))

    async def use(self, ctx: Context, calls: Sequence[ToolCall], why: str = "") -> list[Used]:
        """Run the tools a turn asked for side by side; what goes wrong is told to the model.

        `why` is what the model said when it asked.

        Raises a denial by a budget of the agent or around it (rule E1); one by the tool's own is the tool's error.
        Raises `DefinitionError`, too: a tool that cannot be used as it is defined is nothing that a model could mend.
        """
        known = [c for c in calls if c.name in self._named]
        told = await ctx.gather([(ToolUse(self._named[c.name], c.id, why), c.arguments) for c in known])
        if (mistake := next((t.outcome for t in told if isinstance(t.outcome, DefinitionError)), None)) is not None:
            raise mistake
        called = iter(told)
        return [self._used(c, *next(called)) if c.name in self._named else self._unknown(c) for c in calls]

    def _unknown(self, call: ToolCall) -> Used:
        names = ", ".join(self._named) or "none"
        return Used(ToolMessage(call.id, call.name, f"unknown tool; there are: {names}", failed=True), None)

    def _used(self, call: ToolCall, outcome: Any, untrusted: frozenset[str]) -> Used:
        failed = isinstance(outcome, Exception)
        text = as_text(_told(outcome) if failed else self._named[call.name].shown(outcome))
        return Used(ToolMessage(call.id, call.name, text, failed=failed, untrusted=bool(untrusted)), outcome)


class Repeats:
    """Count equal calls of one activation of an agent, to stop a model that goes round in circles."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._seen: dict[str, list[str]] = {}

    def check(self, calls: Sequence[ToolCall]) -> None:
        """Count calls; raises `LoopDetected` at the one that makes the most, before any of them runs."""
        if self._most is None:
            return
        for call in calls:
            seen = self._seen.setdefault(call.name, [])
            seen.append(call.arguments)
            if len(seen) >= self._most:  # arguments are read only where there could be a loop
                self._compare(call, seen, self._most)

    def _compare(self, call: ToolCall, seen: Sequence[str], most: int) -> None:
        arguments = _canonical(call.arguments)
        times = sum(1 for one in seen if one == call.arguments or _canonical(one) == arguments)
        if times >= most:
            raise LoopDetected(
                f"the model asked {times} times for {call.name} with the same arguments {arguments}; "
                "say in the instructions what to do when a tool does not help, or raise max_repeats=",
                tool=call.name,
                arguments=arguments,
                times=times,
            )


def _canonical(arguments: str) -> str:
    """Write JSON arguments in one way, whatever the order and spacing the model chose."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments


def _told(error: Exception) -> str:
    if isinstance(error, InvalidArguments):
        return f"the arguments do not fit: {error}"
    if isinstance(error, CallDenied):
        return str(error)
    if isinstance(error, BudgetExceeded):
        return f"this tool may use no more {error.dimension}; go on without it"
    return f"{type(error).__name__}: {error}"
