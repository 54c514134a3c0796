"""Self-consistency: several draws, one vote (Wang et al. 2022, arXiv 2203.11171)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentrt import END, START, DefinitionError, Graph, Join, Node

In = TypeVar("In")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Consensus(Generic[T]):
    """Hold the outcome of a vote.

    `ballots` are the answers that voted, in the order of the draws, of which there were `drawn`; `votes` of them are
    for `answer`, which is None where every draw was left out. `entropy` is of the vote, in bits: 0 where all agree.
    """

    answer: T | None
    votes: int
    ballots: tuple[T, ...]
    drawn: int
    entropy: float


def self_consistency(
    solver: Node[In, T] | Sequence[Node[In, T]],
    *,
    draws: int = 5,
    key: Callable[[T], Hashable] = str,
    keep: Callable[[T], bool] | None = None,
    name: str = "self_consistency",
    description: str = "",
) -> Graph[In, Consensus[T]]:
    """Build a graph that draws several answers side by side and votes on them.

    solver: one node drawn `draws` times, or several nodes drawn once each: different prompts err differently.
    key: what makes two answers the same; the earliest answer of the largest group wins.
    keep: leaves out answers for which it is false; a solver that fails is left out too.
    """
    solvers: Sequence[Node[In, T]] = [solver] * draws if isinstance(solver, Node) else solver
    if not solvers:
        raise DefinitionError(f"{name}: draw at least once")

    def tally(answers: list[T]) -> Consensus[T]:
        return count_votes(answers, key, len(solvers))

    join: Join[T, Consensus[T]] = Join(tally, errors="drop")
    graph: Graph[Any, Any] = Graph(name, description=description)
    if len(solvers) == 1:
        graph.edge(START, solvers, each=_once)
    else:
        graph.edge(START, solvers)
    for one in dict.fromkeys(solvers):
        graph.edge(one, END, join=join, when=keep)
    return graph


def count_votes(answers: Sequence[T], key: Callable[[T], Hashable], drawn: int) -> Consensus[T]:
    """Count the answers by key; on a tie the group that began earliest wins."""
    groups: dict[Hashable, list[T]] = {}
    for answer in answers:
        groups.setdefault(key(answer), []).append(answer)
    if not groups:
        return Consensus(None, 0, (), drawn, 0.0)
    winner = max(groups.values(), key=len)
    shares = [len(group) / len(answers) for group in groups.values()]
    entropy = max(0.0, -sum(share * math.log2(share) for share in shares))
    return Consensus(winner[0], len(winner), tuple(answers), drawn, entropy)


def _once(value: Any) -> list[Any]:
    return [value]
