"""Asking another model: a tool by which an agent gets a second opinion, or what a stronger model knows."""

from __future__ import annotations

from typing import Final

from agentrt import Agent, Budget, Model, ModelSettings, Retry
from agentrt.node import Effect

_DESCRIPTION = (
    "Ask the model {model} and return its answer. It sees nothing but your question: write all that it needs into it."
)
ANSWER: Final = ModelSettings(max_tokens=2_000)
"""How long an answer may be, unless it is told otherwise."""


class AskedModel(Agent[str, str]):
    """Be an agent that answers as another model; what it is asked leaves the run, so a narrowed one has to allow it."""

    effect: Effect | None = "read"


def ask_model(
    model: Model | str,
    *,
    name: str = "ask_model",
    description: str = "",
    instructions: str = "Answer the question. Say so if you do not know.",
    settings: ModelSettings = ANSWER,
    budget: Budget | None = None,
    retry: Retry | None = None,
    timeout: float | None = 120.0,
) -> Agent[str, str]:
    """Build a tool that puts one question to another model: an agent of one turn, without tools.

    So each question is a model call of the run, reserved, charged and traced like every other; cap it with `budget`,
    which holds for each question, or with `.limit(calls=…)`. A run that names a `model` of its own asks that in place
    of this one, too.
    """
    label = model if isinstance(model, str) else model.name
    return AskedModel(
        name,
        input=str,
        output=str,
        model=model,
        instructions=instructions,
        description=description or _DESCRIPTION.format(model=label),
        settings=settings,
        max_turns=1,
        budget=budget,
        retry=retry,
        timeout=timeout,
    )
