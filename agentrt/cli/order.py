"""What was typed after `agentrt run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentrt.budget import Budget
from agentrt.cli.exits import UsageError
from agentrt.cli.inputs import read_input
from agentrt.cli.source import Source, load
from agentrt.deps import check_all_deps
from agentrt.errors import DefinitionError
from agentrt.graph import Graph
from agentrt.options import Options
from agentrt.permission import policy_named
from agentrt.scheduler import DEFAULT_CONCURRENCY


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
        if isinstance(source.node, Graph):
            source.node.validate()
        refuse_deps(source)
        value = read_input(source.node, self.arguments, self.target)
        return source, value, Budget.parse(self.budget) if self.budget is not None else None


def permit(how: Options, order: Order) -> None:
    """Add the permissions that were typed; raises `DefinitionError` for no policy."""
    if order.allow is not None:
        how["allow"] = [name.strip() for name in order.allow.split(",") if name.strip()]
    if order.policy is not None:
        how["policy"] = policy_named(order.policy)


def refuse_deps(source: Source) -> None:
    """Raise `UsageError` for a node that needs what only a program can give it."""
    try:
        check_all_deps(source.node, None)
    except DefinitionError as error:
        raise UsageError(f"{error}\nThe shell has no deps to give: run it from Python") from error
