"""What was typed after `agentrt run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentrt.budget import Budget
from agentrt.cli.exits import UsageError
from agentrt.cli.inputs import read_input
from agentrt.cli.source import Source, load
from agentrt.deps import check_all_deps
from agentrt.errors import DefinitionError, JournalError
from agentrt.graph import Graph
from agentrt.journal import Journal
from agentrt.options import Options
from agentrt.permission import policy_named
from agentrt.scheduler import DEFAULT_CONCURRENCY
from agentrt.stores import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Hold what was typed after `agentrt run`."""

    target: str
    arguments: list[str] = field(default_factory=list)
    model: str | None = None
    budget: str | None = None
    allow: str | None = None
    policy: str | None = None
    store: str | None = None
    record: bool = True
    json: bool = False
    quiet: bool = False
    debug: bool = False
    concurrency: int = DEFAULT_CONCURRENCY
    dry_run: bool = False
    widths: str | None = None

    def read(self) -> tuple[Source, Any, Budget | None]:
        """Return what is to be run, on what, within which budget; raises `GraphError`, `UsageError` and the like."""
        source = load(self.target)
        check(source)
        value = read_input(source.node, self.arguments, self.target)
        return source, value, self.limits()

    def limits(self) -> Budget | None:
        """Return the budget that was typed; raises `DefinitionError` for what is none."""
        return Budget.parse(self.budget) if self.budget is not None else None

    def options(self, budget: Budget | None) -> Options:
        """Return how to run, with the store opened.

        Raises `DefinitionError` for no policy, and `UsageError` for a store that cannot be opened.
        """
        how: Options = {"budget": budget, "model": self.model, "concurrency": self.concurrency}
        if self.allow is not None:
            how["allow"] = [name.strip() for name in self.allow.split(",") if name.strip()]
        if self.policy is not None:
            how["policy"] = policy_named(self.policy)
        how["journal"] = self._journal()  # last, since whoever is given it closes it
        return how

    def _journal(self) -> Journal | None:
        try:
            return open_store(self.store) if self.record else None
        except JournalError as error:
            raise UsageError(f"{error} (--no-store records nothing)") from error


def check(source: Source) -> None:
    """Raise `GraphError` for a graph that is wrong, and `UsageError` for a node that only a program can give deps."""
    if isinstance(source.node, Graph):
        source.node.validate()
    try:
        check_all_deps(source.node, None)
    except DefinitionError as error:
        raise UsageError(f"{error}\nThe shell has no deps to give: run it from Python") from error
