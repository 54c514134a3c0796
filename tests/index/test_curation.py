"""Curation: what is left out, why, and what is not."""

import random
import sys
from collections import Counter

import pytest

from agentrt.errors import DefinitionError
from agentrt.index.boilerplate import Boilerplate
from agentrt.index.curation import Curation, Left, Report
from agentrt.index.document import Document
from agentrt.index.duplicates import Duplicates
from agentrt.index.language import language_detector
from agentrt.index.quality import flaw


def prose(seed: int, words: int = 200) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(words))


def changed(text: str, every: int) -> str:
    """Change one word in so many: with shingles of five, each change takes five of them."""
    return " ".join(f"new{prose(i, 1)}" if i % every == every // 2 else word for i, word in enumerate(text.split()))


def document(source: str, text: str, kind: str = "text") -> Document:
    return Document(source=source, text=text, metadata={"format": kind})


def kept(*documents: Document, **options: object) -> tuple[list[Document], Curation]:
    curation = Curation(**options)  # type: ignore[arg-type]
    return list(curation.curate(documents)), curation


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Two words", "too short"),
        ("房价", "too short"),
        ("房间每晚七十四克朗。", None),
        ("ห้องพักคืนละเจ็ดสิบสี่", None),
        ("1.2 3.4 5.6 7 8", "few letters"),
        ("name 74 12 x", None),
        ("# … " * 60, "few letters"),
        ("see ## and ... then " * 3 + prose(1), None),
        (" ".join(f"{w} …" for w in prose(1).split()), "many symbols"),
        ("\n".join([prose(1, 60), prose(1, 60), prose(2, 60)]), "repeated lines"),
        ("\n".join(f"{prose(i, 20)}\nRead more" for i in range(9)), None),
        ("spam spam " + " spam spam ".join(prose(1).split()[:60]), "repeated words"),
        (f"{prose(1, 60)} {prose(1, 60)}", "repeated passages"),
        (prose(1, 15) + " " + prose(1, 150), None),
        ("```\n" + "}\n" * 200 + "```\n" + prose(1), None),
        ("a | b | c\n" * 200 + "\n" + prose(1), None),
    ],
)
def test_debris_is_told_from_text(text: str, wrong: str | None) -> None:
    """Code and tables repeat themselves, and a title may be said twice."""
    assert flaw(text, least_words=3) == wrong


def test_copies_are_left_out() -> None:
    """Whatever their case, space, names and the signs around words; the first is kept."""
    texts = "The Zura Inn is full.", "the  zura **inn**, is FULL"
    first, second = (Document(source=f"in/{s}.txt", title=s, text=t) for s, t in zip("ab", texts, strict=True))
    _, curation = kept(first, second)
    assert [(o.source, o.reason, o.detail) for o in curation.report.left] == [("in/b.txt", "duplicate", "of in/a.txt")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It costs -5 dollars", "It costs 5 dollars"),
        ("down by 5% then", "down by 5 then"),
        ("written in C#", "written in C"),
        ("is it 1.5 or more", "is it 15 or more"),
        ("a loss of (5) now", "a loss of 5 now"),
        ("it is so?", "it is so"),
    ],
)
def test_signs_that_mean_something_are_read(one: str, other: str) -> None:
    """Those of numbers, and those within words."""
    assert len(kept(document("a", one), document("b", other))[0]) == 2


@pytest.mark.parametrize("text", ["The same text twice.", prose(1, 50)])
@pytest.mark.parametrize(
    ("kind", "titles", "years", "same"),
    [
        ("html", ("T", "T"), (1, 2), True),
        ("html", ("T", "U"), (1, 1), False),
        ("csv", ("T", "T"), (1, 1), True),
        ("csv", ("T", "U"), (1, 1), False),
        ("csv", ("T", "T"), (1, 2), False),
        ("jsonl", ("T", "T"), (1, 2), False),
    ],
)
def test_what_is_said_beside_the_text_counts(
    text: str, kind: str, titles: tuple[str, str], years: tuple[int, int], same: bool
) -> None:
    """A title of its own, and the fields of a record, but for its line."""
    pages = [
        Document(source=f"a:{i}", title=titles[i], text=text, metadata={"year": years[i], "format": kind, "line": i})
        for i in range(2)
    ]
    assert len(kept(*pages)[0]) == 2 - same


