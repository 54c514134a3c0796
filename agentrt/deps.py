"""Deps: what a run's code hands to its nodes, and the check that they are what the nodes say they need."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any

from agentrt.errors import DefinitionError
from agentrt.parts import walk

if TYPE_CHECKING:
    from agentrt.node import Node


def needed_deps(annotation: Any) -> type[Any] | None:
    """Return the class that `Context[X]` names; None where any deps will do, or only a type checker can tell."""
    named: Any = next(iter(typing.get_args(annotation)), None)
    if not inspect.isclass(named) or named is Any or typing.is_typeddict(named):
        return None
    if getattr(named, "_is_protocol", False) and not getattr(named, "_is_runtime_protocol", False):
        return None
    return named


def check_deps(name: str, needs: type[Any] | None, deps: object) -> None:
    """Raise `DefinitionError` unless the run's deps are what a node needs."""
    if needs is not None and not isinstance(deps, needs):
        raise DefinitionError(_mistake(name, needs, deps))


def check_all_deps(node: Node[Any, Any], deps: object) -> None:
    """Check the deps of a node and of every node it is made of; raises one `DefinitionError` with all mistakes."""
    nodes = (n for n, _ in walk(node, lambda n: n.notable_parts))
    wrong = [_mistake(n.name, n.needs, deps) for n in nodes if n.needs and not isinstance(deps, n.needs)]
    if wrong:
        raise DefinitionError("\n".join(wrong))


def _mistake(name: str, needs: type[Any], deps: object) -> str:
    given = "none were given" if deps is None else f"the run has those of {type(deps).__name__}"
    return f"{name!r} needs deps of {needs.__name__}, and {given}: pass run(…, deps={needs.__name__}(…))"
