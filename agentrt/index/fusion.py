"""Fusion: several rankings made into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

RANK_CONSTANT: Final = 60
"""How little the first ranks differ: the value of the paper that introduced it, and as good as any on Cranfield."""


def fused(rankings: Iterable[tuple[Sequence[int], float]], k: int) -> list[tuple[int, float]]:
    """Return the k best of several rankings, each with its weight, by reciprocal rank: Σ weight / (60 + rank)."""
    scores: dict[int, float] = {}
    for ranking, weight in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + weight / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def best(
    rankings: Sequence[Sequence[tuple[int, float]]], weights: Sequence[float], k: int
) -> Sequence[tuple[int, float]]:
    """Return the k best of one ranking, with their own scores, or of several, fused."""
    if len(rankings) == 1:
        return rankings[0][:k]
    return fused([([i for i, _ in ranking], w) for ranking, w in zip(rankings, weights, strict=True)], k)
