"""`agentrt index`: from a folder to passages, and what is told on the way."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agentrt.cli.counting import counted
from agentrt.cli.exits import UsageError
from agentrt.cli.index import conditions
from agentrt.index import Document, SqliteIndex
from agentrt.retrieval import Between
from agentrt.testing import run_virtual
from tests.cli.conftest import Complete, Shell, document
from tests.index.embedders import topical


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of notes: two that differ, a copy, a table, and a file that is not read."""
    notes = tmp_path / "notes"
    notes.mkdir()
    texts = {
        "inns.md": "# Inns\n\n## Zura\n\nRooms cost 74 crowns a night.\n\n## Pell\n\nIt opened in 1911.",
        "food.md": "# Food\n\nSmoked trout is eaten with barley bread.",
        "copy.md": "# Food\n\nSmoked trout is eaten with barley bread!",
        "people.csv": "id,name,born\nk,Ismene Tark,1970\no,Odo Brasket,1985\n",
        "boat.exe": "x",
    }
    for name, text in texts.items():
        (notes / name).write_text(text, encoding="utf-8")
    return notes


@pytest.fixture
def built(shell: Shell, folder: Path) -> str:
    """Return an index of the folder, by words alone."""
    assert shell("index", "build", str(folder), "--to", "i.db", "--embedder", "none").exit_code == 0
    return "i.db"


def sources(shell: Shell, index: str, query: str, *options: str) -> list[str]:
    return [p["id"] for p in document(shell("index", "search", index, query, "--json", *options))]


def test_a_folder_is_indexed_and_told_of(shell: Shell, folder: Path) -> None:
    """What was kept and what was not: copies, and files of a type that is not read."""
    result = shell("index", "build", str(folder), "--to", "sub/i.db", "--embedder", "none")
    assert result.exit_code == 0, result.stderr
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["DOCUMENTS", "COUNT", "EXAMPLES"],
        ["kept", "4", "39", "words"],
        ["duplicate", "1", "food.md", "(of", "copy.md)"],
    ]
    assert "4 files read; documents: 4 added; 0 passages embedded" in result.stderr
    assert "boat.exe: files of type .exe are not read" in result.stderr


def test_many_problems_are_told_by_reason(shell: Shell, folder: Path) -> None:
    """And each of them in the report."""
    for i in range(12):
        (folder / f"{i:02}.png").write_bytes(b"x")
    result = shell("index", "build", str(folder), "--to", "i.db", "--embedder", "none")
    assert "00.png, 01.png, 02.png and 9 more: files of type .png are not read" in result.stderr
    assert "09.png" in shell("index", "report", "i.db").stderr


def test_passages_are_found(shell: Shell, built: str) -> None:
    """With their source, the path of headings above them, and where they begin."""
    result = shell("index", "search", built, "what do rooms cost?", "-k", "1")
    assert result.stdout.startswith("1. inns.md#0  Inns > Zura  ")
    assert "Rooms cost 74 crowns a night." in result.stdout
    (found,) = document(shell("index", "search", built, "1911", "--json"))
    assert (found["source"], found["start"], found["text"]) == ("inns.md", 57, "It opened in 1911.")
    assert shell("index", "search", built, "xylophone").stderr == "nothing fits\n"


def test_metadata_is_looked_up(shell: Shell, built: str) -> None:
    """Numbers of tables are numbers."""
    assert sources(shell, built, "Ismene Odo", "--where", "born=1980..") == ["people.csv:o#0"]
    assert sources(shell, built, "Ismene Odo", "--where", "born=[1970, 1971]", "--where", "format=csv") == [
        "people.csv:k#0"
    ]


def test_what_has_changed_is_brought_up_to_date(shell: Shell, folder: Path, built: str) -> None:
    """What is gone is removed by build, and kept by add."""
    (folder / "copy.md").unlink()
    (folder / "inns.md").write_text("The inn is closed.", encoding="utf-8")
    added = document(shell("index", "add", str(folder), "--to", built, "--json"))
    assert added["changes"] == {"added": 1, "changed": 1, "removed": 0, "unchanged": 2, "embedded": 0}
    rebuilt = document(shell("index", "build", str(folder), "--to", built, "--json"))
    assert rebuilt["changes"] == {"added": 0, "changed": 0, "removed": 1, "unchanged": 4, "embedded": 0}


