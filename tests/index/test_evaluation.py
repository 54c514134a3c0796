"""Metrics against values computed by hand, and collections as files."""

import math
from pathlib import Path

import anyio
import pytest

from agentrt.errors import DefinitionError
from agentrt.index.collection import Collection, corpus
from agentrt.index.comparison import rankings
from agentrt.index.document import Document
from agentrt.index.evaluation import documents_of, estimate, metrics, ndcg, recall, reciprocal_rank, scores
from agentrt.index.sqlite import SqliteIndex
from agentrt.index.verdict import fused_by, verdict
from tests.index import handbook

GAINS = {"a": 3.0, "b": 1.0, "c": 2.0, "z": 0.0}


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        (["a", "c", "b"], 1.0),
        (["c", "x", "a"], (2 + 3 / 2) / (3 + 2 / math.log2(3) + 1 / 2)),
        (["x", "b"], (1 / math.log2(3)) / (3 + 2 / math.log2(3) + 1 / 2)),
        (["x", "y", "z", "w"], 0.0),
        ([], 0.0),
    ],
)
def test_ndcg(ranking: list[str], expected: float) -> None:
    """Graded gains, discounted by log2(rank + 1), against the ideal ranking; as pytrec_eval has it."""
    assert ndcg(ranking, GAINS, 10) == pytest.approx(expected)


def test_ndcg_of_the_first_k() -> None:
    """The ideal is cut, too."""
    assert ndcg(["b", "a"], GAINS, 1) == pytest.approx(1 / 3)


def test_nothing_relevant_is_no_gain() -> None:
    """Of whatever ranking."""
    assert (recall(["z"], {"z": 0.0}, 5), ndcg(["z"], {"z": 0.0}, 5), ndcg(["a"], GAINS, 0)) == (0, 0, 0)


@pytest.mark.parametrize(("k", "names"), [(1, ["nDCG@1", "recall@1", "MRR"]), (100, ["nDCG@10", "recall@100", "MRR"])])
def test_metrics_are_named_for_what_they_measure(k: int, names: list[str]) -> None:
    """A ranking of one document has no ten."""
    assert list(metrics(k)) == names
    assert metrics(1)["nDCG@1"](["b", "a"], GAINS) == pytest.approx(1 / 3)


def test_recall_and_reciprocal_rank() -> None:
    """A document without a gain is not relevant."""
    assert [recall(["z", "a", "x", "b"], GAINS, k) for k in (1, 2, 10)] == [0, 1 / 3, 2 / 3]
    assert [reciprocal_rank(r, GAINS) for r in (["z", "x", "c", "a"], ["a"], ["z"])] == [1 / 3, 1, 0]


def test_a_document_stands_where_its_best_passage_does() -> None:
    """Once."""
    assert documents_of(["a", "b", "a", "c", "b"]) == ["a", "b", "c"]


def test_an_estimate_covers_the_mean() -> None:
    """With the width that the normal distribution expects, and the same for the same values."""
    values = [0.0, 1.0] * 50
    found = estimate(values)
    assert found == estimate(values)
    assert (found.mean, found.low, found.high) == (0.5, pytest.approx(0.402, abs=0.02), pytest.approx(0.598, abs=0.02))


def test_queries_without_an_answer_count() -> None:
    """As 0; those without relevant documents do not."""
    qrels = {"1": {"a": 1.0}, "2": {"b": 1.0}, "3": {"c": 0.0}}
    assert scores({"1": ["a"]}, qrels, reciprocal_rank) == [1.0, 0.0]


def test_the_verdict_is_on_the_difference() -> None:
    """Over the same queries: clear only where its interval leaves out 0."""
    qrels = {str(i): {"a": 1.0} for i in range(20)}
    good, bad = (dict.fromkeys(qrels, ranking) for ranking in (["a"], ["x", "a"]))
    mixed = {q: ["a"] if i else ["x", "a"] for i, q in enumerate(qrels)}
    ways = {"hybrid": good, "text": bad, "vector": mixed}
    name, metric = "MRR", metrics(10)["MRR"]
    assert verdict(ways, qrels, name, metric) == [
        "hybrid beats text: MRR +0.500 [+0.500, +0.500]",
        "hybrid does not clearly beat vector: MRR +0.025 [+0.000, +0.075]",
        "  text ranks better than vector on 0 of 20 queries, and alike on 1; "
        "it has a relevant document among its first 10 that vector has not there on 0",
        "  of 5 pairs of weights (4.0, 1.0) would have been best: +0.000 over vector",
        "  a lead of +0.025 would be clear with about 45 queries like these",
    ]
    assert "is worse than" in verdict({"hybrid": bad, "text": good}, qrels, name, metric)[0]
    assert verdict({"text": good}, qrels, name, metric) == []
    (told,) = verdict({"text": good, "bm25s": mixed}, qrels, name, metric)
    assert told == "text is not worse than bm25s: MRR +0.025 [+0.000, +0.075]"
    assert "text is worse than bm25s" in verdict({"text": bad, "bm25s": good}, qrels, name, metric)[0]


