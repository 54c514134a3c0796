"""One question to a model and its answer, as a line of JSON that people can read and compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from difflib import SequenceMatcher, unified_diff
from functools import cache
from typing import Any, Final, Self, TypeAlias

import msgspec
from pydantic import TypeAdapter

from agentrt.errors import ContextOverflow, ModelError, RequestRefused
from agentrt.model import ModelResponse
from agentrt.value import Value

Answer: TypeAlias = ModelResponse | ModelError
LASTING: Final = (ContextOverflow, RequestRefused)
"""Errors that the same request meets again; others say something of the moment and are not worth keeping."""

_LASTING = {kind.__name__: kind for kind in LASTING}
_LONGEST_DIFF: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """Hold a request in its JSON form, its answer, and the pieces in which the text came.

    `input_tokens` and `max_output` are what the model said of the prompt, where it was asked.
    """

    request: dict[str, Any]
    answer: Answer
    pieces: tuple[str, ...] = ()
    input_tokens: int | None = None
    max_output: int | None = None

    def to_line(self) -> str:
        """Return one line of JSON."""
        counted = {k: v for k in ("input_tokens", "max_output") if (v := getattr(self, k)) is not None}
        return json.dumps({"request": self.request, **counted, **self._answer()}, ensure_ascii=False)

    def _answer(self) -> dict[str, Any]:
        answer = self.answer
        if isinstance(answer, ModelError):
            return {"error": {"type": type(answer).__name__, "message": str(answer), "model": answer.model}}
        whole = "".join(self.pieces) == answer.message.text
        pieces = [len(p) for p in self.pieces] if whole else list(self.pieces)
        return {"answer": plain(replace(answer, first_chunk=None)), "pieces": pieces}

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read what `to_line` wrote; raises `ValueError` for anything else."""
        data = json.loads(line)
        if not isinstance(data, dict) or "request" not in data or not data.keys() & {"answer", "error"}:
            raise ValueError("neither a request with an answer nor one with an error")
        answer, pieces = _answer(data)
        return cls(
            request=data["request"],
            answer=answer,
            pieces=pieces,
            input_tokens=data.get("input_tokens"),
            max_output=data.get("max_output"),
        )


def _answer(data: dict[str, Any]) -> tuple[Answer, tuple[str, ...]]:
    if (error := data.get("error")) is not None:
        failure = _LASTING[error["type"]](error["message"])
        failure.model = error["model"]
        return failure, ()
    response = _responses().validate_python(data["answer"])
    pieces = _pieces(response.message.text, data["pieces"])
    return replace(response, first_chunk=0.0 if pieces else None), pieces


@cache
def _responses() -> TypeAdapter[ModelResponse]:
    return TypeAdapter(ModelResponse)


def _pieces(text: str, pieces: Sequence[int | str]) -> tuple[str, ...]:
    cut: list[str] = []
    for piece in pieces:
        if isinstance(piece, int):
            start = sum(map(len, cut))
            cut.append(text[start : start + piece])
        else:
            cut.append(piece)
    return tuple(cut)


def plain(value: Any) -> Any:
    """Return a request or a response as JSON, without what has its default."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = {f.name: plain(v) for f in fields(value) if (v := getattr(value, f.name)) != _default(f)}
        role = getattr(value, "role", None)
        return {"role": role, **shown} if role else shown
    if isinstance(value, Value):
        own = ((f, getattr(value, f.name)) for f in msgspec.structs.fields(value))
        return {f.name: plain(v) for f, v in own if v != f.default}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def key(request: dict[str, Any]) -> str:
    """Return what equal requests have in common."""
    return json.dumps(request, sort_keys=True)


def prompt_key(request: dict[str, Any]) -> str:
    """Return what requests of one length have in common, however they are sampled."""
    return key({k: v for k, v in request.items() if k != "settings"})


def difference(asked: dict[str, Any], recorded: Sequence[Interaction]) -> str:
    """Show how a request differs from the recorded one that is nearest to it, as a unified diff."""
    lines = _lines(asked)
    nearest = max((_lines(i.request) for i in recorded), key=lambda other: _likeness(lines, other), default=[])
    diff = list(unified_diff(nearest, lines, "recorded", "asked", lineterm="", n=2))
    more = len(diff) - _LONGEST_DIFF
    return "\n".join([*diff[:_LONGEST_DIFF], *([f"… {more} lines more"] if more > 0 else [])])


def _lines(request: dict[str, Any]) -> list[str]:
    """Print a request for reading: a line of a text is a line."""
    text = json.dumps(request, ensure_ascii=False, indent=2)
    return [part for line in text.splitlines() for part in line.replace("\\n", "\n      ").split("\n")]


def _likeness(one: list[str], other: list[str]) -> tuple[float, float]:
    letters = SequenceMatcher(None, "".join(one), "".join(other), autojunk=False).quick_ratio()
    return SequenceMatcher(None, one, other, autojunk=False).ratio(), letters
