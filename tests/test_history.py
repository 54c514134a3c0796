"""Histories: whatever is cut, no result stands without its call and no call without its result."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import DefinitionError, keep_last, without_tools
from agentrt.history import LEFT_OUT, added, answered, begun, mended
from agentrt.messages import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Draw a conversation in which every call has its result; ids come again in later turns."""
    messages: list[Message] = [UserMessage("start")]
    for turn in range(draw(st.integers(0, 6))):
        calls = tuple(ToolCall(str(i), "t", "{}") for i in range(draw(st.integers(0, 3))))
        messages.append(
            AssistantMessage(draw(st.sampled_from(["", f"said {turn}"])) if calls else f"said {turn}", calls)
        )
        messages += [ToolMessage(c.id, "t", f"result {turn}") for c in calls]
        if draw(st.booleans()):
            messages.append(UserMessage(f"asked {turn}"))
    return messages


def check_pairs(messages: Sequence[Message]) -> None:
    """Check that the results that follow a turn are those of its calls, and that none stands elsewhere."""
    expected: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert expected, f"{message} has no call"
            assert message.call_id == expected.pop(0)
            continue
        assert not expected, f"calls {expected} have no result"
        if isinstance(message, AssistantMessage):
            assert message.text or message.tool_calls
            expected = [c.id for c in message.tool_calls]
    assert not expected


@given(conversations(), st.integers(0, 12))
def test_the_last_messages_are_whole(messages: list[Message], n: int) -> None:
    """At most n of them, and the last ones."""
    kept = keep_last(n)(messages)
    check_pairs(kept)
    assert len(kept) <= n
    assert [m for m in messages[max(0, len(messages) - n) :] if isinstance(m, UserMessage)] == [
        m for m in kept if isinstance(m, UserMessage)
    ]


@given(conversations(), st.data())
def test_any_cut_is_mended(messages: list[Message], data: st.DataObject) -> None:
    """Whatever a filter leaves out; what was whole stays as it is."""
    kept = [m for m in messages if data.draw(st.booleans())]
    check_pairs(mended(kept))
    assert mended(messages) == messages


@given(conversations())
def test_tools_can_be_left_out(messages: list[Message]) -> None:
    """All that was said stays."""
    kept = without_tools(messages)
    check_pairs(kept)
    assert [m.text for m in kept] == [m.text for m in messages if m.text and not isinstance(m, ToolMessage)]


@given(conversations(), st.integers(0, 4))
def test_open_calls_are_answered(messages: list[Message], lost: int) -> None:
    """A conversation that broke off in the middle of its tools goes on."""
    while lost and isinstance(messages[-1], ToolMessage):
        messages.pop()
        lost -= 1
    whole = answered(messages, "not run")
    check_pairs(whole)
    assert whole[: len(messages)] == messages
    assert all(isinstance(m, ToolMessage) and m.failed for m in whole[len(messages) :])


@given(conversations(), st.integers(0, 12))
def test_what_comes_back_is_added_once(own: list[Message], n: int) -> None:
    """The part that went over, filtered, is known; the rest is new."""
    news: list[Message] = [UserMessage("handed over"), AssistantMessage("new")]
    handed = begun(keep_last(n)(own))
    assert isinstance([*handed, *news][0], UserMessage)
    assert added(own, [*handed, *news]) == news
    assert added(own, own) == ()


def test_a_cut_conversation_says_so_to_whom_it_is_new() -> None:
    """It begins with the user."""
    cut = begun([AssistantMessage("said")])
    assert cut == [LEFT_OUT, AssistantMessage("said")]
    assert added([], cut) == cut
    assert begun([]) == []


def test_a_negative_number_keeps_nothing_and_says_so() -> None:
    """Where it is written."""
    with pytest.raises(DefinitionError, match="keep_last"):
        keep_last(-1)


def test_in_an_empty_conversation_nothing_is_left_unanswered() -> None:
    """Results alone have no turn either."""
    alone = ToolMessage("1", "t", "result")
    assert answered([], "late") == []
    assert answered([alone], "late") == [alone]
