"""Progress: what the steps below a running step have done, for the day its budget is exhausted.

A finished step stands for all it called, so its own progress goes when it ends; an unfinished one hands its progress
to the step around it. What reaches the root is both a `Partial` to show and a `Past` to continue from.

A step that a budget refused is unfinished as far as its denial travels. Where somebody goes on from the denial (code
that catches it, a join that drops it, an agent whose tool it was) it is that step's outcome.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from agentrt.errors import BudgetExceeded, ReplayMismatch
from agentrt.events import Drawn, QuestionAnswered, QuestionAsked
from agentrt.ledger import Limit
from agentrt.partial import Partial
from agentrt.plan import NOTHING, Activation, Failure

MISSING: Final = object()


class Progress:
    """Hold the outcomes below one step in the order they came, and what has none."""

    __slots__ = (
        "branches",
        "denied",
        "drawn",
        "limits",
        "memories",
        "not_started",
        "outcomes",
        "read",
        "spends",
        "started",
        "unfinished",
    )

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Any]] = []
        self.read: dict[str, frozenset[str]] = {}
        """The untrusted nodes that outcomes come from, by path."""
        self.unfinished: list[str] = []
        self.not_started: list[str] = []
        self.started: list[str] = []
        self.spends: dict[str, int] = {}
        self.drawn: dict[str, Sequence[Drawn]] = {}
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

    def merge(
        self,
        path: str,
        below: Progress | None,
        limits: tuple[Limit, ...],
        *,
        counted: bool,
        spends: int,
        drawn: Sequence[Drawn],
    ) -> None:
        """Take over the progress of a step right below that ended without an outcome."""
        self.unfinished.append(path)
        if counted:
            self.started.append(path)
        if spends:
            self.spends[path] = spends
        if drawn:
            self.drawn[path] = drawn
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
        self.read |= below.read
        self.not_started += below.not_started
        self.started += below.started
        self.spends |= below.spends
        self.drawn |= below.drawn
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


class Past(ABC):
    """Hold what an earlier part of a run has done: finished steps are not run again, nor paid for (rule E5).

    A plan takes the outcomes in the order they came, before anything new starts, and is then where it was.
    """

    @abstractmethod
    def outcome(self, activation: Activation) -> Any:
        """Return what a step's outcome was, or `MISSING`."""

    @abstractmethod
    def place(self, path: str) -> int | None:
        """Return when a step's outcome came, among those of all steps; None if it has none."""

    @abstractmethod
    def is_counted(self, path: str) -> bool:
        """Say whether the start of an unfinished step has been counted."""

    @abstractmethod
    def limits(self, path: str) -> tuple[Limit, ...]:
        """Return the limits, with their accounts, under which an unfinished step ran; each serves once."""

    @abstractmethod
    def branch(self, path: str) -> Limit | None:
        """Return the limit of the branch that begins at a path."""

    def denied(self, path: str) -> Denied | None:
        """Return what is left of a step whose outcome is a denial, None for every other."""
        return None

    def read(self, path: str) -> frozenset[str]:
        """Return the untrusted nodes that a step's outcome comes from."""
        return NOTHING

    def memory(self, path: str, label: str) -> dict[Any, Any] | None:
        """Return what a branch of the graph at a path has kept for its nodes."""
        return None

    def spent(self, path: str) -> Sequence[int]:
        """Return what an unfinished step and all below it had spent, where its accounts are opened anew."""
        return ()

    def spent_on_branch(self, path: str, label: str) -> Sequence[int]:
        """Return what a branch of the graph at a path had spent, where its account is opened anew."""
        return ()

    def restarted(self, path: str) -> Past | None:
        """Return the past of the further attempts of a step that has failed."""
        return None

    def attempts(self, path: str) -> int:
        """Return how many attempts of a step have failed."""
        return 0

    def awaits_attempt(self, path: str) -> bool:
        """Say whether an attempt of a step failed after which the next has not begun."""
        return False

    def is_given_up(self, path: str) -> bool:
        """Say whether code cancelled a step and went on: it is to do so again."""
        return False

    def seconds(self, path: str) -> float:
        """Return how long a step that was given up had run."""
        return 0.0

    def is_over(self, path: str) -> bool:
        """Say whether a step without an outcome to answer with is recorded to its end all the same."""
        return False

    def mismatch(self, path: str, output: object) -> ReplayMismatch | None:
        """Return why a step that was gone through once more should have had another output, if it should."""
        return None

    def question(self, path: str) -> tuple[QuestionAsked | None, QuestionAnswered | None]:
        """Return what an unfinished step asked people, and what they answered."""
        return None, None

    def spends(self, path: str) -> int:
        """Return how often code of an unfinished step has spent something by itself."""
        return 0

    def doubts(self, path: str) -> int:
        """Return how often an unfinished step may have had its effect."""
        return 0

    def drawn(self, path: str) -> Iterator[Drawn]:
        """Return what an unfinished step had drawn, in order."""
        return iter(())


class KeptPast(Past):
    """Hold the past of a run that its process has kept: outcomes as they were, accounts that go on."""

    def __init__(self, progress: Progress, recorded: Past | None = None) -> None:
        """`recorded` is what a journal knows besides: effects that may have happened, and what code gave up."""
        self._recorded = recorded
        self._drawn = progress.drawn
        self._started = set(progress.started)
        self._outcomes = {path: (i, outcome) for i, (path, outcome) in enumerate(progress.outcomes)}
        self._spends = progress.spends
        self._limits = dict(progress.limits)
        self._denied = progress.denied
        self._branches = progress.branches
        self._memories = progress.memories
        self._read = progress.read

    def outcome(self, activation: Activation) -> Any:
        return self._outcomes.get(activation.path, (0, MISSING))[1]

    def place(self, path: str) -> int | None:
        return self._outcomes.get(path, (None, MISSING))[0]

    def read(self, path: str) -> frozenset[str]:
        return self._read.get(path, NOTHING)

    def is_counted(self, path: str) -> bool:
        return path in self._started

    def limits(self, path: str) -> tuple[Limit, ...]:
        return self._limits.pop(path, ())

    def branch(self, path: str) -> Limit | None:
        return self._branches.get(path)

    def spends(self, path: str) -> int:
        return self._spends.get(path, 0)

    def drawn(self, path: str) -> Iterator[Drawn]:
        return iter(self._drawn.get(path, ()))

    def doubts(self, path: str) -> int:
        return 0 if self._recorded is None else self._recorded.doubts(path)

    def question(self, path: str) -> tuple[QuestionAsked | None, QuestionAnswered | None]:
        return (None, None) if self._recorded is None else self._recorded.question(path)

    def is_given_up(self, path: str) -> bool:
        return self._recorded is not None and self._recorded.is_given_up(path)

    def seconds(self, path: str) -> float:
        return 0.0 if self._recorded is None else self._recorded.seconds(path)

    def denied(self, path: str) -> Denied | None:
        known = self._denied.get(path)
        return None if known is None else Denied(known.rest)

    def memory(self, path: str, label: str) -> dict[Any, Any] | None:
        return self._memories.get((path, label))
