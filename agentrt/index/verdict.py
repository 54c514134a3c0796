"""Verdicts: which way of searching is better, and why one is not where it should be, as far as rankings tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from agentrt.index.evaluation import Estimate, Gains, Metric, Rankings, estimate, scores
from agentrt.index.fusion import fused

Ways: TypeAlias = Mapping[str, Rankings]

HYBRID: Final = "hybrid"
PARTS: Final = ("text", "vector")
_WEIGHTS: Final = ((4.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, 2.0), (1.0, 4.0))
_FIRST: Final = 10


def verdict(ways: Ways, qrels: Mapping[str, Gains], metric: str, measure: Metric) -> list[str]:
    """Say whether hybrid is better than each other way, and words than bm25s, by intervals over the same queries.

    Where hybrid does not clearly beat one of its parts, say what of that the rankings tell.
    """
    told = list[str]()
    for name in ways:
        if name != HYBRID and HYBRID in ways:
            gain = _gain(ways[HYBRID], ways[name], qrels, measure)
            how = "beats" if gain.low > 0 else "is worse than" if gain.high < 0 else "does not clearly beat"
            told.append(f"hybrid {how} {name}: {_told(metric, gain)}")
            if gain.low <= 0 and name in PARTS and all(part in ways for part in PARTS):
                told += [f"  {reason}" for reason in _reasons(ways, name, gain, qrels, measure)]
    if "text" in ways and "bm25s" in ways:
        gain = _gain(ways["text"], ways["bm25s"], qrels, measure)
        how = "beats" if gain.low > 0 else "is worse than" if gain.high < 0 else "is not worse than"
        told.append(f"text {how} bm25s: {_told(metric, gain)}")
    return told


def _gain(one: Rankings, other: Rankings, qrels: Mapping[str, Gains], measure: Metric) -> Estimate:
    pairs = zip(scores(one, qrels, measure), scores(other, qrels, measure), strict=True)
    return estimate([a - b for a, b in pairs])


def _told(metric: str, gain: Estimate) -> str:
    return f"{metric} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def _reasons(ways: Ways, part: str, gain: Estimate, qrels: Mapping[str, Gains], measure: Metric) -> Iterator[str]:
    """Say how much the other part could add, what other weights would have given, and how many queries are needed."""
    other = next(one for one in PARTS if one != part)
    pairs = list(zip(scores(ways[part], qrels, measure), scores(ways[other], qrels, measure), strict=True))
    n = len(pairs)
    better, equal = sum(b > a for a, b in pairs), sum(a == b for a, b in pairs)
    alone = sum(
        bool(_first(ways[other], query, gains) - _first(ways[part], query, gains)) for query, gains in qrels.items()
    )
    yield (
        f"{other} ranks better than {part} on {better:,} of {n:,} queries, and alike on {equal:,}; it has a relevant "
        f"document among its first {_FIRST} that {part} has not there on {alone:,}"
    )
    weights, best = max(
        ((w, _gain(fused_by(ways, w), ways[part], qrels, measure)) for w in _WEIGHTS), key=lambda tried: tried[1].mean
    )
    yield f"of {len(_WEIGHTS)} pairs of weights {weights} would have been best: {best.mean:+.3f} over {part}"
    if gain.mean > 0:
        needed = math.ceil(n * ((gain.high - gain.low) / 2 / gain.mean) ** 2)
        yield f"a lead of {gain.mean:+.3f} would be clear with about {needed:,} queries like these"


def _first(rankings: Rankings, query: str, gains: Gains) -> set[str]:
    return {source for source in rankings.get(query, ())[:_FIRST] if gains.get(source, 0) > 0}


def fused_by(ways: Ways, weights: Sequence[float]) -> Rankings:
    """Return the documents of both parts fused by other weights, nearly as hybrid would have ranked their passages."""
    made: dict[str, Sequence[str]] = {}
    for query in ways[PARTS[0]]:
        rankings = [ways[part].get(query, ()) for part in PARTS]
        sources = list(dict.fromkeys(source for ranking in rankings for source in ranking))
        places = {source: place for place, source in enumerate(sources)}
        weighted = [([places[s] for s in ranking], w) for ranking, w in zip(rankings, weights, strict=True)]
        made[query] = [sources[place] for place, _ in fused(weighted, len(sources))]
    return made
