"""Files and folders as documents: every format, every encoding, and a word on whatever is not read."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentrt.errors import DefinitionError
from agentrt.index.document import Document
from agentrt.index.loading import Loading, load
from tests.index.pdfs import pdf, pdf_of_streams

Write: TypeAlias = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


def one(file: Path) -> Document:
    loading = load(file)
    (document,) = loading
    assert [p for p in loading.problems if p.lost] == []
    return document


def problems(path: Path, **options: float) -> list[str]:
    loading = Loading(path, **options)  # type: ignore[arg-type]
    list(loading)
    return [str(p) for p in loading.problems]


@pytest.mark.parametrize(
    ("name", "content", "title", "text", "kind"),
    [
        ("a.txt", "plain\n", "a", "plain\n", "text"),
        ("a.md", "x\n\n## The *Zura* ##\n", "The *Zura*", "x\n\n## The *Zura* ##\n", "markdown"),
        ("a.md", "no heading", "a", "no heading", "markdown"),
        ("a.md", "```\n# no\n```\nYes\n===", "Yes", "```\n# no\n```\nYes\n===", "markdown"),
        ("a.HTM", "<title>T</title><p>b<nav>c", "T", "b", "html"),
        ("a.html", "<p>b", "a", "b", "html"),
    ],
)
def test_a_file_is_a_document(write: Write, name: str, content: str, title: str, text: str, kind: str) -> None:
    """Titled by what it says itself, else by its name."""
    assert one(write(name, content)) == Document(source=name, text=text, title=title, metadata={"format": kind})


def test_a_pdf_keeps_its_pages(write: Write) -> None:
    """They are a form feed apart."""
    document = one(write("a.pdf", pdf(["First page.", "Second page."], title="On eels")))
    assert (document.title, document.text.split("\f")) == ("On eels", ["First page.", "Second page."])


def test_rows_are_documents(write: Write) -> None:
    """Named by their id or their line, with their short fields as metadata."""
    file = write("a.csv", 'id,name,fee\nz,"Zura\nInn",74\n\n,Pell House,62\n')
    first, second = load(file)
    assert first == Document(
        source="a.csv:z",
        text="id: z\nname: Zura\nInn\nfee: 74",
        metadata={"name": "Zura\nInn", "fee": 74, "format": "csv", "line": 2},
    )
    assert (second.source, second.text) == ("a.csv:5", "name: Pell House\nfee: 62")


def test_names_of_fields_that_are_taken_get_a_number(write: Write) -> None:
    """So that nothing is written over; it is told once for a file."""
    rows = load(write("a.csv", "fee,fee,format,text\n1,2,3,x\n4,5,6,y\n"))
    assert [d.metadata for d in rows] == [
        {"fee": 1, "fee 2": 2, "format 2": 3, "format": "csv", "line": 2},
        {"fee": 4, "fee 2": 5, "format 2": 6, "format": "csv", "line": 3},
    ]
    assert [str(p) for p in rows.problems] == [
        "a.csv: the field 'fee' is called 'fee 2': the name is taken",
        "a.csv: the field 'format' is called 'format 2': the name is taken",
    ]
    lines = load(write("b.jsonl", '{"text": "x", "line": 7}\n{"text": "y", "line": 8}\n'))
    assert [d.metadata["line 2"] for d in lines] == [7, 8]
    assert [str(p) for p in lines.problems] == ["b.jsonl: the field 'line' is called 'line 2': the name is taken"]


@pytest.mark.parametrize("begin", ["\n\r\n \na;b\n", "sep=;\na;b\n", '"a";b\n', "\nsep=;\r\na;b\n"])
def test_the_header_is_found(write: Write, begin: str) -> None:
    """After empty lines, and after the line in which Excel names the delimiter."""
    (document,) = load(write("a.csv", begin + "1,5;x\n"))
    assert document.metadata == {"a": "1,5", "b": "x", "format": "csv", "line": begin.count("\n") + 1}


def test_a_delimiter_within_quotes_is_none(write: Write) -> None:
    """Of the header."""
    assert one(write("a.csv", '"a;b;c",d\n1,2\n')).text == "a;b;c: 1\nd: 2"


@pytest.mark.parametrize("after", ["", 'z,"5"\n'])
def test_a_quote_that_is_not_closed_takes_its_own_line(write: Write, after: str) -> None:
    """What comes after it is read."""
    loading = load(write("a.csv", f'a,b\n1,2\n3,"four\n5,6\n7,8\n{after}'))
    assert [d.source for d in loading] == ["a.csv:2", "a.csv:4", "a.csv:5"] + ["a.csv:6"] * bool(after)
    assert [p.place for p in loading.problems] == ["line 3"]


def test_a_long_field_is_one(write: Write) -> None:
    """The csv module's limit is 131,072 characters."""
    (long, short) = load(write("a.csv", 'text\n"' + "word\n" * 40_000 + '"\nfine\n'))
    assert (len(long.text), short.text, short.source) == (200_000, "fine", "a.csv:40003")


