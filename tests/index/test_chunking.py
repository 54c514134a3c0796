"""Passages: where documents are cut, and that nothing of them is lost."""

import itertools
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrt.errors import DefinitionError
from agentrt.index.chunking import Chunker
from agentrt.index.document import Document
from agentrt.index.quality import flaw
from agentrt.index.script import count_words
from agentrt.index.structure import blocks
from agentrt.retrieval import Passage
from agentrt.stores.fts import read_paragraphs

GUIDE = """# Guide

Welcome to Dorrel.

## Inns

### The Zura Inn

Rooms cost 74 crowns. Breakfast is extra.

It stands above the harbour.

- beds
- baths

### Pell House

    not code

Closed
======

```
# no heading

x = 1
```
"""


def document(text: str, kind: str = "markdown", title: str = "") -> Document:
    return Document(source="d", text=text, title=title, metadata={"format": kind})


def chunks(text: str, size: int = 200, overlap: int = 0, kind: str = "markdown", title: str = "") -> list[Passage]:
    return list(Chunker(size, overlap)(document(text, kind, title)))


def test_sections_are_titled_by_the_path_of_headings() -> None:
    """The document's title first, once; a heading is no part of the text."""
    assert [(c.title, c.text) for c in chunks(GUIDE, title="Guide")] == [
        ("Guide", "Welcome to Dorrel."),
        ("Guide > Inns > The Zura Inn", GUIDE[GUIDE.index("Rooms") : GUIDE.index("\n\n### Pell")]),
        ("Guide > Inns > Pell House", "not code"),
        ("Guide > Closed", "```\n# no heading\n\nx = 1\n```"),
    ]


def test_a_heading_with_nothing_under_it_is_a_passage() -> None:
    """So that it can be found."""
    assert [(c.title, c.text) for c in chunks("# A\n\n# B\n\n## C")] == [("A", "# A"), ("B > C", "## C")]


def test_plain_text_has_no_headings() -> None:
    """What looks like one is text."""
    assert [c.text for c in chunks("# A\n\nb", kind="text")] == ["# A\n\nb"]


def test_whole_paragraphs_stay_together() -> None:
    """As long as they fit; what does not begins the next passage."""
    assert [c.text for c in chunks("a b. c d.\n\ne f. g h.\n\ni j.", size=6)] == ["a b. c d.", "e f. g h.\n\ni j."]


def test_long_paragraphs_are_cut_between_sentences_then_words() -> None:
    """A sentence that is too long is cut between words, and what has no spaces every 40 characters."""
    assert [c.text for c in chunks('A b "c d." E f! G h.', size=4)] == ['A b "c d."', "E f! G h."]
    assert [c.text for c in chunks("a b c d e f g", size=3)] == ["a b c", "d e f", "g"]
    assert [c.text for c in chunks("x" * 100, size=1)] == ["x" * 40, "x" * 40, "x" * 20]
    assert [c.text for c in chunks("一二三。四五六。", size=3)] == ["一二三。", "四五六。"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two words", 2),
        ("x" * 81, 3),
        ("房间每晚七十四克朗。", 9),
        ("ラジオ、7日", 5),
        ("ห้องพัก", 2),
        ("한국어 두", 2),
        ("  ", 0),
    ],
)
def test_words_are_counted_where_no_spaces_stand_between_them(text: str, words: int) -> None:
    """Each character of Chinese and Japanese, each four of Thai; signs and marks belong to what they follow."""
    assert count_words(text) == words


def test_a_book_without_spaces_is_cut() -> None:
    """Its passages are of as many words as asked."""
    found = chunks("房间每晚七十四克朗。" * 100, size=50)
    assert {len(c.text) for c in found} == {50}


def test_lists_tables_and_code_are_cut_between_lines() -> None:
    """An item with what goes on below it, a row, a line."""
    assert [c.text for c in chunks("- a b\n  c\n- d e\n- f", size=4)] == ["- a b\n  c", "- d e\n- f"[:5], "- f"]
    assert [c.text for c in chunks("a | b\nc | d\ne | f\n", size=6)] == ["a | b\nc | d", "e | f"]
    assert [c.text for c in chunks("```\na = 1. b\nc = 2\n```", size=5)] == ["```\na = 1. b"[:12], "c = 2\n```"]


def test_passages_overlap_by_whole_sentences() -> None:
    """Within a section, never more than asked."""
    text = "A b. C d. E f. G h.\n\n# New\n\nI j."
    assert [c.text for c in chunks(text, size=4, overlap=2)] == ["A b. C d.", "C d. E f.", "E f. G h.", "I j."]
    assert [c.text for c in chunks("A b c. D e f. G h i.", size=6, overlap=2)] == ["A b c. D e f.", "G h i."]


