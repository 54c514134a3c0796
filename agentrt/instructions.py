"""Instructions: an agent's system message, fixed or made anew for every model call."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast

from agentrt.deps import needed_deps
from agentrt.errors import DefinitionError
from agentrt.node import Context

T = TypeVar("T")
Instructs: TypeAlias = str | Callable[[T], str | Awaitable[str]] | Callable[[T, Context[Any]], str | Awaitable[str]]
"""Text, a function of the input, or a function of the input and the context; functions may be async."""


class Instructions:
    """Write an agent's system message.

    `changes` says that it is to be written before every model call, since it depends on the context; `needs` is the
    class of deps that the function's `Context[X]` names.
    """

    def __init__(self, given: Instructs[Any]) -> None:
        self._given = given
        parameters = [] if isinstance(given, str) else _positional(given)
        self.changes = len(parameters) > 1
        self.needs = needed_deps(_annotation(given, parameters[1])) if self.changes else None

    @property
    def fixed(self) -> str:
        """Return the text, as far as it is known before anything runs."""
        return self._given if isinstance(self._given, str) else ""

    async def write(self, value: object, ctx: Context) -> str:
        if isinstance(self._given, str):
            return self._given
        written: Any = cast("Any", self._given)(*((value, ctx) if self.changes else (value,)))
        text = await written if inspect.isawaitable(written) else written
        if not isinstance(text, str):
            raise DefinitionError(f"instructions are text, and the function returned {type(text).__name__}")
        return text


def _positional(function: Callable[..., Any]) -> list[str]:
    """Return the parameters that must be given: (input) or (input, ctx)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not say; they take the input
        return [""]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def _annotation(function: Any, name: str) -> Any:
    try:
        return typing.get_type_hints(function).get(name)
    except (NameError, TypeError):  # what cannot be read cannot be checked; the function itself will tell
        return None
