"""The fold of a record: what it tells of a run's spending is what the ledger knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import Agent, ModelUnavailable, Node, Retried, Retry, Usage
from agentrt import events as ev
from agentrt.recorded import Before, Recorded
from agentrt.stores.memory import MemoryJournal
from tests.cases import cases
from tests.test_whole_runs import Driven, World

AGAIN = Retry(attempts=3, backoff=1.0, on=(ValueError, ModelUnavailable))


class RecordedWorld(World):
    """Keep a record of a run in which models and steps are tried again, and some scopes wrap up or stop early."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.run.journal = MemoryJournal()
        if self.run.budget is not None and self.random.random() < 0.5:
            self.run.budget = replace(self.run.budget, on_exhausted="partial")

    def _node(self, depth: int) -> Node[Any, Any]:
        node = super()._node(depth)
        if isinstance(node, Agent):
            node.model = Retried(self.model, AGAIN) if self.random.random() < 0.5 else self.model
            if node.budget is not None and self.random.random() < 0.5:
                node.budget = replace(node.budget, on_exhausted="wrap_up", hold_back=0.3)
        if self.random.random() < 0.5:
            node.retry = AGAIN
        return node


STARTED = ev.RunStarted(run_id="r", at=1.0, name="n", input=1, limits={})
PARKED = ev.RunParked(run_id="r", at=3.0, usage=Usage())
RESUMED = ev.RunResumed(run_id="r", at=4.0, name="n", limits={})  # as older versions wrote it
TRACED = ev.Traced(run_id="r", at=1.0, carrier={"traceparent": "1"})
FORKED = ev.RunForked(run_id="f", at=1.0, parent="r", path="n/b")
BILL = ev.UsageRecorded(path="n/a", at=2.0, usage=Usage(input_tokens=3))


@pytest.mark.parametrize(
    ("events", "before"),
    [
        ([STARTED], Before(parts=1)),
        ([STARTED, TRACED, BILL, PARKED], Before(parts=1, usage=BILL.usage, trace=TRACED.carrier)),
        ([STARTED, TRACED, PARKED, RESUMED, PARKED], Before(parts=2, trace=TRACED.carrier)),
        ([STARTED, TRACED, BILL, FORKED], Before(kind="fork", trace=TRACED.carrier)),
        ([STARTED, TRACED, BILL, FORKED, RESUMED, BILL], Before(parts=1, usage=BILL.usage, trace=TRACED.carrier)),
    ],
)
def test_what_came_before_is_counted(events: Sequence[ev.Event], before: Before) -> None:
    """From the events that open parts, whatever older versions said in them; a fork has its parent's trace alone."""
    assert Recorded(events).before == before


def test_answers_are_told_until_their_step_has_ended() -> None:
    """Without what they say, and after how long, which older answers do not tell."""
    asked = ev.QuestionAsked(path="n/ask", at=2.0, kind="ask", prompt="?", schema={}, about={})
    answered = ev.QuestionAnswered(path="n/ask", at=9.0, verdict="answer", by="ann", value=1, because="so", diff="-")
    begun = ev.StepStarted(path="n/ask", at=5.0, name="ask", kind="question", input="?")
    events = [STARTED, begun, asked, ev.StepParked(path="n/ask", at=3.0), PARKED]
    assert Recorded(events).before.answers == ()
    told = (ev.QuestionAnswered("n/ask", 9.0, "answer", "ann", waited=7.0),)
    assert Recorded([*events, answered]).before.answers == told
    assert Recorded([*events, answered, RESUMED, begun]).before.answers == told
    ended = ev.StepFinished(path="n/ask", at=9.5, output=1)
    assert Recorded([*events, answered, RESUMED, begun, ended]).before.answers == ()


@cases(30)
@given(seed=st.integers(0, 2**32), at=st.one_of(st.just(0), st.integers(3, 400)), native=st.booleans())
def test_what_a_record_says_was_spent_is_what_was_spent(seed: int, at: int, native: bool) -> None:
    """Of the whole run and of every scope with a budget, whatever failed, was tried again, exhausted or cancelled."""
    world = RecordedWorld(seed)
    Driven(world, at, native)
    if world.is_refused or not world.events:
        return
    recorded = Recorded(ev.decode(ev.encode(e)) for e in world.events)
    told, usage = recorded.total, world.ledger.usage()
    assert told == usage
    assert recorded.reserved == {}
    last = {a.scope: a for a in world.ledger.opened[1:] if a.scope in recorded.steps}  # each attempt has its own
    for scope, account in (*last.items(), ("", world.ledger.root)):
        assert list(recorded.spent(scope)) == account.spent, scope
