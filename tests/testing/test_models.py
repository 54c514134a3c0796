"""The models for tests are strict, predictable and keep a bill."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentrt import Model, ModelRequest, ModelResponse, ModelSettings, ModelUnavailable, Price, RateLimited, Usage
from agentrt.messages import AssistantMessage, SystemMessage, ToolCall, ToolSpec, UserMessage
from agentrt.testing import FunctionModel, ScriptedModel, ScriptMismatch, call, count, text

pytestmark = pytest.mark.anyio


def ask(words: str = "how are you", **settings: Any) -> ModelRequest:
    return ModelRequest(messages=(UserMessage(words),), settings=ModelSettings(**settings))


async def generate(model: Model, request: ModelRequest | None = None) -> tuple[ModelResponse, list[str]]:
    pieces: list[str] = []
    return await model.generate(request or ask(), pieces.append), pieces


def test_both_are_models() -> None:
    """As the protocol has it."""
    assert isinstance(ScriptedModel([]), Model)
    assert isinstance(FunctionModel(lambda request: "x"), Model)


async def test_a_script_is_followed_in_order() -> None:
    """Text, messages, calls, responses, exceptions."""
    response = ModelResponse(message=text("own"), usage=Usage(input_tokens=100, output_tokens=100))
    with ScriptedModel(["a", text("b"), call("f", x=1), [call("f"), call("g")], response, ValueError("x")]) as model:
        assert (await generate(model))[0].message == AssistantMessage("a")
        assert (await generate(model))[0].finish_reason == "stop"
        third = (await generate(model))[0]
        assert third.message.tool_calls == (ToolCall("call-1", "f", '{"x": 1}'),)
        assert third.finish_reason == "tool_calls"
        assert [c.id for c in (await generate(model))[0].message.tool_calls] == ["call-2", "call-3"]
        assert (await generate(model))[0] is response
        with pytest.raises(ValueError, match="x"):
            await generate(model)
    assert len(model.requests) == 6


async def test_asking_once_too_often_is_a_mismatch() -> None:
    """With the last message, and again when the script is checked."""
    model = ScriptedModel(["a"])
    await generate(model)
    with pytest.raises(ScriptMismatch, match=r"asked once too often: the script holds 1 replies; .*how are you"):
        await generate(model)
    with pytest.raises(AssertionError, match="asked 2 times"):
        model.check()


async def test_replies_nobody_asked_for_are_a_mismatch() -> None:
    """Unless an error is on its way already."""
    with pytest.raises(ScriptMismatch, match="asked 0 times of 2; nobody asked for: 'a'; 'b'"), ScriptedModel("ab"):
        pass
    with pytest.raises(KeyError), ScriptedModel(["a"]):
        raise KeyError


async def test_tokens_are_words() -> None:
    """One more a message and a tool; `bill` adds up what was said."""
    tool = ToolSpec("f", "does it", {})
    request = ModelRequest(messages=(SystemMessage("be brief"), UserMessage("go on")), tools=(tool,))
    model = ScriptedModel(["three more words"], price=Price(2, 3))
    assert (await model.count_tokens(request), count(" a  b ")) == (3 + 3 + 5, 2)
    response, pieces = await generate(model, request)
    assert pieces == ["three", " more", " words"]
    assert response.usage == Usage(input_tokens=11, output_tokens=3)
    assert model.bill == Usage(input_tokens=11, output_tokens=3, cost=31)


@pytest.mark.parametrize(
    ("reply", "most", "kept", "calls"),
    [("one two three", 2, "one two", 0), ([call("f", x=1), call("g", x=2)], 4, "", 1), (call("f", x=1), 2, "", 0)],
)
async def test_max_tokens_cuts(reply: Any, most: int, kept: str, calls: int) -> None:
    """finish_reason is "length", and the bill is `max_tokens`."""
    response, _ = await generate(ScriptedModel([reply]), ask(max_tokens=most))
    assert (response.message.text, len(response.message.tool_calls)) == (kept, calls)
    assert (response.finish_reason, response.usage.output_tokens) == ("length", most)


@pytest.mark.parametrize(
    ("error", "billed"), [(RateLimited("slow"), 0), (ModelUnavailable("lost"), 14), (ValueError("x"), 14)]
)
async def test_a_failure_is_billed_at_its_worst_unless_it_says_it_is_not(error: Exception, billed: int) -> None:
    """Prompt and `max_tokens`: the worst a provider could charge."""
    model = ScriptedModel([error])
    with pytest.raises(type(error)):
        await generate(model, ask(max_tokens=10))
    assert model.bill.tokens == billed


async def test_a_function_may_be_async_and_may_be_cancelled() -> None:
    """A cancelled call is billed at its worst."""

    async def reply(request: ModelRequest) -> str:
        await anyio.sleep_forever()
        return "never"

    model = FunctionModel(reply)
    with anyio.move_on_after(0.01):
        await generate(model, ask(max_tokens=10))
    assert model.bill.tokens == 14
    assert repr(model) == "<FunctionModel 'test/function', asked 1 times>"


def test_a_window_bounds_the_output() -> None:
    """What the prompt leaves."""
    assert FunctionModel(lambda r: "x", window=10).max_output(ask(), 4) == 6


@pytest.mark.parametrize("reply", [3, [1, 2], {"a": 1}])
async def test_what_no_model_says_is_refused(reply: Any) -> None:
    """With what it may be."""
    with pytest.raises(TypeError, match=r"a fake model cannot say .*: let it answer with text"):
        await generate(FunctionModel(lambda request: reply))
