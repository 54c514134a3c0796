"""Formats: how an agent writes its conversation as text for raw completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentrt.messages import AssistantMessage, Message, ToolSpec


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
