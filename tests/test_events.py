"""Events: what is written is read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentrt import ModelRequest, Usage
from agentrt import events as ev
from agentrt.messages import AssistantMessage, UserMessage, new_messages

ERROR = ev.ErrorInfo("ValueError", "x")
CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
ANSWER = ev.QuestionAnswered(path="p", at=1.5, verdict="deny", by="me", because="no", diff="-a", keep=True, waited=9.5)
EVENTS = [
    ev.RunStarted(run_id="r", at=1.5, name="n", input={"a": [1]}, limits={"tokens": 3.0}),
    ev.RunResumed(run_id="r", at=1.5, name="n", limits={"tokens": 3.0}),
    ev.RunResumed("r", 1.5, "n", {}, kind="fork", attempt=3, usage=Usage(cost=1), trace=CARRIER, answers=(ANSWER,)),
    ev.Traced(run_id="r", at=1.5, carrier=CARRIER),
    ev.RunForked(run_id="r", at=1.5, parent="q", path="p", replaced=True, input=[1]),
    ev.RunParked(run_id="r", at=1.5, usage=Usage(steps=1)),
    ev.RunFinished(run_id="r", at=1.5, output=None, usage=Usage(input_tokens=2, cost=10**15), stop_reason="done"),
    ev.RunFailed(run_id="r", at=1.5, path="a/b", error=ERROR, usage=Usage(), stop_reason="failed"),
    ev.RunCancelled(run_id="r", at=1.5, usage=Usage(steps=1)),
    ev.StepStarted(path="p", at=1.5, name="n", kind="node", input="x", after=("a", "b"), join=(1, 2), waited=0.5),
    ev.StepRetried(path="p", at=1.5, attempt=1, error=ERROR, delay=0.5, model="a/b"),
    ev.AttemptStarted(path="p", at=1.5, counts=("steps",)),
    ev.Counted(path="p", at=1.5, counts=("steps", "tool_calls")),
    ev.StepFinished(path="p", at=1.5, output=[1, "a", None, 1.5, True]),
    ev.StepFailed(path="p", at=1.5, error=ERROR, of=("p/a",)),
    ev.StepCancelled(path="p", at=1.5),
    ev.StepParked(path="p", at=1.5),
    ev.CallGivenUp(path="p", at=1.5),
    ev.RunMismatched(run_id="r", at=1.5, error=ERROR),
    ev.StepAbandoned(path="p", at=1.5),
    ev.EffectBegun(path="p", at=1.5),
    ev.Remembered(path="p", at=1.5),
    ev.Drawn(path="p", at=1.5, name="now", value=1.5),
    ev.QuestionAsked(path="p", at=1.5, kind="ask", prompt="?", schema={"type": "string"}, about={}, until=2.5),
    ANSWER,
    ev.BranchDied(path="p", at=1.5, error=None),
    ev.BranchDied(path="p", at=1.5, error=ERROR),
    ev.BudgetClamped(path="p", at=1.5, wanted=3, granted=2),
    ev.BudgetWaited(path="p", at=1.5, seconds=0.1),
    ev.BudgetDenied(path="p", at=1.5, scope="s", dimension="usd"),
    ev.CallRefused(path="p", at=1.5, tool="t", because="not allowed"),
    ev.BudgetOverrun(path="p", at=1.5, reserved=1, billed=2),
    ev.BudgetExhausted(path="p", at=1.5, dimension="tokens", policy="partial"),
    ev.RateLimitWaited(path="p", at=1.5, seconds=2.0),
    ev.CacheHit(path="p", at=1.5, model="a/b"),
    ev.UsageReserved(path="p", at=1.5, usage=Usage(output_tokens=5)),
    ev.UsageRecorded(path="p", at=1.5, usage=Usage(output_tokens=5, uncertain=5)),
    ev.TextDelta(path="p", at=1.5, text="é"),
    ev.EventsDropped(at=1.5, count=7),
    ev.Emitted(path="p", at=1.5, value={"half": True}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_event_comes_back(event: Any) -> None:
    """encode, then decode."""
    assert ev.decode(ev.encode(event)) == event


def test_older_records_are_read() -> None:
    """What they do not say is said to be unknown."""
    resumed = ev.decode('{"event": "RunResumed", "run_id": "r", "at": 1.5, "name": "n", "limits": {}}')
    assert resumed == ev.RunResumed("r", 1.5, "n", {}, attempt=0, usage=Usage(), trace={}, answers=())
    answered = ev.decode('{"event": "QuestionAnswered", "path": "p", "at": 1.5, "verdict": "deny", "by": "me"}')
    assert answered == ev.QuestionAnswered("p", 1.5, "deny", "me", waited=0.0)


def test_every_type_of_event_is_tried() -> None:
    """The list above is complete."""
    assert {type(e) for e in EVENTS} == set(ev.Event.__args__)


def test_events_are_frozen() -> None:
    """Values, not state."""
    with pytest.raises(AttributeError):
        EVENTS[-1].path = "q"  # type: ignore[misc, union-attr]


class Row(BaseModel):
    n: int


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("no")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Row(n=1), {"n": 1}),
        ({1: 2, (3, 4): 5}, {"1": 2, "3,4": 5}),
        ({1}, [1]),
        (10**40, 10**40),
        (float("inf"), float("inf")),
        (b"text", "text"),
        (b"\xff", "b'\\xff'"),
        ("\ud800", "?"),
        (ValueError("x"), "ValueError('x')"),
        (Unspeakable(), "<Unspeakable>"),
        (Row, f"<class '{__name__}.Row'>"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_any_value_can_be_recorded(value: Any, kept: Any) -> None:
    """As JSON if it is, else as text: a run is never hurt by what it passes around."""
    event = ev.decode(ev.encode(ev.StepFinished(path="p", at=1.0, output=value)))
    assert isinstance(event, ev.StepFinished)
    assert event.output == kept


@pytest.mark.parametrize("value", [LOOP, {"a": {"b": LOOP}}], ids=["loop", "deep"])
def test_values_that_contain_themselves_can_be_recorded(value: Any) -> None:
    """Somehow."""
    assert ev.decode(ev.encode(ev.Emitted(path="p", at=1.0, value=value))).at == 1.0


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=9), s, max_size=4),
        max_leaves=20,
    )
)
def test_json_comes_back_as_it_was(value: Any) -> None:
    """Any JSON value, as input, output or emitted."""
    for event in (
        ev.StepFinished(path="p", at=1.0, output=value),
        ev.Emitted(path="p", at=1.0, value=value),
        ev.RunStarted(run_id="r", at=1.0, name="n", input=value, limits={}),
    ):
        assert ev.decode(ev.encode(event)) == event


def test_recording_uses_nothing_up() -> None:
    """An iterator that is passed on is still whole."""
    value = iter([1, 2])
    ev.encode(ev.StepFinished(path="p", at=1.0, output=value))
    assert list(value) == [1, 2]


def test_an_error_s_message_is_always_text() -> None:
    """Whatever its `__str__` does."""

    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert ev.ErrorInfo.of(Rude()) == ev.ErrorInfo("Rude", "<Rude>", __name__)
    assert ev.ErrorInfo.of(ValueError("\ud800")).message == "?"


def test_a_request_is_recorded_by_what_is_new() -> None:
    """Else the record of a long conversation would be quadratic."""
    messages = (UserMessage("old"), AssistantMessage("said"), UserMessage("new"))
    started = ev.StepStarted(path="p", at=1.0, name="chat", kind="chat", input=ModelRequest(messages=messages))
    event = ev.decode(ev.encode(started))
    assert isinstance(event, ev.StepStarted)
    assert event.input == {"messages": [{"text": "new", "role": "user", "untrusted": False}]}
    assert new_messages(messages) == messages[2:]
    assert new_messages(messages[:1]) == messages[:1]
