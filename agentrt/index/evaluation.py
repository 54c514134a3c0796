"""Evaluation: how well rankings answer queries whose relevant documents are known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, TypeAlias

Gains: TypeAlias = Mapping[str, float]
"""How relevant documents are to one query, by their source; what is not there, or 0, is not."""
Metric: TypeAlias = Callable[[Sequence[str], Gains], float]

_SAMPLES: Final = 2000
_CONFIDENCE: Final = 0.95
_NDCG: Final = 10


def recall(ranking: Sequence[str], gains: Gains, k: int) -> float:
    """Return the share of the relevant documents that are among the first k; 0 where there are none."""
    relevant = {source for source, gain in gains.items() if gain > 0}
    return len(relevant & set(ranking[:k])) / len(relevant) if relevant else 0.0


def ndcg(ranking: Sequence[str], gains: Gains, k: int) -> float:
    """Return the discounted gain of the first k against the best there could be; gains count as they are.

    That is trec_eval's: Σ gain / log2(rank + 1), not 2^gain - 1; 0 where there are no relevant documents.
    """
    ideal = _dcg(sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:k])
    return _dcg([gains.get(source, 0.0) for source in ranking[:k]]) / ideal if ideal else 0.0


def _dcg(gains: Sequence[float]) -> float:
    return sum(max(gain, 0.0) / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def reciprocal_rank(ranking: Sequence[str], gains: Gains) -> float:
    """Return 1 / the rank of the first relevant document, 0 where there is none; its mean over queries is the MRR."""
    return next((1 / rank for rank, source in enumerate(ranking, 1) if gains.get(source, 0) > 0), 0.0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold a mean over queries, and between what it lies with a confidence of 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the mean of some values with its interval by bootstrap: 2,000 samples of as many, drawn with a seed."""
    draw = random.Random(seed)
    means = sorted(fmean(draw.choices(values, k=len(values))) for _ in range(_SAMPLES))
    cut = round(_SAMPLES * (1 - _CONFIDENCE) / 2)
    return Estimate(fmean(values), means[cut], means[-cut - 1])


def documents_of(sources: Sequence[str]) -> list[str]:
    """Return a ranking of passages' sources as one of documents: each where its best passage is."""
    return list(dict.fromkeys(sources))


def metrics(k: int) -> Mapping[str, Metric]:
    """Return what is measured of rankings of k documents, by name."""
    first = min(k, _NDCG)
    return {
        f"nDCG@{first}": lambda ranking, gains: ndcg(ranking, gains, first),
        f"recall@{k}": lambda ranking, gains: recall(ranking, gains, k),
        "MRR": reciprocal_rank,
    }


Rankings: TypeAlias = Mapping[str, Sequence[str]]
"""The documents found, the best first, by query."""


def scores(rankings: Rankings, qrels: Mapping[str, Gains], metric: Metric) -> list[float]:
    """Return a metric for every query that has relevant documents, in their order; a query not answered is 0."""
    return [
        metric(rankings.get(query, ()), gains) for query, gains in qrels.items() if any(g > 0 for g in gains.values())
    ]