def test_documents_of_two_folders_are_told_apart(shell: Shell) -> None:
    """By the names of the folders; what is added keeps its name when all is built again, from wherever that is."""
    for name in ("a", "b", "c"):
        Path(name).mkdir()
        Path(name, "readme.md").write_text(f"The text of {name}.", encoding="utf-8")
    shell("index", "build", "a", "b", "--to", "ab.db", "--embedder", "none")
    assert sorted(sources(shell, "ab.db", "text")) == ["a/readme.md#0", "b/readme.md#0"]
    shell("index", "build", "a", "--to", "i.db", "--embedder", "none")
    assert shell("index", "add", "b/readme.md", "--to", "i.db").exit_code == 0
    assert sorted(sources(shell, "i.db", "text")) == ["../b/readme.md#0", "readme.md#0"]
    assert document(shell("index", "build", "b/readme.md", "a", "--to", "i.db", "--json"))["changes"]["unchanged"] == 2


def test_what_was_built_from_elsewhere_is_kept(shell: Shell, folder: Path, built: str) -> None:
    """Until somebody says that it is to be removed; a folder that moves with its index is the same."""
    (folder / "sub").mkdir()
    (folder / "sub" / "eel.md").write_text("Eels live here.", encoding="utf-8")
    added = document(shell("index", "add", "notes/sub", "--to", built, "--json"))
    assert (added["changes"]["added"], sources(shell, built, "eels")) == (1, ["sub/eel.md#0"])
    refused = shell("index", "build", "notes/sub", "--to", built)
    assert (refused.exit_code, f"i.db was built from {folder}, and not from {folder}/sub" in refused.stderr) == (
        2,
        True,
    )
    assert document(shell("index", "build", "notes", "--to", built, "--json"))["changes"]["unchanged"] == 5
    Path("moved").mkdir()
    for name in ("i.db", "notes"):
        Path(name).rename(Path("moved", name))
    rebuilt = shell("index", "build", "moved/notes", "--to", "moved/i.db", "--json")
    assert document(rebuilt)["changes"]["unchanged"] == 5
    replaced = shell("index", "build", "moved/notes/sub", "--to", "moved/i.db", "--replace", "--json")
    assert document(replaced)["changes"] == {"added": 1, "changed": 0, "removed": 5, "unchanged": 0, "embedded": 0}


def test_what_was_made_in_code_is_left_alone(shell: Shell, folder: Path) -> None:
    """Nobody knows where its documents come from."""

    async def make() -> None:
        async with SqliteIndex("own.db", make=True) as index:
            await index.update([Document(source="inns.md", text="Of my own.")])

    anyio.run(make)
    for verb, told in (("build", "--replace"), ("add", "choose another file")):
        result = shell("index", verb, str(folder), "--to", "own.db")
        assert (result.exit_code, told in result.stderr) == (2, True), result.stderr
    assert sources(shell, "own.db", "own") == ["inns.md#0"]


def test_what_cannot_be_read_this_time_stays(shell: Shell, folder: Path, built: str) -> None:
    """It is told; what is gone goes."""
    (folder / "inns.md").write_bytes(b"\0")
    (folder / "people.csv").write_bytes(b"\0")
    (folder / "copy.md").unlink()
    (folder / "food.md").unlink()
    (folder / "new.md").write_text("This is new.", encoding="utf-8")
    report = document(shell("index", "build", str(folder), "--to", built, "--json"))
    assert report["changes"] == {"added": 1, "changed": 0, "removed": 1, "unchanged": 0, "embedded": 0}
    assert sources(shell, built, "1911") == ["inns.md#1"]
    assert sources(shell, built, "Ismene") == ["people.csv:k#0"]


def test_an_empty_file_becomes_an_index(shell: Shell, folder: Path) -> None:
    """As one that was not there."""
    Path("i.db").touch()
    assert shell("index", "build", str(folder), "--to", "i.db", "--embedder", "none").exit_code == 0
    assert sources(shell, "i.db", "1911") == ["inns.md#1"]


@pytest.mark.slow  # the embedder takes a second to load
def test_an_embedder_is_kept_and_what_has_none_of_the_words_is_told(shell: Shell, folder: Path) -> None:
    """`none` for an index with vectors is a mistake; so is a search that finds nothing but what is nearest."""
    Path("i.db").touch()
    assert shell("index", "build", str(folder), "--to", "i.db").exit_code == 0
    result = shell("index", "build", str(folder), "--to", "i.db", "--embedder", "none")
    assert (result.exit_code, "i.db has vectors of wordllama" in result.stderr) == (2, True)
    assert "none of them has a word of this" in shell("index", "search", "i.db", "xylophone").stderr
    assert "none of them" not in shell("index", "search", "i.db", "1911").stderr


def test_an_index_with_vectors_of_ones_own(shell: Shell) -> None:
    """By words it can be searched, told of and pruned by whoever has no such embedder."""

    async def make() -> None:
        async with SqliteIndex("own.db", make=True, embedder=topical()) as index:
            await index.update([Document(source="inns.md", text="Of my own.")])

    anyio.run(make)
    assert sources(shell, "own.db", "own", "--mode", "text") == ["inns.md#0"]
    assert "own.db holds 1 document" in shell("index", "report", "own.db").stderr
    assert shell("index", "delete", "own.db", "inns.md", "inns.md").stderr == "1 document removed\n"


