"""What models and agents say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instruct the model."""

    text: str
    role: Literal["system"] = "system"


@dataclass(frozen=True, slots=True)
class UserMessage:
    """Ask, or answer what the model asked."""

    text: str
    role: Literal["user"] = "user"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Ask for a tool; `arguments` is JSON text, as the model wrote it and not yet checked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """Hold what the model said: text, calls of tools, or both."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    role: Literal["assistant"] = "assistant"


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """Hold what a tool answered; `failed` marks an error shown to the model."""

    call_id: str
    name: str
    text: str
    failed: bool = False
    role: Literal["tool"] = "tool"


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """Describe a tool to a model; `parameters` is the JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


def tool_name(name: str) -> str:
    """Return a node's name as providers let tools be called: letters, digits, `_` and `-`."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name)


def new_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return what was added since the model last spoke, so that records and traces stay linear in content."""
    for i in range(len(messages) - 1, -1, -1):
        if isinstance(messages[i], AssistantMessage):
            return messages[i + 1 :]
    return messages
