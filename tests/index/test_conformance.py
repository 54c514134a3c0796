"""What every index promises, wherever it keeps its passages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentrt import Between, IndexTaken, Passage, Query
from agentrt.errors import DefinitionError
from agentrt.index import Changes, Document, StoredIndex, words
from agentrt.models.embedding import LitellmEmbedder
from agentrt.testing import FunctionEmbedder
from tests.index.conftest import Open
from tests.index.embedders import topical

pytestmark = pytest.mark.anyio

INN = Document(
    source="inn.md", title="The Zura Inn", text="Rooms cost 74 crowns a night.", metadata={"year": 2024, "lang": "en"}
)
FERRY = Document(
    source="ferry.md", title="The Ondry ferry", text="The boat leaves at noon.", metadata={"year": 2020, "lang": "de"}
)
SOUP = Document(source="soup.md", text="Soup and bread, every day.", metadata={"year": 2022.5, "hot": True})
GUIDE = (INN, FERRY, SOUP)
HOSTILE = [
    '"',
    "'",
    "\\",
    "*",
    "NEAR(",
    "",
    " ",
    "AND",
    "OR OR",
    "title:",
    "-",
    "a & | ! <-> b",
    "\0",
    "\ud800",
    "'; --",
]


def lines(document: Document) -> Iterable[Passage]:
    start = 0
    for line in document.text.split("\n"):
        yield Passage(text=line, source="", start=start, metadata={"length": len(line)})
        start += len(line) + 1


@pytest.fixture
async def index(opened: Open) -> StoredIndex:
    index = await opened(embedder=topical())
    await index.update(GUIDE)
    return index


async def found(index: StoredIndex, query: str | Query, k: int = 3) -> list[str]:
    return [p.source for p in await index.search(query, k)]


async def test_words_find(opened: Open) -> None:
    """A search by words finds the passages that share some, the rarest first, with falling scores."""
    index = await opened()
    await index.update(GUIDE)
    passages = await index.search("What does a night in the inn cost, when does the boat leave?", 5)
    assert [p.source for p in passages] == ["inn.md", "ferry.md"]
    assert passages[0].score > passages[1].score > 0


async def test_meaning_finds(opened: Open, index: StoredIndex) -> None:
    """A search by meaning finds what shares no word; its score is the cosine."""
    by_meaning = await opened(embedder=topical(), mode="vector")
    (first, *_) = await by_meaning.search("hotel bed price", 3)
    assert first.source == "inn.md"
    assert first.score == pytest.approx(1.0, abs=0.1)
    assert await found(by_meaning, "eat a meal", 1) == ["soup.md"]


async def test_both_find(index: StoredIndex) -> None:
    """A hybrid search finds what either does; what both rank first is first."""
    assert (await found(index, "vessel ferry"))[0] == "ferry.md"
    assert (await found(index, "vessel"))[0] == "ferry.md"
    assert (await found(index, "Zura"))[0] == "inn.md"
    (best, *_) = await index.search("Ondry boat", 1)
    assert best.score == pytest.approx(2 / 61)


async def test_weights_decide(opened: Open, index: StoredIndex) -> None:
    """The weights say which ranking counts for more where they disagree."""
    query = "noon hotel"  # by word the ferry, by meaning the inn
    assert (await found(await opened(embedder=topical(), weights=(1.0, 0.0)), query))[0] == "ferry.md"
    assert (await found(await opened(embedder=topical(), weights=(0.0, 1.0)), query))[0] == "inn.md"


async def test_passage_comes_back_whole(index: StoredIndex) -> None:
    """A hit is the passage that went in, with the metadata of its document and its own."""
    await index.update(
        [Document(source="x", title="T", text="first\nsecond zebra", metadata={"a": "b", "n": 1.5})], chunk=lines
    )
    (passage, *_) = await index.search(Query("zebra", where={"a": "b"}), 1)
    assert passage.score > 0
    assert (passage.text, passage.source, passage.position, passage.title) == ("second zebra", "x", 1, "T")
    assert passage.start == 6
    assert passage.metadata == {"a": "b", "n": 1.5, "length": 12}
    assert passage.id == "x#1"
    assert [p.text for p in await index.passages("x")] == ["first", "second zebra"]


@pytest.mark.parametrize("query", HOSTILE)
async def test_nothing_in_a_query_is_syntax(index: StoredIndex, query: str) -> None:
    """No operator reaches the database."""
    await index.search(query, 3)
    assert "inn.md" in await found(index, f"{query} zura {query}")


@pytest.mark.parametrize(
    ("where", "sources"),
    [
        ({"year": 2024}, {"inn.md"}),
        ({"lang": "de"}, {"ferry.md"}),
        ({"hot": True}, {"soup.md"}),
        ({"lang": ["de", "en"]}, {"inn.md", "ferry.md"}),
        ({"year": [2020, 2022.5]}, {"ferry.md", "soup.md"}),
        ({"year": []}, set()),
        ({"year": Between(least=2021)}, {"inn.md", "soup.md"}),
        ({"year": Between(least=2020, most=2022.5)}, {"ferry.md", "soup.md"}),
        ({"lang": Between(most="de")}, {"ferry.md"}),
        ({"lang": Between()}, {"inn.md", "ferry.md"}),
        ({"year": Between(least=2021), "lang": "en"}, {"inn.md"}),
        ({"year": "2024"}, set()),
        ({"nothing": 1}, set()),
        ({"it's": 'so "called"'}, set()),
        ({"hot": 1}, {"soup.md"}),
        ({"hot": [0, 1.0]}, {"soup.md"}),
        ({"hot": Between(least=1)}, {"soup.md"}),
        ({"hot": Between(least=False, most=True)}, {"soup.md"}),
        ({"hot": Between(most=0.5)}, set()),
        ({"nul\0": "\ud800"}, set()),
    ],
)
@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
async def test_where(opened: Open, index: StoredIndex, mode: str, where: dict[str, object], sources: set[str]) -> None:
    """Only passages whose metadata is as it must be are found, by whatever ranking."""
    searched = await opened(embedder=topical(), mode=mode)
    query = Query("zura inn ondry ferry soup bread boat night", where=where)  # type: ignore[arg-type]
    assert set(await found(searched, query)) == sources


@pytest.mark.parametrize("most", [3, 10])
async def test_where_finds_what_words_are_common_elsewhere(
    opened: Open, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which words are looked for does not depend on how common they are in passages that may not be found at all."""
    monkeypatch.setattr(words, "MOST_RANKED", most)
    index = await opened()
    others = [Document(source=f"o{i}", text="invoice refund", metadata={"of": "them"}) for i in range(40)]
    rarer = [Document(source=f"r{i}", text="refund", metadata={"of": "them"}) for i in range(4)]
    mine = [Document(source=f"m{i}", text=f"invoice {i}", metadata={"of": "me"}) for i in range(5)]
    await index.update([*others, *rarer, *mine])
    for query in ("invoice", "invoice refund", "zebra refund invoice"):
        assert len(await index.search(Query(query, where={"of": "me"}), 9)) == 5, query