def test_without_curation_everything_is_kept(shell: Shell, folder: Path) -> None:
    """Copies, too."""
    command = ["index", "build", str(folder), "--to", "i.db", "--embedder", "none", "--no-curation", "--json"]
    report = document(shell(*command))
    assert (report["changes"]["added"], report["curation"]) == (5, None)


def test_the_report_can_be_read_again(shell: Shell, built: str) -> None:
    """Every problem of it."""
    result = shell("index", "report", built)
    assert "i.db holds 4 documents" in result.stderr
    assert "boat.exe" in result.stderr
    assert "duplicate" in result.stdout
    report = document(shell("index", "report", built, "--json"))
    assert (report["documents"], report["curation"]["left_out"][0]["source"]) == (4, "food.md")


def test_the_report_is_of_all_that_was_read(shell: Shell, folder: Path, built: str) -> None:
    """What is added does not make it forget the rest; what is read again or deleted is told of anew, or not at all."""
    more = folder.parent / "more"
    more.mkdir()
    (more / "x.md").write_text("The smithy of Vell shoes horses.", encoding="utf-8")
    (more / "y.exe").write_text("x")
    shell("index", "add", "more", "--to", built)
    report = document(shell("index", "report", built, "--json"))
    assert (report["documents"], report["curation"]["kept"]["documents"], report["files"]) == (5, 5, 1)
    assert [one["source"] for one in report["curation"]["left_out"]] == ["food.md"]
    assert [p["source"] for p in report["problems"]] == ["boat.exe", "../more/y.exe"]

    (folder / "copy.md").write_text("Nothing like it is there.", encoding="utf-8")
    shell("index", "add", str(folder / "copy.md"), "--to", built)
    shell("index", "delete", built, "../more/", "people.csv")
    report = document(shell("index", "report", built, "--json"))
    assert list(report["curation"]["words"]) == ["inns.md", "copy.md"]
    assert [p["source"] for p in report["problems"]] == ["boat.exe"]


def test_documents_are_deleted(shell: Shell, built: str) -> None:
    """By their name, or that of the file whose records they are; one that is not there is a mistake."""
    assert document(shell("index", "delete", built, "people.csv", "--json"))["removed"] == [
        "people.csv:k",
        "people.csv:o",
    ]
    assert sources(shell, built, "Ismene") == []
    result = shell("index", "delete", built, "inns.md", "nothing.md")
    assert (result.exit_code, "i.db holds no nothing.md" in result.stderr) == (2, True)
    assert sources(shell, built, "1911") == ["inns.md#1"]


def test_mistakes_are_told(shell: Shell, tmp_path: Path, built: str) -> None:
    """In a line, with what to do."""
    (tmp_path / "empty").mkdir()
    for words, told in [
        (["search", "no.db", "x"], "there is no index no.db: agentrt index build FOLDER --to no.db"),
        (["build", "nowhere", "--to", "j.db", "--embedder", "none"], "nowhere does not exist"),
        (["build", "empty", "--to", built], "--replace removes what else it holds, and agentrt index add keeps it"),
        (["build", "empty", "--to", built, "--replace"], "nothing to index in empty"),
        (["build", "notes", "--to", "new/j.db", "--embedder", "wordlama"], "unknown embedder 'wordlama'"),
        (["build", "empty", "--to", "new/j.db", "--embedder", "none"], "nothing to index in empty"),
        (["build", "notes", "--to", built, "--embedder", "wordllama"], "was made without an embedder, not with word"),
        (["build", "notes", "--to", built, "--overlap", "300"], "0 <= overlap < size"),
        (["search", built, "x", "--mode", "vector"], "i.db has no vectors"),
        (["search", built, "x", "--where", "year"], "write NAME=VALUE"),
        (["eval", built], "an index is measured with --queries FILE and --qrels FILE"),
        (["eval", "empty"], "queries.jsonl cannot be read"),
        (["report", "notes/inns.md"], "notes/inns.md"),
    ]:
        result = shell("index", *words)
        assert (result.exit_code, told in result.stderr) == (2, True), (words, result.stderr)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "i.db", "i.db-lock", "notes"]  # nothing was made
    assert sources(shell, built, "1911") == ["inns.md#1"]


