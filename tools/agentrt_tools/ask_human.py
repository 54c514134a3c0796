"""Asking a person: a tool by which an agent gets answers that only people have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, PydanticSchemaGenerationError, TypeAdapter

from agentrt import Context, DefinitionError, InvalidArguments, Tool
from agentrt.budget import STEPS
from agentrt.interval import Interval, Outlook, started
from agentrt.question import Question
from agentrt.schema import Schema, SchemaRefused, parts_of

NOBODY: Final = "Nobody has answered in time."
"""What an agent reads if nobody answers in time, unless it is told something else."""
_RANGES: Final = (
    ("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
)  # fmt: skip
_Asked: TypeAlias = tuple[str, Mapping[str, Any]]
_DESCRIPTION: Final = (
    "Ask a person and wait for the answer. Use it for what you cannot find out and for what you may not decide."
)


class AskHuman(Tool[..., object]):
    """Let an agent ask a person: its run parks until somebody has answered, and goes on with the answer.

    output: the type of every answer; without it the model may state a JSON schema, else answers are text.
    timeout: after so many seconds the answer is `default`, once the run goes on.

    The person sees the question, and what the agent said when it asked.
    """

    def __init__(
        self,
        output: Any = None,
        *,
        name: str = "ask_human",
        description: str = _DESCRIPTION,
        timeout: float | None = None,
        default: object = NOBODY,
    ) -> None:
        function = _as_asked if output is None else _as_stated(name, output)
        super().__init__(function, name=name, description=description, effect="read")
        self.output = object  # not what its function returns, but what people answer
        self._seconds = timeout
        self._default = None if timeout is None else default
        self._answer: Any = (
            object if output is None else Annotated[object, AfterValidator(_checked(output, self._default))]
        )

    def interval(self, outlook: Outlook) -> Interval:
        return started(f"{outlook.path}/ask", (STEPS,))

    async def use(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, why: str = "") -> object:
        """Ask in a step below this one."""
        prompt, schema = self.function(*args, **kwargs)
        about = {"why": why}
        question = Question(
            "ask", prompt, self._answer, about=about, schema=schema, timeout=self._seconds, default=self._default
        )
        return await ctx.run(question, prompt)


def _checked(output: Any, default: object) -> Callable[[object], object]:
    """Return what lets an answer through as it is, if it fits the type: its schema may not say all that it asks."""
    adapter = TypeAdapter(output)

    def checked(value: object) -> object:
        if value != default:
            adapter.validate_python(value)
        return value

    return checked


def _as_asked(question: str, answer_schema: dict[str, Any] | None = None) -> _Asked:
    """Return what is asked, with the schema of an answer as a model wants it.

    Args:
        question: What you want to know, with all that the person needs to answer it.
        answer_schema: JSON schema of the answer, without $ref. Leave it out for a text.
    """
    if answer_schema is None:
        return question, {"type": "string"}
    if any("$ref" in part or "$dynamicRef" in part for part in parts_of(answer_schema)):
        raise InvalidArguments("answer_schema: write it without $ref")
    try:
        Schema(answer_schema).check()
    except SchemaRefused as error:
        raise InvalidArguments(f"answer_schema: {error}") from error
    if unchecked := Schema(answer_schema).unchecked():
        raise InvalidArguments(
            f"answer_schema: nothing can be checked against the pattern {unchecked[0][:80]!r}: write another, without "
            "look-around, back-references and patternProperties, or none"
        )
    if not _has_answers(answer_schema):
        raise InvalidArguments("answer_schema: no answer fits it: say what a person may answer")
    return question, answer_schema


def _has_answers(schema: Any) -> bool:
    """Say whether anything may fit a schema without references; only where it is plain is the answer no."""
    if not isinstance(schema, Mapping):
        return schema is not False
    named = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return (
        (named is None or any(not Schema(schema).mistakes(value) for value in named))
        and schema.get("type") != []
        and schema.get("not") not in ({}, True)
        and all(schema.get(least, 0) <= schema.get(most, math.inf) for least, most in _RANGES)
        and all(map(_has_answers, schema.get("allOf", ())))
        and all(any(map(_has_answers, schema[key])) for key in ("anyOf", "oneOf") if key in schema)
        and (schema.get("type") != "object" or all(map(_has_answers, _needed(schema))))
    )


def _needed(schema: Mapping[str, Any]) -> list[Any]:
    """Return the schemas of the properties that an object must have."""
    others = schema.get("additionalProperties", True)
    return [schema.get("properties", {}).get(name, others) for name in schema.get("required", ())]


def _as_stated(name: str, output: Any) -> Callable[[str], _Asked]:
    try:
        schema = TypeAdapter(output).json_schema()
    except PydanticSchemaGenerationError as error:
        raise DefinitionError(f"{name}: no JSON schema for answers of {output!r}") from error

    def stated(question: str) -> _Asked:
        """Return what is asked, with the schema of the type that was stated.

        Args:
            question: What you want to know, with all that the person needs to answer it.
        """
        return question, schema

    return stated


ask_human: Final = AskHuman()
