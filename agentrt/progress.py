"""Progress: what the steps below a running step have done, for the day its budget is exhausted.

A finished step stands for all it called, so its own progress goes when it ends; an unfinished one hands its progress
to the step around it. What reaches the root is both a `Partial` to show and a `Past` to continue from.

A step that a budget refused is unfinished as far as its denial travels. Where somebody goes on from the denial (code
that catches it, a join that drops it, an agent whose tool it was) it is that step's outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from agentrt.errors import BudgetExceeded
from agentrt.ledger import Limit
from agentrt.partial import Partial
from agentrt.plan import Activation, Failure

MISSING: Final = object()


class Progress:
    """Hold the outcomes below one step in the order they came, and what has none."""

    __slots__ = ("branches", "denied", "limits", "memories", "not_started", "outcomes", "started", "unfinished")

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Any]] = []
        self.unfinished: list[str] = []
        self.not_started: list[str] = []
        self.started: list[str] = []
        self.limits: dict[str, tuple[Limit, ...]] = {}
        self.denied: dict[str, Denied] = {}
        self.branches: dict[str, Limit] = {}
        """The limits of branches, by the path each begins at."""
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
            self._add(below)

    def settle(self, raised: Collection[BaseException]) -> None:
        """Take for unfinished what was denied and passed on, as one of the errors that the step around has raised.

        So are steps of whose denial nobody was told yet. The step went on from every other.
        """
        passed = {path: one.rest for path, one in self.denied.items() if one.told is None or one.told in raised}
        if not passed:
            return
        self.outcomes = [(path, outcome) for path, outcome in self.outcomes if path not in passed]
        for path, rest in passed.items():
            del self.denied[path]
            self.unfinished += rest.unfinished
            self._add(rest)

    def _add(self, below: Progress) -> None:
        self.outcomes += below.outcomes
        self.not_started += below.not_started
        self.started += below.started
        self.limits |= below.limits
        self.denied |= below.denied
        self.branches |= below.branches
        self.memories |= below.memories

    def limit_of(self, account: object) -> Limit | None:
        """Return the limit whose account this is, if it is one of an unfinished step or of a branch."""
        known = (*self.branches.values(), *(limit for own in self.limits.values() for limit in own))
        return next((limit for limit in known if limit.account is account), None)

    def partial(self, denial: BudgetExceeded) -> Partial:
        return Partial(
            finished={path: outcome for path, outcome in self.outcomes if not isinstance(outcome, Failure)},
            cancelled=tuple(self.unfinished),
            not_started=tuple(self.not_started),
            scope=denial.scope,
            dimension=denial.dimension,
        )


@dataclass(slots=True)
class Denied:
    """Hold what is left of a step that a budget refused, should its denial be passed on.

    `told` is the error that the step around was given for it, None until then.
    """

    rest: Progress
    told: Exception | None = None


class Past:
    """Hold what an earlier part of a run has done: finished steps are not run again, nor paid for (rule E5).

    A plan takes the outcomes in the order they came, before anything new starts, and is then where it was.
    """

    def __init__(self, progress: Progress) -> None:
        self.started = set(progress.started)
        self._outcomes = {path: (i, outcome) for i, (path, outcome) in enumerate(progress.outcomes)}
        self._limits = dict(progress.limits)
        self._denied = progress.denied
        self.branches = progress.branches
        self.memories = progress.memories

    def outcome(self, path: str) -> Any:
        """Return what a step's outcome was, or `MISSING`."""
        return self._outcomes.get(path, (0, MISSING))[1]

    def denied(self, path: str) -> Denied | None:
        """Return what is left of a step whose outcome is a denial, None for every other."""
        known = self._denied.get(path)
        return None if known is None else Denied(known.rest)

    def limits(self, path: str, *, keep: bool = False) -> tuple[Limit, ...]:
        """Return the limits, with their accounts, under which an unfinished step ran; each serves once, unless kept."""
        return self._limits.get(path, ()) if keep else self._limits.pop(path, ())

    def earliest(self, ready: Iterable[Activation]) -> Activation | None:
        """Return the activation whose outcome came first, or None if none of them has one."""
        known = [(self._outcomes[a.path][0], a) for a in ready if a.path in self._outcomes]
        return min(known, key=lambda pair: pair[0], default=(0, None))[1]