async def test_common_words_count_where_rare_ones_choose(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the passages that have the rare words of a query, those that have its common ones, too, are best."""
    monkeypatch.setattr(words, "MOST_RANKED", 150)
    index = await opened()
    rare = [Document(source=f"r{i}", text="zebra and so on") for i in range(110)]
    common = [Document(source=f"c{i}", text="pony and so on") for i in range(200)]
    last = Document(source="both", text="zebra pony and so")
    await index.update([*rare, *common, *(Document(source=f"n{i}", text="cat") for i in range(200)), last])
    assert [p.source for p in await index.search("zebra pony", 1)] == ["both"]


@pytest.mark.parametrize(
    "asked",
    [
        Query("zura", where={"year": 10**20}),
        Query("zura", where={"year": float("nan")}),
        Query("zura", where={"year": None}),  # type: ignore[dict-item]
        Query("zura", where={"year": [[1]]}),  # type: ignore[list-item]
        Query("zura", where={"year": Between(least=float("inf"))}),
        Query("zura", where=["year"]),  # type: ignore[arg-type]
        Query("zura", [1.0, 2.0]),
        None,
    ],
)
async def test_what_cannot_be_asked_is_told(index: StoredIndex, asked: Any) -> None:
    """Alike, wherever the index is kept."""
    with pytest.raises(DefinitionError):
        await index.search(asked)


async def test_numbers_that_no_database_holds(opened: Open) -> None:
    """Are kept as text; what is no fact at all is told with its document."""
    index = await opened()
    odd = {"big": 10**20, "inf": float("inf"), "n": 2**63 - 1}
    await index.update([Document(source="a", text="zebra", metadata=odd)])
    (passage,) = await index.search(Query("zebra", where={"big": str(10**20)}))
    assert passage.metadata == {"big": str(10**20), "inf": "inf", "n": 2**63 - 1}
    with pytest.raises(DefinitionError, match=r"b: metadata 'tags': \['x'\] is no text, number"):
        await index.update([Document(source="b", text="x", metadata={"tags": ["x"]})])  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "query", "is_found"),
    [
        ("The résumé of a naïve Łuk", "resume", True),
        ("The resume", "RÉSUMÉ", True),
        ("The re\u0301sume\u0301", "r\u00e9sum\u00e9", True),
        ("The r\u00e9sum\u00e9", "re\u0301sume\u0301", True),
        ("write to ada.bloom@dorrel.example", "bloom", True),
        ("see https://dorrel.example/ferries?x=1", "ferry", True),
        ("it costs 74.50 crowns", "74", True),
        ("snake_case names", "snake", True),
        ("to be or not to be", "to be", True),
        ("kyrka i Göteborg", "goteborg", True),
        ("running ferries", "runs ferry", True),
        ("a b c", "d", False),
    ],
)
async def test_words_are_cut_alike(opened: Open, text: str, query: str, is_found: bool) -> None:
    """Without accents and case, at every sign, common words too, and by their English stems."""
    index = await opened()
    await index.update([Document(source="a", text=text)])
    assert bool(await index.search(query)) is is_found


async def test_a_document_of_very_many_words(opened: Open) -> None:
    """Is no trouble, even as one passage."""
    index = await opened()
    await index.update([Document(source="a", text=" ".join(f"word{i}" for i in range(120_000)))])
    assert await found(index, "word7") == ["a"]


async def test_k_limits(index: StoredIndex) -> None:
    """At most k passages come back, none for k = 0."""
    assert [len(await index.search("zura ferry soup", k)) for k in (0, 1, 2, 9, 10**23)] == [0, 1, 2, 3, 3]


async def test_empty_index_finds_nothing(opened: Open) -> None:
    """An index without documents answers."""
    index = await opened(embedder=topical())
    assert await index.search("anything", 3) == []
    assert await index.sources() == []


async def test_update_says_what_it_did(index: StoredIndex) -> None:
    """Only what changed is written; `prune` removes what is no longer there."""
    changed = Document(source="inn.md", title="The Zura Inn", text="Closed.")
    changes = await index.update([changed, FERRY, Document(source="new.md", text="New.")], prune=True)
    assert changes == Changes(added=1, changed=1, removed=1, unchanged=1, embedded=2)
    assert await index.sources() == ["ferry.md", "inn.md", "new.md"]
    assert await found(index, "crowns soup") != ["inn.md"]
    assert [p.text for p in await index.search("closed", 1)] == ["Closed."]


async def test_unchanged_passages_keep_their_vectors(opened: Open) -> None:
    """Of a document that changed only the passages that did are embedded again, even where others moved."""
    embedder = topical()
    index = await opened(embedder=embedder)
    await index.update([Document(source="a", text="one inn\ntwo ferry\nthree soup")], chunk=lines)
    changes = await index.update([Document(source="a", text="zero\none inn\nthree soup")], chunk=lines)
    assert changes == Changes(changed=1, embedded=1)
    assert embedder.asked[1:] == [("zero",)]
    passages = await index.passages("a")
    assert [(p.position, p.text, p.start) for p in passages] == [
        (0, "zero", 0),
        (1, "one inn", 5),
        (2, "three soup", 13),
    ]
    assert "two ferry" not in [p.text for p in await index.search("ferry two", 9)]
    assert [p.position for p in await index.search("three", 1)] == [2]


async def test_equal_content_is_embedded_once(opened: Open) -> None:
    """A document under another name, or the same text twice, costs nothing again, and is found by its vector."""
    embedder = topical()
    index = await opened(embedder=embedder, mode="vector")
    embedder.asked.clear()
    await index.update([Document(source="a", text="the inn"), Document(source="b", text="the inn")])
    changes = await index.update([Document(source="c", text="the inn")], prune=True)
    assert changes == Changes(added=1, removed=2)
    assert embedder.asked == [("the inn",)]
    assert await found(index, "hotel") == ["c"]


async def test_metadata_alone_can_change(index: StoredIndex) -> None:
    """New metadata is found by, old is not, and nothing is embedded again."""
    changes = await index.update([Document(source="soup.md", text=SOUP.text, metadata={"year": 1999})])
    assert changes == Changes(changed=1)
    assert await found(index, Query("soup", where={"year": 1999})) == ["soup.md"]
    assert await found(index, Query("soup", where={"hot": True})) == []


async def test_remove(index: StoredIndex) -> None:
    """A removed document is not found; to remove what is not there is no error."""
    assert await index.remove(["inn.md", "nowhere.md"]) == Changes(removed=1)
    assert await index.sources() == ["ferry.md", "soup.md"]
    assert "inn.md" not in await found(index, "zura inn hotel")


async def test_documents_come_as_they_are_made(opened: Open) -> None:
    """Documents may come from an async iterable; those in whole batches before an error are kept."""
    index = await opened()

    async def documents() -> AsyncIterator[Document]:
        for i in range(1500):
            yield Document(source=f"{i:04}", text=f"word{i}")
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="gone"):
        await index.update(documents())
    assert len(await index.sources()) == 1000
    assert (await index.update(Document(source=f"{i:04}", text=f"word{i}") for i in range(1500))).added == 500
    assert await found(index, "word1499", 1) == ["1499"]


async def test_texts_are_embedded_in_batches(opened: Open) -> None:
    """Many texts are few calls, each no larger than the embedder takes."""
    embedder = topical(batch_size=40)
    index = await opened(embedder=embedder)
    await index.update(Document(source=str(i), text=f"inn {i}") for i in range(100))
    assert sorted(map(len, embedder.asked)) == [20, 40, 40]


async def test_an_empty_document_has_no_passage(opened: Open) -> None:
    """It is known, so that it is not looked at again, and found by nothing."""
    index = await opened(embedder=topical())
    assert await index.update([Document(source="a", text=" \n")]) == Changes(added=1)
    assert await index.update([Document(source="a", text=" \n")]) == Changes(unchanged=1)
    assert await index.search("a", 3) == []


async def test_text_that_databases_refuse(opened: Open) -> None:
    """NUL and lone surrogates are replaced, in texts, titles, sources and metadata."""
    index = await opened(embedder=topical())
    document = Document(source="a\0", text="zebra \ud800 \0", title="\0", metadata={"k\0": "\ud800"})
    await index.update([document])
    assert (await index.update([document])).unchanged == 1
    (passage,) = await index.search("zebra", 1)
    assert passage.text == "zebra ? \ufffd"
    assert passage.metadata == {"k\ufffd": "?"}


async def test_two_documents_of_one_source(opened: Open) -> None:
    """A source names one document."""
    index = await opened()
    with pytest.raises(DefinitionError, match=r"two documents are named 'inn\.md'"):
        await index.update([INN, INN])


async def test_one_writes_at_a_time(opened: Open) -> None:
    """A second update waits as long as it is told to, whoever makes it; searches go on."""
    index, other = await opened(embedder=topical()), await opened(embedder=topical())
    await index.update(GUIDE)
    begun, may_end = anyio.Event(), anyio.Event()

    async def slowly() -> AsyncIterator[Document]:
        yield Document(source="new.md", text="Zura")
        begun.set()
        await may_end.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(index.update, slowly())
        await begun.wait()
        with pytest.raises(IndexTaken, match="another update"):
            await other.update(GUIDE, wait=0)
        assert "inn.md" in await found(other, "zura")
        tasks.start_soon(other.update, [Document(source="next.md", text="Zura")])
        await anyio.lowlevel.checkpoint()
        may_end.set()
    assert {"new.md", "next.md"} <= set(await other.sources())
    assert (await other.update(GUIDE)).unchanged == 3
    assert "new.md" in await found(other, "zura")


async def test_cancelled_update_lets_go(opened: Open) -> None:
    """After an update was cancelled the next one may write."""
    index = await opened(embedder=topical())

    async def endless() -> AsyncIterator[Document]:
        await anyio.sleep_forever()
        yield INN

    with anyio.move_on_after(0.05):
        await index.update(endless())
    assert (await index.update(GUIDE)).added == 3


async def test_another_embedder_is_refused(opened: Open, index: StoredIndex) -> None:
    """Vectors of two embedders are not mixed; an index made without one gets none later."""
    with pytest.raises(DefinitionError, match=r"made with test/topics \(8 dimensions\), not with test/other"):
        await opened(embedder=topical("test/other"))
    with pytest.raises(DefinitionError, match="test/topics"):
        await opened()  # it is asked for by its name, and nobody knows that


SMALL = "openai/text-embedding-3-small"


async def test_an_embedder_is_made_again_as_it_was(opened: Open) -> None:
    """Dimensions that were chosen are chosen again."""
    await opened(embedder=LitellmEmbedder(SMALL, dimensions=4))
    made_by = (await opened()).made_by
    assert isinstance(made_by, LitellmEmbedder)
    assert made_by.dimensions == 4


async def test_queries_go_nowhere_else(opened: Open) -> None:
    """An index that was made at a server of one's own is opened with that again, or by words alone."""
    own = LitellmEmbedder(SMALL, dimensions=4, api_base="http://me:secret@[::1]:1/v1?key=2")
    await opened(embedder=own)
    with pytest.raises(DefinitionError, match=r"3-small, at http://\[::1\]:1/v1: .* with embedder=") as raised:
        await opened()
    assert "secret" not in str(raised.value)
    assert (await opened(mode="text")).made_by is None
    assert (await opened(embedder=own)).made_by is own


async def test_no_embedder_later(opened: Open) -> None:
    """An index that was made without an embedder has no vectors, and is told so."""
    await (await opened()).update(GUIDE)
    with pytest.raises(DefinitionError, match=r"made without an embedder, not with test/topics \(8 dimensions\)"):
        await opened(embedder=topical())


async def test_an_index_without_documents_takes_any_embedder(opened: Open) -> None:
    """Whatever was tried before there was anything in it is no decision; who still has that one writes no more."""
    await opened()
    first = await opened(embedder=FunctionEmbedder(lambda text: [1.0, 2.0], 2, name="test/other"))
    second = await opened(embedder=topical())
    with pytest.raises(DefinitionError, match="was made with test/topics"):
        await first.update(GUIDE)
    assert (await second.update(GUIDE)).embedded == 3
    assert await found(second, "hotel bed", 1) == ["inn.md"]


async def test_a_closed_index_is_told(opened: Open) -> None:
    """An index is a context manager; after it nothing is asked of it, and closing twice is no error."""
    async with await opened(embedder=topical()) as index:
        await index.update(GUIDE)
    for work in (index.search("zura"), index.update(GUIDE), index.remove(["x"]), index.sources(), index.passages("x")):
        with pytest.raises(DefinitionError, match="is closed"):
            await work
    await index.aclose()


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        (INN, r"write update\(\[document\]\)"),
        ("docs", r"'docs' is no document: write update\(load\(PATH\)\)"),
        (Path("docs"), "is no document"),
        (3, "3 holds no documents"),
        (["text"], r"'text' is no document: write Document\(source=…, text=…\)"),
        ([{"source": "x", "text": "y"}], "is no document"),
    ],
)
async def test_what_is_no_document_is_told(opened: Open, documents: Any, told: str) -> None:
    """With what to write instead."""
    index = await opened()
    with pytest.raises(DefinitionError, match=told):
        await index.update(documents)
    assert await index.sources() == []


async def test_notes(opened: Open) -> None:
    """What was written down last is there for whoever opens the index next."""
    index = await opened()
    assert await index.note("roots") is None
    await index.write_note("roots", "a")
    await index.write_note("roots", "b")
    assert await (await opened()).note("roots") == "b"
    assert await index.search("roots b") == []


async def test_mode_is_checked(opened: Open) -> None:
    """A mistyped mode is told when the index is opened."""
    with pytest.raises(DefinitionError, match="use hybrid, text or vector"):
        await opened(mode="both")


async def test_many_searches_at_once(index: StoredIndex) -> None:
    """Searches run side by side, and while others are cancelled."""
    counts: list[int] = []

    async def search(i: int) -> None:
        with anyio.move_on_after(0 if i % 3 == 0 else 60):
            counts.append(len(await index.search("zura ferry soup", 3)))

    async with anyio.create_task_group() as tasks:
        for i in range(30):
            tasks.start_soon(search, i)
    assert counts.count(3) >= 20
    assert set(counts) == {3}
    assert len(await index.search("zura ferry soup", 3)) == 3