@pytest.mark.parametrize("change", [{"74": "75"}, {"74": "-74"}])
def test_texts_that_differ_in_a_number_are_no_copies(change: dict[str, str]) -> None:
    """However much else they have in common."""
    text = f"{prose(1, 100)} costs 74 crowns {prose(2, 100)}"
    ((old, new),) = change.items()
    near = text.replace("costs", "cost")
    found, _ = kept(*(document(t, t) for t in (text, text.replace(old, new), near)))
    assert [d.text for d in found] == [text, text.replace(old, new)]


def test_copies_are_found_where_no_spaces_stand_between_words() -> None:
    """By the runs of their characters."""
    draw = random.Random(1)
    text = "".join(chr(draw.randint(0x4E00, 0x9FFF)) for _ in range(300))
    duplicates = Duplicates()
    duplicates.seen("a", text)
    assert duplicates.seen("b", text[:150] + "一" + text[151:]) is not None
    assert duplicates.seen("c", text[:100] + text[:99:-1]) is None


@pytest.mark.parametrize(("every", "near"), [(100, True), (10, False)])
def test_near_copies_are_left_out(every: int, near: bool) -> None:
    """Of 400 words, 4 changed leave 0.9 of the runs in common; 40 leave a third."""
    found = []
    for seed in range(10):
        duplicates = Duplicates(0.75)
        assert duplicates.seen("a", prose(seed, 400)) is None
        found.append(duplicates.seen("b", changed(prose(seed, 400), every)))
    assert [f is not None for f in found] == [near] * 10


def test_the_similarity_is_about_the_share_of_runs_in_common() -> None:
    """Estimated with 128 permutations; four standard deviations are 0.13."""
    duplicates = Duplicates(0.1)
    text = prose(3, 1000)
    duplicates.seen("a", text)
    found = duplicates.seen("b", changed(text, 100))
    assert found is not None
    assert found[1] == pytest.approx((996 - 50) / (996 + 50), abs=0.1)


def test_different_texts_are_no_duplicates() -> None:
    """None of three hundred."""
    duplicates = Duplicates()
    assert [duplicates.seen(str(i), prose(i, 60)) for i in range(300)] == [None] * 300


def test_lines_in_many_documents_are_blanked() -> None:
    """With as many spaces, so that all else stays where it is; each of them is told."""
    texts = [f"Acme  wiki\n\n{prose(i, 20)}\n  (c) Acme" for i in range(6)]
    found, curation = kept(*(document(str(i), text) for i, text in enumerate(texts)))
    assert [d.text.strip() for d in found] == [prose(i, 20) for i in range(6)]
    assert [len(d.text) for d in found] == [len(t) for t in texts]
    assert curation.report.rows() == [
        ("kept", 6, "120 words"), ("blanked line", 6, "Acme  wiki"), ("blanked line", 6, "(c) Acme"),
    ]  # fmt: skip
    assert curation.report.rows(1)[1:] == [("blanked line", 6, "Acme  wiki"), ("blanked lines", 6, "1 more")]


def test_lines_that_differ_in_a_number_differ() -> None:
    """They are what documents are asked for."""
    texts = [f"Rooms cost {i} crowns a night.\n\n{prose(i, 20)}" for i in range(71, 77)]
    assert len(Boilerplate([document(t, t) for t in texts])) == 0


def test_copies_are_no_boilerplate() -> None:
    """Of five of a text one is kept, whole; and of five that differ in a few lines what they have in common."""
    text = "\n".join(prose(i, 12) for i in range(9))
    other = f"{prose(0, 12)}\n{prose(20, 30)}"
    found, curation = kept(*(document(str(i), text) for i in range(5)), document("other", other))
    assert [d.text for d in found] == [text, other]
    assert [o.reason for o in curation.report.left] == ["duplicate"] * 4
    versions = [document(str(i), f"{text}\n{prose(30 + i, 40)}") for i in range(5)]
    assert [d.text for d in kept(*versions)[0]] == [d.text for d in versions]


