"""Conversations: what one activation of an agent has said and heard, and how the model is shown it."""

from __future__ import annotations

from typing import Final

from agentrt.instructions import Instructions
from agentrt.messages import Message, SystemMessage, UserMessage
from agentrt.node import Context
from agentrt.passage import Found

_GUIDANCE: Final = "People were asked about such calls before, and said:"


class Conversation:
    """Hold the messages of one activation.

    Instructions, what people said before and the line about the budget are shown, never kept: a conversation that goes
    on, later or with another agent, meets them anew.
    """

    def __init__(
        self, instructions: Instructions, input: object, messages: list[Message], *, tell_budget: bool, guidance: str
    ) -> None:
        self.input = input
        self.messages = messages
        self.passages = Found()
        """What the agent was given or has found: what its answer may cite."""
        self._instructions = instructions
        self._tell_budget = tell_budget
        self._guidance = f"{_GUIDANCE}\n{guidance}" if guidance else ""
        self._system: tuple[Message, ...] | None = None

    async def shown(self, ctx: Context) -> tuple[Message, ...]:
        """Return what the model is to read before its next turn."""
        if self._system is None or self._instructions.changes:
            written = await self._instructions.write(self.input, ctx)
            text = "\n\n".join(filter(None, (written, self._guidance)))
            self._system = (SystemMessage(text),) if text else ()
        left = ctx.draw("budget", lambda: str(ctx.budget) if ctx.budget.remaining else "") if self._tell_budget else ""
        line = (UserMessage(f"(Budget: {left}.)"),) if left else ()
        return (*self._system, *self.messages, *line)

    @property
    def whole(self) -> tuple[Message, ...]:
        """Return the conversation with its instructions, as the model was shown them last."""
        return (*(self._system or ()), *self.messages)
