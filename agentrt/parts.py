"""Parts: what a node is made of, all the way down, for the checks before a run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from agentrt.node import Node

T = TypeVar("T", bound=Hashable)


def walk(root: T, parts: Callable[[T], Iterable[T]]) -> Iterator[tuple[T, Mapping[T, object]]]:
    """Yield `root` and everything below it, each once and before its own parts, with what lies around it, itself last.

    What lies around changes as the walk goes on. It is a list of what is still to be seen, not a recursion: nodes nest
    without bound.
    """
    around = {root: iter(parts(root))}
    seen = {root}
    yield root, around
    while around:
        ahead = next(reversed(around.values()))
        for part in ahead:
            if part not in seen:
                seen.add(part)
                around[part] = iter(parts(part))
                yield part, around
                break
        else:
            around.popitem()


def nodes_below(nodes: Iterable[Node[Any, Any]]) -> set[Node[Any, Any]]:
    """Return the nodes and all that they are made of: graphs' nodes and agents' tools."""
    return {part for node in nodes for part, _ in walk(node, lambda n: n.parts)}
