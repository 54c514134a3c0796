"""A model that remembers: what is equal, what is kept, what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentrt import (
    Budget,
    Cached,
    Context,
    DefinitionError,
    ModelRequest,
    ModelSettings,
    ModelUnavailable,
    Result,
    StepFailed,
    Usage,
    run,
)
from agentrt import events as ev
from agentrt.messages import UserMessage
from agentrt.model import Chat
from agentrt.testing import FunctionModel, ScriptedModel, call

pytestmark = pytest.mark.anyio
REQUEST = ModelRequest(messages=(UserMessage("one two"),), settings=ModelSettings(max_tokens=10, min_tokens=2))


async def ask(model: Cached, request: ModelRequest = REQUEST, **options: Any) -> Result[Any]:
    return await run(Chat(model), request, **options)


async def test_an_equal_request_costs_nothing() -> None:
    """It is no model call, fits an empty budget, and streams what was said."""
    model = Cached(ScriptedModel(["a b"]))
    first = await ask(model)
    events: list[Any] = []
    again = await ask(model, observers=[events.append], budget=Budget(tokens=0, model_calls=0))
    assert again.output == replace(first.output, usage=Usage(), first_chunk=None)
    assert again.usage == Usage(steps=1)
    assert [e.model for e in events if isinstance(e, ev.CacheHit)] == ["test/scripted"]
    assert [e.text for e in events if isinstance(e, ev.TextDelta)] == ["a b"]
    assert model.statistics() == {"hits": 1, "misses": 1}


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, settings=replace(REQUEST.settings, seed=1)),
        replace(REQUEST, settings=replace(REQUEST.settings, temperature=0.0)),
        replace(REQUEST, messages=(UserMessage("one two\ud800"),)),
        replace(REQUEST, prompt="one two"),
        replace(REQUEST, output_schema={}),
    ],
)
async def test_whatever_is_asked_tells_requests_apart(other: ModelRequest) -> None:
    """Settings too."""
    model = Cached(ScriptedModel(["a", "b"]))
    assert [(await ask(model, r)).output.message.text for r in (REQUEST, other, REQUEST, other)] == ["a", "b"] * 2


async def test_errors_are_not_kept() -> None:
    """The next request asks again."""
    model = Cached(ScriptedModel([ModelUnavailable("down"), "a"]))
    with pytest.raises(StepFailed):
        await ask(model)
    assert (await ask(model)).output.message.text == "a"


async def test_an_answer_cut_by_the_budget_is_not_kept() -> None:
    """Whoever has more to spend gets all of it."""
    model = Cached(FunctionModel(lambda request: "word " * 9))
    assert (await ask(model, budget=Budget(tokens=8))).output.finish_reason == "length"
    assert (await ask(model)).output.finish_reason == "stop"


async def test_equal_requests_at_once_are_one_call() -> None:
    """The others wait for its answer; whatever is cancelled or fails leaves them to ask."""
    inner = FunctionModel(lambda request: "a")
    model = Cached(inner)

    async def several(n: int, ctx: Context) -> None:
        await ctx.map(Chat(model), [REQUEST] * n)

    assert (await run(several, 5)).usage.model_calls == 1
    assert (len(inner.requests), model._busy) == (1, {})


async def test_the_answer_unused_for_longest_goes_first() -> None:
    """Where there is no more room."""
    inner = FunctionModel(lambda request: "a")
    model = Cached(inner, size=2)
    for seed in (1, 2, 1, 3, 1, 2):
        await ask(model, replace(REQUEST, settings=replace(REQUEST.settings, seed=seed)))
    assert [r.settings.seed for r in inner.requests] == [1, 2, 3, 2]
    with pytest.raises(DefinitionError):
        Cached(inner, size=0)


async def test_a_file_keeps_answers_for_other_processes(tmp_path: Path) -> None:
    """Calls of tools and all."""
    path = tmp_path / "answers.db"
    first = await ask(Cached(ScriptedModel([call("search", query="x")]), path=path))
    again = await ask(Cached(ScriptedModel([]), path=path))
    assert again.output == replace(first.output, usage=Usage(), first_chunk=None)
