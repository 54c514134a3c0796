"""Full-text search over passages."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt.errors import DefinitionError
from agentrt.retrieval import Index, Passage
from agentrt.stores import FullTextIndex

pytestmark = pytest.mark.anyio

INN = Passage(text="Rooms cost 74 crowns a night.", source="inns.md", title="The Zura Inn")
FERRY = Passage(text="The boat crosses the lake at noon.", source="ways.md", title="The Ondry ferry")
CAFE = Passage(text="Café au lait, 3 couronnes; Öl, straße, 北京", source="food.txt", position=4)

HOSTILE = ['"', "'", "*", "NEAR(", "NEAR(x y, 2", "", " ", "AND", "OR OR", "title:", "-", "^", "{x y}:z", "x + y", "\0"]


@pytest.fixture
def index() -> FullTextIndex:
    return FullTextIndex([INN, FERRY, CAFE])


async def found(index: Index, query: str, k: int = 3) -> list[str]:
    return [p.source for p in await index.search(query, k)]


async def test_best_passage_first(index: FullTextIndex) -> None:
    """The passage that shares the rarest words comes first, the others follow with lower scores."""
    passages = await index.search("What does a night in the inn cost at noon?", 3)
    assert [p.source for p in passages] == ["inns.md", "ways.md"]
    assert passages[0].score > passages[1].score > 0


async def test_passage_comes_back_whole(index: FullTextIndex) -> None:
    """A hit is the passage that went in, with its score."""
    (passage,) = await index.search("couronnes", 1)
    assert (passage.text, passage.source, passage.position, passage.title) == (CAFE.text, "food.txt", 4, "")


@pytest.mark.parametrize(("query", "source"), [("ZURA", "inns.md"), ("ferries", "ways.md"), ("boats", "ways.md")])
async def test_titles_and_word_forms_count(index: FullTextIndex, query: str, source: str) -> None:
    """Words are found in titles too, without case and English endings."""
    assert await found(index, query) == [source]


@pytest.mark.parametrize("query", ["cafe", "CAFÉ", "öl", "straße", "北京"])
async def test_words_of_any_script(index: FullTextIndex, query: str) -> None:
    """Accents and scripts are no obstacle."""
    assert await found(index, query) == ["food.txt"]


@pytest.mark.parametrize("query", HOSTILE)
async def test_nothing_in_a_query_is_syntax(index: FullTextIndex, query: str) -> None:
    """No operator of FTS5 reaches it: such queries find what their words find, or nothing."""
    assert await found(index, query) == []
    assert "inns.md" in await found(index, f"{query} zura {query}")


async def test_nul_separates_words(index: FullTextIndex) -> None:
    """A NUL does not cut off the query."""
    assert await found(index, "nothing\0zura") == ["inns.md"]


async def test_ten_thousand_words(index: FullTextIndex) -> None:
    """A query of any length is answered; its first words count."""
    assert await found(index, "zura " + " ".join(f"word{i}" for i in range(10_000))) == ["inns.md"]


@given(st.text())
async def test_any_text_is_a_query(text: str) -> None:
    """Whatever a model writes, a search does not fail."""
    assert len(await FullTextIndex([INN]).search(text, 5)) <= 1


async def test_k_limits_what_is_found(index: FullTextIndex) -> None:
    """At most k passages come back, none for k = 0."""
    assert len(await index.search("the night boat", 1)) == 1
    assert await index.search("the night boat", 0) == []


async def test_folder_is_split_into_paragraphs(tmp_path: Path) -> None:
    """Each paragraph is a passage, titled by the nearest heading above it; other files are left alone."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("\ufeff# Inns\n\n## Zura\nFirst.\r\n\nSecond\nline.\n```\n# code\n```\n", "utf-8")
    (tmp_path / "sub" / "b.txt").write_text("# no heading here", "utf-8")
    (tmp_path / "c.json").write_text("{}", "utf-8")
    index = FullTextIndex.load(tmp_path)
    (first,) = await index.search("first", 1)
    (second,) = await index.search("second", 1)
    (text,) = await index.search("heading", 1)
    assert (first.text, first.title, first.source, first.position) == ("First.", "Zura", "a.md", 0)
    assert (second.text, second.title, second.position) == ("Second\nline.\n```\n# code\n```", "Zura", 1)
    assert (text.text, text.title, text.source) == ("# no heading here", "", "sub/b.txt")


async def test_folder_without_text_is_told(tmp_path: Path) -> None:
    """A folder that is missing, a file or empty says so."""
    (tmp_path / "file.md").write_text("  \n")
    for path, reason in ((tmp_path / "no", "does not exist"), (tmp_path / "file.md", "is a file")):
        with pytest.raises(DefinitionError, match=reason):
            FullTextIndex.load(path)
    with pytest.raises(DefinitionError, match="hold no text"):
        FullTextIndex.load(tmp_path)


async def test_unreadable_file_is_told(tmp_path: Path) -> None:
    """A file that is not UTF-8 is named, with the byte."""
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DefinitionError, match=r"latin\.txt is not UTF-8 text \(byte 3\)"):
        FullTextIndex.load(tmp_path)