def test_a_passage_is_on_one_page() -> None:
    """However short the pages are: a citation names where it is."""
    found = chunks("one\ftwo\n\nthree\f\ffour", size=9, overlap=2, kind="pdf")
    assert [(c.text, c.metadata["page"]) for c in found] == [("one", 1), ("two\n\nthree", 2), ("four", 4)]
    assert "page" not in chunks("one", kind="text")[0].metadata


def test_what_a_document_is_written_in_is_told_by_its_name() -> None:
    """Where its metadata do not say so."""
    text = "# Top\n\nThe kiln is hot."
    assert [p.title for p in Chunker()(Document(source="a/u.MD", text=text))] == ["Top"]
    assert [p.title for p in Chunker()(Document(source="u", text=text))] == [""]
    plain = Document(source="u.md", text=text, metadata={"format": "text"})
    assert (plain.format, [p.text for p in Chunker()(plain)]) == ("text", [text])


def test_another_measure() -> None:
    """Such as the tokens of an embedder."""
    assert [c.text for c in Chunker(4, 0, len)(document("ab. cd. ef."))] == ["ab.", "cd.", "ef."]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (5, 5), (5, -1)])
def test_sizes_that_make_no_sense(size: int, overlap: int) -> None:
    """Are refused."""
    with pytest.raises(DefinitionError, match="overlap < size"):
        Chunker(size, overlap)


LINES = st.sampled_from(
    ["", " ", "# Head", "## Two three", "Under", "===", "---", "- item one", "1. item", "a | b | c", "| x | y |", "```",
     "````", "~~~", "Some words here. And more! Yes? No", "x" * 90, "\f", "  indented", "一二。四", "é\u2028b", "\x0bq"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(LINES, st.text(max_size=12)), max_size=10).map("\n".join)


@given(TEXTS, st.integers(1, 12), st.integers(0, 8), st.sampled_from(["markdown", "text", "pdf"]))
def test_nothing_is_lost(text: str, size: int, overlap: int, kind: str) -> None:
    """Every passage stands in the text where it says, is no larger than asked, and all that is not space is covered.

    Headings are covered by the titles.
    """
    overlap = min(overlap, size - 1)
    found = chunks(text, size, overlap, kind)
    covered = [c.isspace() for c in text]
    for passage in found:
        assert passage.start is not None
        assert text[passage.start : passage.start + len(passage.text)] == passage.text == passage.text.strip() != ""
        assert count_words(passage.text) <= size + _joints(passage.text)
        covered[passage.start : passage.start + len(passage.text)] = [True] * len(passage.text)
    assert [p.position for p in found] == list(range(len(found)))
    assert all(a.start <= b.start for a, b in itertools.pairwise(found))  # type: ignore[operator]
    titles = " ".join(p.title for p in found)
    left = "".join(" " if c else t for t, c in zip(text, covered, strict=True))
    assert {w.strip("#") for w in left.split()} - {"", *"=-"} <= set(titles.split()) | _underlines(left)


def _joints(text: str) -> int:
    """Count the words that two atoms without space between them may be cut into: 一。二 counts as one."""
    return text.count("。") + text.count("！") + text.count("？")


def _underlines(text: str) -> set[str]:
    return {w for w in text.split() if not w.strip("=") or not w.strip("-")}


@pytest.mark.parametrize("unit", ["# a\n", "```\n", "- ", ". ", "|", "x", "a\n===\n", "`", "* * "])
def test_no_text_takes_long(unit: str) -> None:
    """Time grows with the length alone: what takes its square would take seconds here."""
    begin = time.thread_time()
    list(Chunker()(document(unit * 4_000)))
    assert time.thread_time() - begin < 3


PARTS = st.sampled_from(["# a", "## ", "#", " ", "\t", "-", "=", "`", "~", "|", "1.", ".", '"', "a", "\n", "\r", "。"])
MIX = st.lists(PARTS, max_size=3).map("".join)


@settings(max_examples=15)
@example("# a", " ", "x")
@example("# a", "#", "x")
@example("# a", " #", "x")
@example("a\n", "=", "x")
@given(MIX, PARTS, MIX)
def test_no_line_takes_long(begin: str, unit: str, end: str) -> None:
    """Whatever repeats in it: 4,000 characters take milliseconds, and what takes their square a tenth of a second."""
    text = begin + unit * 4_000 + end

    def seconds() -> float:
        begun = time.thread_time()
        list(blocks(text, markdown=True))
        list(Chunker(10_000, 0)(document(text)))
        flaw(text, least_words=1)
        list(read_paragraphs(text, headings=True))
        return time.thread_time() - begun

    assert any(seconds() < 0.1 for _ in range(3))
