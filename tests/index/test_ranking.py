"""What decides the order of what is found: words, vectors and their fusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt.index.fusion import fused
from agentrt.index.vectors import StoredVectors, packed, unpacked
from agentrt.index.words import Choice, any_of, both, chosen, words_in


def test_fusion_is_by_reciprocal_rank() -> None:
    """What two rankings name is before what one names first; weights scale a ranking."""
    assert fused([([1, 2, 3], 1.0), ([4, 2], 1.0)], 3) == [
        (2, pytest.approx(2 / 62)),
        (1, pytest.approx(1 / 61)),
        (4, pytest.approx(1 / 61)),
    ]
    assert [i for i, _ in fused([([1, 2], 1.0), ([3, 4], 2.0)], 9)] == [3, 4, 1, 2]
    assert fused([], 3) == []


def test_words_are_told_apart() -> None:
    """Each word once, in lower case, whatever the script; not more than 200."""
    assert words_in("The inn, the INN_2! Öl 北京") == ["the", "inn", "2", "öl", "北京"]
    assert len(words_in(" ".join(map(str, range(300))))) == 200
    assert any_of(["a", "b"]) == '"a" OR "b"'


def test_the_rarest_words_say_what_is_ranked() -> None:
    """Words are taken from the rarest on while few passages have them, or too few are found; the others add scores."""
    counts = {"the": 9000, "inn": 300, "zura": 1, "nowhere": 0, "of": 4000}
    assert chosen(counts, 100, passages=9000) == Choice(["zura", "inn", "of"], ["the"])
    assert chosen(counts, 9001, passages=9000) == Choice(["zura", "inn", "of", "the"], [])
    assert chosen({"the": 9000, "a": 8000}, 10, passages=9000) == Choice(["a"], ["the"])
    assert chosen({"nowhere": 0}, 10, passages=9000) == Choice([], [])
    assert both(["a"], ["b", "c"]) == '("a") AND ("b" OR "c")'


def test_where_few_can_be_found_all_words_say_what_is_ranked() -> None:
    """Of many, as many as can be ranked are expected to be found among those that may be."""
    counts = {"the": 9000, "a": 8000}
    assert chosen(counts, 10, passages=9000, among=5000) == Choice(["a", "the"], [])
    assert chosen(counts, 10, passages=90_000, among=9000) == Choice(["a", "the"], [])
    assert chosen(counts, 10, passages=9000, among=9000) == Choice(["a"], ["the"])


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3))
def test_a_vector_is_stored_by_its_direction(vector: list[float]) -> None:
    """It comes back as long as 1, within a hundredth of where it was; one of no length stays so."""
    (stored,) = packed([vector])
    back, length = list(unpacked(stored)), sum(n * n for n in vector) ** 0.5
    if length > 1e-6:
        assert back == pytest.approx([n / length for n in vector], abs=0.01)


def test_the_nearest_are_found_among_many() -> None:
    """Of 8,000 vectors, most of which are only looked at by their signs, the ten nearest are found."""
    random = np.random.default_rng(7)
    topics = random.normal(size=(200, 64))
    vectors = topics[random.integers(200, size=8_000)] + 0.7 * random.normal(size=(8_000, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = StoredVectors(enumerate(packed(list(vectors))))
    hits = 0
    for asked in vectors[:40]:
        nearest = set(np.argsort(-(vectors @ asked))[:10].tolist())
        hits += len(nearest & {i for i, _ in stored.nearest(asked, 10)})
    assert hits >= 0.97 * 400


def test_nearest_among_some() -> None:
    """Only those it may be are looked at; scores are cosines; an empty index has none."""
    stored = StoredVectors(zip([4, 7, 9], packed([[1.0, 0], [0.6, 0.8], [0, 1]]), strict=True))
    assert stored.nearest([1.0, 0], 2) == [(4, pytest.approx(1)), (7, pytest.approx(0.6, abs=0.01))]
    assert [i for i, _ in stored.nearest([1.0, 0], 9, among=[9, 7, 1])] == [7, 9]
    assert StoredVectors([]).nearest([1.0, 0], 2) == []
