"""A request and its answer are a line of JSON, and come back from it as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import ContextOverflow, ModelRequest, ModelResponse, ModelSettings, Usage
from agentrt.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, ToolSpec, UserMessage
from agentrt.testing.interaction import Interaction, difference, key, plain, prompt_key

text = st.text(st.characters(codec="utf-8"), max_size=20)
small = st.integers(0, 10**6)
calls = st.lists(st.builds(ToolCall, text, text, text), max_size=2).map(tuple)
said = st.builds(AssistantMessage, text, calls)
messages = st.one_of(
    st.builds(SystemMessage, text),
    st.builds(UserMessage, text),
    st.builds(ToolMessage, text, text, text, st.booleans()),
    said,
)
requests = st.builds(
    ModelRequest,
    messages=st.lists(messages, max_size=3).map(tuple),
    prompt=st.none() | text,
    tools=st.lists(st.builds(ToolSpec, text, text, st.just({"type": "object"})), max_size=2).map(tuple),
    settings=st.builds(ModelSettings, max_tokens=st.integers(16, 9999), stop=st.lists(text, max_size=2).map(tuple)),
)
answers = st.builds(
    ModelResponse,
    message=said,
    usage=st.builds(Usage, input_tokens=small, output_tokens=small, cached_tokens=small, cost=small),
    finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
    model=text,
    id=text,
)


def ask(words: str, **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = plain(ModelRequest(messages=(UserMessage(words),), **options))
    return made


@given(request=requests, answer=answers, whole=st.booleans(), data=st.data())
def test_a_line_comes_back_as_it_was(
    request: ModelRequest, answer: ModelResponse, whole: bool, data: st.DataObject
) -> None:
    """Usage, finish reason, calls of tools and the pieces in which the text came."""
    words = answer.message.text
    cut = data.draw(st.integers(0, len(words)))
    pieces = (words[:cut], words[cut:]) if whole else tuple(data.draw(st.lists(text, max_size=3)))
    interaction = Interaction(request=plain(request), answer=answer, pieces=pieces, input_tokens=7, max_output=9)
    line = interaction.to_line()
    back = Interaction.from_line(line)
    assert "\n" not in line
    assert isinstance(back.answer, ModelResponse)
    assert (back.request, back.pieces) == (interaction.request, pieces)
    assert (back.answer.message, back.answer.usage) == (answer.message, answer.usage)
    assert (back.answer.finish_reason, back.answer.id) == (answer.finish_reason, answer.id)
    assert back.to_line() == line


@given(one=requests, other=requests)
def test_equal_requests_have_equal_keys(one: ModelRequest, other: ModelRequest) -> None:
    """And no others; the key of a prompt is the same however it is sampled."""
    assert (key(plain(one)) == key(plain(other))) == (one == other)
    assert prompt_key(ask("a")) == prompt_key(ask("a", settings=ModelSettings(max_tokens=77)))
    assert prompt_key(ask("a")) != prompt_key(ask("b"))


def test_a_line_is_for_reading() -> None:
    """What has its default is left out; text stands as it is."""
    answer = ModelResponse(message=AssistantMessage("Grüße"), usage=Usage(output_tokens=1))
    line = Interaction(request=ask("Grüß!"), answer=answer, pieces=("Grü", "ße")).to_line()
    assert line == (
        '{"request": {"messages": [{"role": "user", "text": "Grüß!"}]}, '
        '"answer": {"message": {"role": "assistant", "text": "Grüße"}, "usage": {"output_tokens": 1}}, '
        '"pieces": [3, 2]}'
    )


def test_an_error_that_would_come_again_is_an_answer() -> None:
    """With its class, its words and its model."""
    line = Interaction(request=ask("long"), answer=ContextOverflow("too long", model="m/x")).to_line()
    error = Interaction.from_line(line).answer
    assert isinstance(error, ContextOverflow)
    assert (str(error), error.model, error.billed) == ("m/x: too long", "m/x", False)


@pytest.mark.parametrize("line", ["{", "[]", '{"request": {}}', json.dumps({"answer": {}, "pieces": []})])
def test_anything_else_is_no_interaction(line: str) -> None:
    """A `ValueError`, which names no other."""
    with pytest.raises(ValueError, match=r"."):
        Interaction.from_line(line)


def test_the_difference_is_shown_against_what_is_nearest() -> None:
    """A line of the text is a line of the diff."""
    answer = ModelResponse(message=AssistantMessage("x"), usage=Usage())
    recorded = [Interaction(request=ask(words), answer=answer) for words in ("far away", "one\ntwo\nthree", "other")]
    diff = difference(ask("one\n2\nthree"), recorded).splitlines()
    assert diff[:2] == ["--- recorded", "+++ asked"]
    assert [line.replace(" ", "") for line in diff if line[0] in "+-"][2:] == ["-two", "+2"]
    assert any(line.startswith("+") for line in difference(ask("x"), []).splitlines())


def test_a_long_difference_is_cut() -> None:
    """And says how much more there is."""
    diff = difference(ask("\n".join(map(str, range(500)))), [])
    assert len(diff.splitlines()) == 61
    assert diff.endswith("lines more")
