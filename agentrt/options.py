"""The options of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

from agentrt.budget import Budget
from agentrt.events import Event
from agentrt.journal import Journal
from agentrt.model import Model

Observer: TypeAlias = Callable[[Event], None]


class Options(TypedDict, total=False):
    """Say how to run.

    budget: caps the whole run.
    model: takes the place of every model the graph names.
    journal: keeps the run's events.
    observers: get every event, in order; one that fails is logged and dropped.
    concurrency: how many steps may work at once; steps that wait for steps below them do not count.
    run_id: names the run; without it a new id is made.
    deps: what nodes, tools, instructions and guardrails read as `ctx.deps`; it is kept in no record.
    target: where the node is found, `FILE:NAME`, for the shell to go on with the run.
    """

    budget: Budget | None
    model: Model | str | None
    journal: Journal | None
    observers: Sequence[Observer]
    concurrency: int
    run_id: str | None
    deps: object
    target: str | None
