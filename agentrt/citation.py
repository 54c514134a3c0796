"""Citations: an answer names the passages it rests on, and they are ones that were really retrieved."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from agentrt.passage import CITED, Found, Passage
from agentrt.text import shortened

_MOST_NAMED = 20
_BEGINNING = 60
"""By so many characters of its text a passage is told from others."""


def _cited(value: object, info: ValidationInfo) -> object:
    """Return the passage that a model cites by its id, or by its source where only one passage of that was found.

    Where two tools have found different texts under one id, the model is asked which it means.

    A whole passage is one that a record holds: a model may not write one.
    """
    found: Found | None = (info.context or {}).get("passages")
    if isinstance(value, Passage) or (found is None and not isinstance(value, str)):
        return value
    if not isinstance(value, str):
        raise ValueError("cite a passage by its id alone")  # noqa: TRY004 - pydantic tells of ValueErrors
    found = found or Found()
    written = value.strip()
    named = found.cited_as(written) or found.cited_as(_unbracketed(written))
    if len(named) == 1:
        return next(iter(named.values()))
    if named:
        each = ", ".join(
            f"{name} ({shortened(' '.join(passage.text.split()), _BEGINNING)})" for name, passage in named.items()
        )
        raise ValueError(f"{value!r} are several passages, of different texts: cite one of {each}")
    known = ", ".join(found.ids[-_MOST_NAMED:])
    raise ValueError(f"no passage {value!r} was found" + (f": cite one of {known}" if known else "; search first"))


def _unbracketed(name: str) -> str:
    """Return a name without the brackets that models put around what they cite."""
    return name[1:-1].strip() if name[:1] + name[-1:] in ("[]", "()") else name


Citation: TypeAlias = Annotated[
    Passage,
    BeforeValidator(_cited),
    WithJsonSchema(
        {"type": "string", "format": CITED, "description": "The id of a passage that was found."}, "validation"
    ),
]
"""A field of an agent's output that the model fills with the id of a passage, and whose value is that passage.

Only passages count that the agent was given or has found: any other id is told to the model as a mistake.
"""


class CitedAnswer(BaseModel, defer_build=True):
    """Hold an answer, and the passages that it rests on."""

    text: str = Field(description="The answer.")
    citations: list[Citation] = Field(description="The ids of the passages that say so.")
