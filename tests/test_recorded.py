"""The fold of a record: what it tells of a run's spending is what the ledger knew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentrt import Agent, ModelUnavailable, Node, Retried, Retry
from agentrt import events as ev
from agentrt.recorded import Recorded
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