def test_a_quote_is_not_looked_for_without_end(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has five million characters at most."""
    monkeypatch.setattr("agentrt.index.table._LONGEST", 20)
    loading = load(write("a.csv", 'a\n"open\n' + "x\n" * 30 + '"\n'))
    assert len(list(loading)) == 30
    assert [p.place for p in loading.problems] == ["line 2", "line 33"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_header(write: Write, delimiter: str) -> None:
    """Whatever the file is called."""
    (document,) = load(
        write(
            "a.csv",
            f"a{delimiter}text\n1,5;3|2{delimiter}b\n" if delimiter == "\t" else f"a{delimiter}text\n15{delimiter}b\n",
        )
    )
    assert document.text == "b"


def test_lines_of_json_are_documents(write: Write) -> None:
    """Their text is the field of that name, else all of them; what is null is not said."""
    file = write("a.jsonl", '{"_id": 7, "title": "T", "text": "x", "year": 2024}\n\n"alone"\n{"a": [1], "b": null}\n')
    assert [(d.source, d.title, d.text) for d in load(file)] == [
        ("a.jsonl:7", "T", "x"),
        ("a.jsonl:3", "", "alone"),
        ("a.jsonl:4", "", "a: [1]"),
    ]
    assert next(iter(load(file))).metadata == {"year": 2024, "format": "jsonl", "line": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.jsonl", "a.csv"])
def test_marked_encodings_are_read(write: Write, encoding: str, name: str) -> None:
    """The mark is no part of the text."""
    text = "näïve – 漢字"
    content = {"a.jsonl": f'{{"text": "{text}"}}', "a.csv": f"text\n{text}\n"}.get(name, text)
    assert one(write(name, content.encode(encoding))).text == text


def test_other_encodings_are_guessed_and_told(write: Write) -> None:
    """Text that is not UTF-8 is read, and the guess is no loss."""
    text = "Der Müller aß Äpfel über den Dächern, während die Gäste fröhlich schließen ließen. " * 5
    loading = load(write("a.txt", text.encode("cp1252")))
    assert [d.text for d in loading] == [text]
    (problem,) = loading.problems
    assert (problem.lost, "it is not UTF-8; read as" in problem.why) == (False, True)


def test_the_encoding_that_a_page_declares_is_believed(write: Write) -> None:
    """Where it can be."""
    html = "<meta charset='iso-8859-2'><p>żółw"
    assert one(write("a.html", html.encode("iso-8859-2"))).text == "żółw"
    assert one(write("b.html", html.replace("iso-8859-2", "nonsense").encode())).text == "żółw"


@pytest.mark.parametrize(
    "charset", ["hex", "rot13", "zlib", "base64", "undefined", "punycode", "idna", "utf-16", "utf-7", "unicode_escape"]
)
def test_what_a_page_cannot_be_in_is_not_believed(write: Write, charset: str) -> None:
    """What makes no text of bytes, or another text of the very bytes that declare it."""
    assert one(write("a.html", f"<meta charset={charset}><p>żółw + 1\\n")).text == "żółw + 1\\n"


def test_a_folder_is_read_in_order(write: Write, tmp_path: Path) -> None:
    """Recursively; documents are named by where they lie in it."""
    for name in ("b.txt", "a/c.txt", "a/b.md"):
        write(name, "x")
    loading = load(tmp_path)
    assert [d.source for d in loading] == ["b.txt", "a/b.md", "a/c.txt"]
    assert (loading.files, loading.problems) == (3, [])


def test_what_is_left_out_is_told(write: Write, tmp_path: Path) -> None:
    """Hidden and unknown files, packed ones, links out of the folder or to folders, and empty ones."""
    for name in (".hidden.txt", ".git/a.txt", "a.exe", "b.txt.gz", "c", "empty.md"):
        write(f"in/{name}", "" if name == "empty.md" else "x")
    outside = write("outside.txt", "secret")
    (tmp_path / "in/out.txt").symlink_to(outside)
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/env.txt").symlink_to(".hidden.txt")
    (tmp_path / "in/git.txt").symlink_to(".git/a.txt")
    (tmp_path / "in/self.txt").symlink_to("self.txt")
    os.mkfifo(tmp_path / "in/pipe.txt")
    told = problems(tmp_path / "in")
    assert [t.partition(":")[0] for t in told] == [
        ".git/", "loop/", ".hidden.txt", "a.exe", "b.txt.gz", "c", "empty.md", "env.txt", "git.txt", "out.txt",
        "pipe.txt", "self.txt",
    ]  # fmt: skip
    assert "unpack it first" in told[4]
    assert told[7:10] == [
        "env.txt: it is a link to what is hidden",
        "git.txt: it is a link to what is hidden",
        "out.txt: it is a link that leads out of the folder",
    ]


def test_names_that_are_no_unicode_are_told_apart(tmp_path: Path) -> None:
    """Their odd bytes are written as numbers."""
    for name in (b"\xfe.txt", b"\xff.txt", b"\xff.exe"):
        (tmp_path / os.fsdecode(name)).write_text("x")
    loading = load(tmp_path)
    assert [d.source for d in loading] == ["\\xfe.txt", "\\xff.txt"]
    assert [p.source for p in loading.problems] == ["\\xff.exe"]


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a file below 1,050 folders, and then two trees of them, so that whatever tidies up can remove them."""
    monkeypatch.chdir(tmp_path)
    for _ in range(1050):
        os.mkdir("d")
        os.chdir("d")
    Path("a.txt").write_text("x")
    yield
    os.chdir(tmp_path)
    Path(*["d"] * 525).rename("e")


@pytest.mark.usefixtures("deep")
def test_no_folder_is_too_deep(tmp_path: Path) -> None:
    """All below it are read."""
    assert [d.source for d in load(tmp_path)] == ["d/" * 1050 + "a.txt"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"a\0b", "a.txt: it is no text: there are NUL bytes in it"),
        ("a.csv", b"a,b\n1\n1,2\n", "a.csv, line 2: 1 fields under 2 columns"),
        ("a.csv", b'a,b\n1,"x\ny"\n"x\ny"\n', "a.csv, lines 4 to 5: 1 fields under 2 columns"),
        ("a.csv", b'a\n"x"y\n', "a.csv, line 2: ',' expected after '\"'"),
        ("a.csv", b'"a\nx\n', "a.csv: without its header no row is read"),
        ("a.jsonl", b'{"text": "x", "n": NaN}', "a.jsonl, line 1: 'n' is no number that can be kept: it is left out"),
        ("a.jsonl", b'{"n": 1e999}', "a.jsonl, line 1: 'n' is no number"),
        ("a.jsonl", b'{"n": -9223372036854775809}', "a.jsonl, line 1: 'n' is no number"),
        ("a.jsonl", rb'{"id": "\ud800", "text": "x"}' b"\n" rb'{"id": "\ud801", "text": "x"}', "a.jsonl:"),
        ("a.jsonl", b'{"text": "x"}\n{]\n', "a.jsonl, line 2: no JSON: "),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: neither an object nor a text"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "a.jsonl, line 1: no JSON: "),
        ("a.jsonl", b'{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}', "a.jsonl:1: a document of this name was read"),
        ("a.pdf", b"no PDF at all", "a.pdf: "),
        ("a.pdf", pdf(["", "x"]), "a.pdf, page 1: there is no text on it"),
        ("a.pdf", pdf([""]), "a.pdf: there is no text on its pages"),
        ("a.pdf", pdf_of_streams([b"BT (x) Tj ET"], kids="2 0 R"), "a.pdf: "),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(write: Write, name: str, content: bytes, told: str) -> None:
    """And the rest goes on."""
    write(f"in/{name}", content)
    write("in/z.txt", "fine")
    loading = load(write("in/zz.txt", "too").parent)
    assert [d.source for d in loading][-2:] == ["z.txt", "zz.txt"]
    assert any(str(p).startswith(told) for p in loading.problems), loading.problems


@pytest.mark.slow
def test_a_pdf_that_unpacks_to_gigabytes_is_given_up(write: Write) -> None:
    """Its packed stream is not unpacked beyond a limit."""
    bomb = pdf_of_streams([b" " * 100_000_000])
    assert len(bomb) < 200_000
    assert problems(write("a.pdf", bomb), seconds=5)


@pytest.mark.slow
def test_a_page_that_unpacks_to_too_much_is_told(write: Write) -> None:
    """Not as one without text, which would be taken for a picture."""
    bomb = pdf_of_streams([b"BT /F1 12 Tf (A) Tj ET\n" * 4_000_000])
    (found,) = problems(write("a.pdf", bomb), seconds=5)
    reason = "it unpacks to more than is read of a page: Limit reached while decompressing"
    assert found.startswith(f"a.pdf: page 1 cannot be read: {reason}")


def test_a_pdf_that_takes_too_long_is_given_up(write: Write) -> None:
    """Its process is ended."""
    slow = pdf_of_streams([b"BT /F1 12 Tf " + b"(x) Tj 1 0 Td " * 1_000_000 + b"ET"])
    assert problems(write("a.pdf", slow), seconds=0.3) == ["a.pdf: it takes more than 0.3 s"]


def test_large_files_are_left_out_unless_they_are_read_by_line(write: Write) -> None:
    """Their bytes are counted before they are read."""
    assert problems(write("a.txt", "x" * 11), largest=10) == ["a.txt: it has 11 bytes, more than 10"]
    assert problems(write("a.jsonl", '{"text": "xxxxxxxx"}'), largest=10) == []


def test_a_line_that_is_too_long_ends_its_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no line takes all memory; those before it are read."""
    monkeypatch.setattr("agentrt.index.loading._LONGEST_LINE", 20)
    loading = load(write("a.jsonl", '{"text": "x"}\n{"text": "0123456789"}\n{"text": "y"}\n'))
    assert [d.text for d in loading] == ["x"]
    assert [str(p) for p in loading.problems] == [
        "a.jsonl: line 2 has more than 20 characters: it and the rest are not read"
    ]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    """Is a mistake of whoever named it."""
    with pytest.raises(DefinitionError, match="does not exist"):
        list(load(tmp_path / "nowhere"))


def test_documents_are_loaded_one_at_a_time(write: Write, tmp_path: Path) -> None:
    """A file is opened when its turn comes."""
    write("a.jsonl", '{"text": "x"}\n')
    later = write("b.txt", "x")
    loading = load(tmp_path)
    documents = iter(loading)
    assert next(documents).source == "a.jsonl:1"
    later.unlink()
    assert list(documents) == []
    assert [str(p) for p in loading.problems] == ["b.txt: it is no ordinary file"]


def test_documents_of_several_roots_have_names_of_their_own(write: Write, tmp_path: Path) -> None:
    """By where they lie in the folder that holds all of them, or in the base; what lies in two roots is read once."""
    for name in ("a/x.txt", "a/sub/x.txt", "b/x.txt"):
        write(name, "x")
    a, b = tmp_path / "a", tmp_path / "b"
    assert [d.source for d in load(a, b)] == ["a/x.txt", "a/sub/x.txt", "b/x.txt"]
    assert [d.source for d in load(a / "x.txt", b / "x.txt")] == ["a/x.txt", "b/x.txt"]
    assert [d.source for d in load(a / "sub", a)] == ["x.txt", "sub/x.txt"]
    assert [d.source for d in Loading(b, base=a)] == ["../b/x.txt"]
    write("b/y.exe", "x")
    assert problems(b) == ["y.exe: files of type .exe are not read"]
    loading = load(a, b)
    assert len(list(loading)) == 3
    assert [p.source for p in loading.problems] == ["b/y.exe"]


def test_what_could_not_be_read_is_not_gone(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file, with its rows, nor what is in a folder; what is empty or left out is."""
    for name, text in (("a.csv", "a\0"), ("b.txt", ""), ("sub/c.txt", "x"), ("d.exe", "x")):
        write(name, text)
    monkeypatch.setattr("os.listdir", refusing(os.listdir, tmp_path / "sub"))
    loading = load(tmp_path)
    assert list(loading) == []
    sources = ("a.csv:7", "a.csv", "a.csv2", "b.txt", "sub/c.txt", "subway.txt", "d.exe")
    assert [s for s in sources if loading.is_gone(s)] == ["a.csv2", "b.txt", "subway.txt", "d.exe"]
    monkeypatch.setattr("os.listdir", refusing(os.listdir, tmp_path))
    assert list(loading) == []
    assert not loading.is_gone("anything")


def refusing(listdir: Callable[[str], Any], folder: Path) -> Callable[[str], Any]:
    """Return a listdir that may not read a folder; root may read all."""

    def refuse(path: str) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    return refuse
