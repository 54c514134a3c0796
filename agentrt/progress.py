"""Progress: what the steps below a running step have done, for the day its budget is exhausted.

A finished step stands for all it called, so its own progress goes when it ends; an unfinished one hands its progress
to the step around it. What reaches the root is both a `Partial` to show and a `Past` to continue from.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any, Final

from agentrt.errors import BudgetExceeded
from agentrt.ledger import Account, Limit
from agentrt.partial import Partial
from agentrt.plan import Activation, Failure

MISSING: Final = object()


class Progress:
    """Hold the outcomes below one step in the order they came, and what has none."""

    __slots__ = ("accounts", "limits", "memories", "not_started", "outcomes", "started", "unfinished")

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Any]] = []
        self.unfinished: list[str] = []
        self.not_started: list[str] = []
        self.started: list[str] = []
        self.limits: dict[str, tuple[Limit, ...]] = {}
        self.accounts: dict[str, Account] = {}
        """Those of branches, by the path each begins at."""
        self.memories: dict[tuple[str, str], dict[Any, Any]] = {}
        """What branches keep for their nodes, by the path of the graph and the branch's label."""

    def copy(self) -> Progress:
        """Return a progress to go back to, whatever is added to this one."""
        other = Progress()
        for name in self.__slots__:
            setattr(other, name, copy(getattr(self, name)))
        return other

    def merge(self, path: str, below: Progress | None, limits: tuple[Limit, ...], *, counted: bool) -> None:
        """Take over the progress of a step right below that ended without an outcome."""
        self.unfinished.append(path)
        if counted:
            self.started.append(path)
        if limits:
            self.limits[path] = limits
        if below is not None:
            self.outcomes += below.outcomes
            self.not_started += below.not_started
            self.started += below.started
            self.limits |= below.limits
            self.accounts |= below.accounts
            self.memories |= below.memories

    def partial(self, denial: BudgetExceeded) -> Partial:
        return Partial(
            finished={path: outcome for path, outcome in self.outcomes if not isinstance(outcome, Failure)},
            cancelled=tuple(self.unfinished),
            not_started=tuple(self.not_started),
            scope=denial.scope,
            dimension=denial.dimension,
        )


class Past:
    """Hold what an earlier part of a run has done: finished steps are not run again, nor paid for (rule E5).

    A plan takes the outcomes in the order they came, before anything new starts, and is then where it was.
    """

    def __init__(self, progress: Progress) -> None:
        self.started = set(progress.started)
        self._outcomes = {path: (i, outcome) for i, (path, outcome) in enumerate(progress.outcomes)}
        self._limits = dict(progress.limits)
        self.accounts = progress.accounts
        self.memories = progress.memories

    def outcome(self, path: str) -> Any:
        """Return what a step's outcome was, or `MISSING`."""
        return self._outcomes.get(path, (0, MISSING))[1]

    def limits(self, path: str, *, keep: bool = False) -> tuple[Limit, ...]:
        """Return the limits, with their accounts, under which an unfinished step ran; each serves once, unless kept."""
        return self._limits.get(path, ()) if keep else self._limits.pop(path, ())

    def earliest(self, ready: Iterable[Activation]) -> Activation | None:
        """Return the activation whose outcome came first, or None if none of them has one."""
        known = [(self._outcomes[a.path][0], a) for a in ready if a.path in self._outcomes]
        return min(known, key=lambda pair: pair[0], default=(0, None))[1]
