"""Answers: what a model wrote, read as the type its agent promises."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError, create_model

from agentrt.passage import CITED, Found


class Answer:
    """Read an agent's answer as its output type; a type that is no object is wrapped as {"result": …}."""

    def __init__(self, name: str, output: Any) -> None:
        self.schema: dict[str, Any] | None = None
        self.may_cite = False
        self._adapter: TypeAdapter[Any] | None = None
        self._bare: TypeAdapter[Any] | None = None
        if output in (str, object, Any):
            return
        self._adapter = TypeAdapter(output)
        if self._adapter.json_schema().get("type") != "object":
            self._bare = self._adapter
            self._adapter = TypeAdapter(create_model(name, result=(output, ...)))
        self.schema = {"additionalProperties": False, **self._adapter.json_schema(), "title": name}
        self.may_cite = f"'format': '{CITED}'" in str(self.schema)

    def parse(self, text: str, passages: Found | None = None) -> Any:
        """Return the answer, which may cite these passages; raises pydantic's `ValidationError`."""
        if self._adapter is None:
            return text
        written = _unfenced(text)
        known = {"passages": passages or Found()}  # what citations are read with
        if self._bare is None:
            return self._adapter.validate_json(written, context=known)
        try:
            return self._adapter.validate_json(written, context=known).result
        except ValidationError as error:
            try:  # the value alone, as a model writes it that is not held to the schema
                return self._bare.validate_json(written, context=known)
            except ValidationError:
                raise error from None


def mistakes(error: ValidationError) -> str:
    """List what does not fit, one line a mistake."""
    return "\n".join(f"- {'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors())


def correction(wrong: str, finish_reason: str) -> str:
    """Tell a model what is wrong with its answer, and to answer again."""
    cut = " (it was cut off at the token limit: be shorter)" if finish_reason == "length" else ""
    return f"That answer does not fit the required form{cut}:\n{wrong}\nAnswer again, corrected."


def _unfenced(text: str) -> str:
    """Return a JSON answer without the Markdown fence that chat models like to put around it."""
    inside = text.strip()
    if inside.startswith("```") and inside.endswith("```"):
        return inside[3:-3].removeprefix("json")
    return text