def test_an_iterator_is_refused() -> None:
    """It would be used up before the second time."""
    with pytest.raises(DefinitionError, match="twice: give it a Loading or a list"):
        Curation().curate(iter([document("a", "x")]))


@pytest.mark.parametrize(
    ("line", "kind", "documents"),
    [
        ("# Overview", "markdown", 6),
        ("Overview\n---", "markdown", 6),
        ("| Room | Price |\n|---|---|", "markdown", 6),
        ("Room | Price", "html", 6),
        ("```python\nimport os\n```", "markdown", 6),
        ("common: yes", "csv", 6),
        ("(c) Acme", "text", 4),
        ("}", "text", 6),
    ],
)
def test_what_is_no_boilerplate(line: str, kind: str, documents: int) -> None:
    """Headings, tables, code, the fields of records, signs, and lines of fewer than five documents."""
    given = [document(str(i), f"{line}\n\n{prose(i, 20)}", kind) for i in range(documents)]
    assert len(Boilerplate(given)) == 0
    assert [Boilerplate(given).blanked(d) for d in given] == [(d.text, []) for d in given]


@pytest.mark.slow  # loading the model takes a second
@pytest.mark.parametrize(
    "text",
    [
        "- milk\n- eggs\n- bread",
        "Prices: 5, 6, 7, 8 EUR",
        "def f(x):\n    return x+1",
        "Tel 030 1234567",
        "Wifi: blue heron 42",
    ],
)
def test_what_is_in_no_language_for_sure_is_kept(text: str) -> None:
    """And the report counts it."""
    found, curation = kept(document("a", text), language=language_detector("en"), languages=frozenset({"en"}))
    assert ([d.source for d in found], curation.report.unsure) == (["a"], ["a"])
    assert ("kept, language unsure", 1, "a") in curation.report.rows()


def test_curation_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(DefinitionError, match=r"pip install 'agentrt\[curation\]'"):
        kept(document("a", "hello big wide world of boats"))


def test_reports_of_two_readings_are_one() -> None:
    """A later one says more of what both have read; what is removed is forgotten."""
    first = Report({"a": 5, "b": 6}, [Left("c", "too short"), Left("d", "too short")], ["a", "b"], Counter({"x": 1}))
    later = Report({"c": 7}, [Left("b", "duplicate", "of c")], ["c"], Counter({"x": 2}))
    both = first + later
    assert both.kept == {"a": 5, "c": 7}
    assert [(one.source, one.reason) for one in both.left] == [("d", "too short"), ("b", "duplicate")]
    assert (both.unsure, both.lines) == (["a", "c"], {"x": 3})
    assert both.without({"a", "d"}.__contains__) == Report({"c": 7}, later.left, ["c"], Counter({"x": 3}))
    assert Report.read(both.document()) == both


def test_other_languages_are_left_out() -> None:
    """Where languages are named."""
    german = "Die Zimmer kosten vierundsiebzig Kronen für die Nacht, und das Frühstück ist nicht inbegriffen."
    english = "Rooms cost seventy-four crowns for the night, and breakfast is not included in the price."
    documents = document("de", german), document("en", english)
    found, curation = kept(*documents, language=language_detector(), languages=frozenset({"en"}))
    assert [d.source for d in found] == ["en"]
    assert [(o.source, o.reason, o.detail) for o in curation.report.left] == [("de", "another language", "de")]
    assert len(kept(*documents)[0]) == 2


def test_the_report_counts_everything() -> None:
    """As JSON and as a table; each document is kept or left out."""
    texts = [prose(1, 30), prose(1, 30), "x", prose(2, 30), "y"]
    found, curation = kept(*(document(str(i), t) for i, t in enumerate(texts)))
    assert curation.report.rows() == [
        ("kept", 2, "60 words"),
        ("too short", 2, "2, 4"),
        ("duplicate", 1, "1 (of 0)"),
    ]
    report = curation.report.document()
    assert report["kept"] == {"documents": len(found), "words": 60}
    assert report["left_out"][0] == {"source": "1", "reason": "duplicate", "detail": "of 0"}
