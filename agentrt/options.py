"""The options of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

from agentrt.budget import Budget
from agentrt.events import Event
from agentrt.journal import Journal
from agentrt.model import Model
from agentrt.permission import Policy

Observer: TypeAlias = Callable[[Event], None]


class ReplayOptions(TypedDict, total=False):
    """Say how to go through a run again.

    observers: get every event, in order; one that fails is logged and dropped.
    concurrency: how many steps may work at once; steps that wait for steps below them do not count.
    deps: what nodes, tools, instructions and guardrails read as `ctx.deps`; it is kept in no record.
    """

    observers: Sequence[Observer]
    concurrency: int
    deps: object


class ResumeOptions(ReplayOptions, total=False):
    """Say how to go on with a run, besides what `ReplayOptions` say.

    model: takes the place of every model the graph names.
    target: where the node is found, `FILE:NAME`, for the shell to go on with the run.
    policy: decides on each call of a tool, besides the tool's own `approval`: a function of a `ProposedCall`.
    """

    model: Model | str | None
    policy: Policy | None
    target: str | None


class Options(ResumeOptions, total=False):
    """Say how to run, besides what `ReplayOptions` and `ResumeOptions` say.

    budget: caps the whole run.
    journal: keeps the run's events.
    run_id: names the run; without it a new id is made.
    allow: the names of the tools and retrievers it may use; it is offered no others, and a call of one is denied.
        `files` allows `files.read` and all its family. Without it all may be used that agents are given. A name that
        no tool has is a `DefinitionError`, or, where code may call what nobody knows before, a warning.
    """

    allow: Sequence[str] | None

    budget: Budget | None
    journal: Journal | None
    run_id: str | None
