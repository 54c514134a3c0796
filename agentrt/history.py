"""Histories: conversations cut, mended and put together; pure functions of messages.

Two rules, since providers refuse everything else: a tool's result never stands without its call, nor a call without
its result; and a conversation begins with the user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from agentrt.errors import DefinitionError
from agentrt.messages import AssistantMessage, Message, ToolMessage, UserMessage

HistoryFilter: TypeAlias = Callable[[Sequence[Message]], Sequence[Message]]
LEFT_OUT: Final = UserMessage("(earlier messages are left out)")


def keep_last(n: int) -> HistoryFilter:
    """Filter: the last `n` messages, less what the cut would tear apart; raises `DefinitionError` below 0."""
    if n < 0:
        raise DefinitionError(f"keep_last({n}): keep a number of messages from 0")

    def keep_last_n(messages: Sequence[Message]) -> Sequence[Message]:
        return mended(messages[max(0, len(messages) - n) :])

    return keep_last_n


def without_tools(messages: Sequence[Message]) -> Sequence[Message]:
    """Filter: what was said, without the calls of tools and their results."""
    said = [replace(m, tool_calls=()) if isinstance(m, AssistantMessage) else m for m in messages]
    return [m for m in said if not isinstance(m, ToolMessage) and (m.text or not isinstance(m, AssistantMessage))]


def mended(messages: Sequence[Message]) -> list[Message]:
    """Leave out results whose call is missing before them, and calls whose result is missing behind them."""
    kept: list[Message] = []
    i = 0
    while i < len(messages):
        message = messages[i]
        i += 1
        if isinstance(message, AssistantMessage) and message.tool_calls:
            results = _results(messages, i)
            i += len(results)
            kept += _matched(message, results)
        elif not isinstance(message, ToolMessage):
            kept.append(message)
    return kept


def begun(messages: Sequence[Message]) -> list[Message]:
    """Let a cut conversation begin with the user: with a message that says it was cut."""
    return [LEFT_OUT, *messages] if messages and isinstance(messages[0], AssistantMessage) else list(messages)


def _results(messages: Sequence[Message], start: int) -> list[ToolMessage]:
    """Return the results that follow at once, which is where providers look for them."""
    found: list[ToolMessage] = []
    for message in messages[start:]:
        if not isinstance(message, ToolMessage):
            break
        found.append(message)
    return found


def _matched(message: AssistantMessage, results: Sequence[ToolMessage]) -> list[Message]:
    answers = {r.call_id: r for r in results}
    calls = tuple(c for c in message.tool_calls if c.id in answers)
    if not calls and not message.text:
        return []
    said = message if len(calls) == len(message.tool_calls) else replace(message, tool_calls=calls)
    return [said, *(answers[c.id] for c in calls)]


def answered(messages: Sequence[Message], text: str) -> list[Message]:
    """Answer the calls of the last turn that have no result yet with a failure that says `text`."""
    turn = next((i for i in reversed(range(len(messages))) if not isinstance(messages[i], ToolMessage)), None)
    if turn is None:
        return list(messages)
    done = {m.call_id for m in messages[turn + 1 :] if isinstance(m, ToolMessage)}
    last = messages[turn]
    calls = last.tool_calls if isinstance(last, AssistantMessage) else ()
    return [*messages, *(ToolMessage(c.id, c.name, text, failed=True) for c in calls if c.id not in done)]


def added(own: Sequence[Message], handed: Sequence[Message]) -> Sequence[Message]:
    """Return what a conversation that comes back holds beyond one's own: it begins with some of that, in order."""
    if own and handed and handed[0] == LEFT_OUT:
        handed = handed[1:]
    rest = iter(own)
    for i, message in enumerate(handed):
        if not any(message == mine for mine in rest):
            return handed[i:]
    return ()
