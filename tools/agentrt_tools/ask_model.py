"""Asking another model: a tool by which an agent gets a second opinion, or what a stronger model knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from agentrt import Agent, Budget, Model, ModelRequest, ModelSettings, Retry
from agentrt.messages import AssistantMessage
from agentrt.model import ModelResponse
from agentrt.node import Effect
from agentrt_tools.excerpt import MOST_CHARACTERS

_DESCRIPTION = (
    "Ask the model {model} and return its answer. It sees nothing but your question: write all that it needs into it."
)
_NOTHING: Final = "(the model has said nothing: ask in other words)"
ANSWER: Final = ModelSettings(max_tokens=2_000)
"""How long an answer may be, unless it is told otherwise."""


class AskedModel(Agent[str, str]):
    """Be an agent that answers as another model; what it is asked leaves the run, so a narrowed one has to allow it.

    An answer that is not whole, or of more than `most` characters, says so.
    """

    effect: Effect | None = "read"
    most: int = MOST_CHARACTERS

    def _read(self, response: ModelResponse, request: ModelRequest) -> AssistantMessage:
        said = super()._read(response, request)
        if not said.text:
            return said if said.tool_calls else replace(said, text=_NOTHING)
        return replace(said, text=_bounded(said.text, self.most, is_cut=response.finish_reason == "length"))


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
    most: int = MOST_CHARACTERS,
) -> Agent[str, str]:
    """Build a tool that puts one question to another model: an agent of one turn, without tools.

    So each question is a model call of the run, reserved, charged and traced like every other; cap it with `budget`,
    which holds for each question, or with `.limit(calls=…)`. A run that names a `model` of its own asks that in place
    of this one, too. An answer that breaks off at the limit of `settings`, or is cut at `most` characters, says so.
    """
    label = model if isinstance(model, str) else model.name
    asked = AskedModel(
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
    asked.most = most
    return asked


def _bounded(text: str, most: int, *, is_cut: bool) -> str:
    if left := len(text) - len(text[:most]):
        return f"{text[:most]}\n… {left:,} more characters are left out: ask for less at once"
    return f"{text}\n… the answer breaks off here, at its limit of tokens: ask for less at once" if is_cut else text