def test_documents_are_fused_by_other_weights() -> None:
    """As an index would have."""
    ways = {"text": {"q": ["a", "b"]}, "vector": {"q": ["b", "c"]}}
    assert fused_by(ways, (1.0, 1.0)) == {"q": ["b", "a", "c"]}
    assert fused_by(ways, (0.0, 1.0))["q"][:2] == ["b", "c"]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


def test_a_collection_is_read(tmp_path: Path) -> None:
    """A document without text has its title for it; one without either is none."""
    write(
        tmp_path,
        corpus_jsonl='{"id": 1, "title": "T", "text": "x"}\n{"_id": "2", "title": "U"}\n{"id": 3, "text": ""}\n',
        queries_jsonl='{"id": "q", "text": "what?"}\n{"id": "r", "text": "unjudged"}\n',
        qrels_tsv="query_id\tdoc_id\tgain\nq\t1\t3\nq\t2\t1\n",
    )
    assert list(corpus(tmp_path / "corpus.jsonl")) == [
        Document(source="1", text="x", title="T"),
        Document(source="2", text="U", title="U"),
    ]
    found = Collection.read(tmp_path / "queries.jsonl", tmp_path / "qrels.tsv")
    assert (found.queries, found.qrels) == ({"q": "what?"}, {"q": {"1": 3.0, "2": 1.0}})


@pytest.mark.parametrize("header", ["", "query\tdocument\tgain\n"])
def test_judgements_are_read_with_a_header_or_without(tmp_path: Path, header: str) -> None:
    """The first too; a query without relevant documents is none of the collection."""
    lines = '{"id": "q", "text": "wh\u2028at\x85?"}\n{"id": "r", "text": "un\\njudged"}\n'
    write(tmp_path, queries_jsonl=lines, qrels_tsv=f'{header}q\t0\t"a\t1\r\n\nq\tb\t2\nr\tb\t0\n')
    found = Collection.read(tmp_path / "queries.jsonl", tmp_path / "qrels.tsv")
    assert (found.queries, found.qrels) == ({"q": "wh\u2028at\x85?"}, {"q": {'"a': 1.0, "b": 2.0}})


@pytest.mark.parametrize(
    ("queries", "qrels", "told"),
    [
        ("{]", "", "queries.jsonl line 1 is no JSON"),
        ("[]", "", "line 1 is no JSON object"),
        ('{"id": 1}', "", "line 1 has none of text, question"),
        ('{"id": 1, "text": "x"}', "h\n1\ta\tmuch\n", "qrels.tsv line 2: write the id"),
        ('{"id": 1, "text": "x"}', "h\n2\ta\t1\n", "qrels.tsv line 2: write the id"),
        ('{"id": 1, "text": "x"}', "h\n", "holds no judgements"),
        ('{"id": 1, "text": "x"}', "1\ta\t0\n", "none with a gain over 0"),
        ('{"id": 1, "text": "x"}', "1\ta\tinf\n", "qrels.tsv line 1: write the id"),
        ('{"id": 1, "text": "x"}', "1\ta\tnan\n", "qrels.tsv line 1: write the id"),
        ('{"id": 1, "text": "x"}', "2\ta\t1\n", "qrels.tsv line 1: write the id"),
    ],
)
def test_what_is_wrong_with_a_collection(tmp_path: Path, queries: str, qrels: str, told: str) -> None:
    """Is told with its line."""
    write(tmp_path, queries_jsonl=queries, qrels_tsv=qrels)
    with pytest.raises(DefinitionError, match=told):
        Collection.read(tmp_path / "queries.jsonl", tmp_path / "qrels.tsv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(DefinitionError, match=r"nothing.jsonl cannot be read"):
        list(corpus(tmp_path / "nothing.jsonl"))


def test_all_ways_answer_the_same_queries(tmp_path: Path) -> None:
    """On the same passages; without vectors there is one way, and bm25s where it is installed."""
    documents = [Document(source=s, text=f"{s} lives in a house of {s}s") for s in ("eel", "owl", "fox")]

    async def compare() -> dict[str, dict[str, list[str]]]:
        index = SqliteIndex(tmp_path / "i.db", make=True)
        await index.update(documents)
        await index.aclose()
        return await rankings(tmp_path / "i.db", {"1": "the owl", "2": "badger"}, 2)

    found = anyio.run(compare)
    assert {way: r["1"][0] for way, r in found.items()} == {"text": "owl", "bm25s": "owl"}
    assert {way: r["2"] for way, r in found.items()} == {"text": [], "bm25s": []}


def test_the_guide_book_is_a_collection(tmp_path: Path) -> None:
    """Each question has the section it was written from, and words alone find nearly all of them first."""
    handbook.write(tmp_path)
    found = Collection.read(tmp_path / "queries.jsonl", tmp_path / "qrels.tsv")
    documents = list(corpus(tmp_path / "corpus.jsonl"))
    assert {s for gains in found.qrels.values() for s in gains} <= {d.source for d in documents}
    assert (len(documents), len(found.queries)) == (45, 56)

    async def measure() -> float:
        index = SqliteIndex(tmp_path / "i.db", make=True)
        await index.update(documents)
        await index.aclose()
        ways = await rankings(tmp_path / "i.db", found.queries, 10)
        return estimate(scores(ways["text"], found.qrels, reciprocal_rank)).mean

    assert anyio.run(measure) > 0.95