def test_why_there_is_nothing_to_index(shell: Shell, tmp_path: Path) -> None:
    """What became of each file, so that nobody looks for them in vain."""
    notes = tmp_path / "some"
    notes.mkdir()
    for name, text in {"a.md": "x", "b.md": "y", "c.md": "", **{f"{i}.exe": "x" for i in range(4)}}.items():
        (notes / name).write_text(text)
    told = shell("index", "build", "some", "--to", "j.db", "--embedder", "none").stderr
    unread = "; ".join(f"{i}.exe: files of type .exe are not read" for i in range(3))
    assert " ".join(told.split()).endswith(
        f"nothing to index in some: 3 files read; 2 left out as too short (a.md); {unread}; 2 more problems"
    )


@pytest.mark.slow  # loading the model takes a second
@pytest.mark.parametrize(("code", "told"), [("EN", "write en"), ("english", "such as en or de")])
def test_a_language_that_is_none_is_told(shell: Shell, folder: Path, code: str, told: str) -> None:
    """Before anything is read."""
    result = shell("index", "build", str(folder), "--to", "j.db", "--language", code)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr


def test_conditions_are_read() -> None:
    """Values are JSON, or text; ranges may be open."""
    assert conditions(["a=1", "b=x=y", 'c=["d", 2]', "e=..3", "f=2020-01..2020-06", "g=true", 'h="../x"']) == {
        "a": 1,
        "b": "x=y",
        "c": ["d", 2],
        "e": Between(most=3),
        "f": Between(least="2020-01", most="2020-06"),
        "g": True,
        "h": "../x",
    }
    for wrong in (["a"], ["=1"], ["a="], ['a={"b": 1}'], ["a=null"], ["a=1..", "a=..2"]):
        with pytest.raises(UsageError):
            conditions(wrong)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Return a collection of three documents and two queries."""
    folder = tmp_path / "collection"
    folder.mkdir()
    words = ("eel", "owl", "fox")
    rows = [f'{{"id": "{w}", "title": "The {w}", "text": "A {w} lives here, with {w}s."}}' for w in words]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "queries.jsonl").write_text(
        '{"id": "1", "text": "an owl"}\n{"id": "2", "text": "badger"}', encoding="utf-8"
    )
    (folder / "qrels.tsv").write_text("query_id\tdoc_id\tgain\n1\towl\t2\n2\tfox\t1\n", encoding="utf-8")
    return folder


def test_a_collection_is_measured(shell: Shell, collection: Path) -> None:
    """On the same passages, with bm25s where it is installed."""
    result = shell("index", "eval", str(collection), "--embedder", "none")
    assert result.exit_code == 0, result.stderr
    ways = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in ways] == ["WAY", "text", "bm25s"]
    assert ways[0][1:] == ["NDCG@10", "RECALL@100", "MRR"]
    assert ways[1][1] == "0.500"
    assert "2 queries" in result.stderr


def test_an_index_is_measured(shell: Shell, collection: Path) -> None:
    """By its documents' sources; where hybrid does not beat the others, that is said."""
    queries, qrels = (str(collection / name) for name in ("queries.jsonl", "qrels.tsv"))
    shell("index", "build", str(collection / "corpus.jsonl"), "--to", "c.db", "--embedder", "none")
    (collection / "qrels.tsv").write_text("q\td\tgain\n1\tcorpus.jsonl:owl\t2\n", encoding="utf-8")
    measured = document(shell("index", "eval", "c.db", "--queries", queries, "--qrels", qrels, "--json"))
    assert measured["ways"]["text"]["MRR"]["mean"] == 1.0
    assert measured["verdicts"] == ["text is not worse than bm25s: nDCG@10 +0.000 [+0.000, +0.000]"]


@pytest.mark.slow  # the embedder takes a second to load
def test_all_ways_are_measured(shell: Shell, collection: Path) -> None:
    """With an embedder there are three, and a verdict on hybrid against each."""
    result = shell("index", "eval", str(collection))
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["WAY", "hybrid", "text", "vector", "bm25s"]
    assert result.stderr.count("hybrid does not clearly beat") >= 1


def test_sources_are_offered(built: str, complete: Complete) -> None:
    """Where documents are deleted; of what is no index, nothing."""
    assert complete(f"agentrt index delete {built} i") == ["inns.md"]
    assert complete("agentrt index delete no.db ") == []


@pytest.mark.parametrize(("quiet", "lines"), [(False, ["reading"] * 2), (True, [])])
def test_progress_is_told_in_a_pipe(capsys: pytest.CaptureFixture[str], quiet: bool, lines: list[str]) -> None:
    """Every five seconds, unless it is not wanted; what the body raises comes out as it is."""

    async def work() -> None:
        async with counted(lambda: "reading", quiet=quiet):
            await anyio.sleep(11)
            raise UsageError("so it is")

    with pytest.raises(UsageError, match="so it is"):
        run_virtual(work)
    assert capsys.readouterr().err.splitlines() == lines
