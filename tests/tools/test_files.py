"""Files: everything below a folder, nothing outside it, and only so much at once."""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import agentrt_tools.folder as folder_module
from agentrt import Agent, DefinitionError, InvalidArguments, ModelRequest, Tool, run
from agentrt.messages import ToolMessage
from agentrt.testing import FunctionModel, call
from agentrt.tool import tool_spec
from agentrt_tools import files
from agentrt_tools.folder import FileError, Folder, Place

module = importlib.import_module("agentrt_tools.files")  # the package has the function under this name
SECRET = "the password is 1234"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET)
    folder = tmp_path / "root"
    (folder / "notes/deep").mkdir(parents=True)
    (folder / "plan.md").write_text("# Plan\nSee the inn.\n")
    (folder / "notes/a.md").write_text("An Inn by the harbour\nnothing else\n")
    (folder / "notes/deep/b.txt").write_text("innkeeper\r\ntwo\r\n")
    (folder / ".hidden").write_text("inn")
    return folder


class Tools:
    """Call the tools of a folder by their names."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.all = {t.name: t for t in files(root, **options)}

    def __getattr__(self, name: str) -> Any:
        return self.all[f"files.{name}"]


@pytest.fixture(params=[True, False], ids=["descriptors", "paths"])
def tools(root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Return the tools, as they are where the system opens names in open folders, and where it does not."""
    monkeypatch.setattr(Folder.__init__, "__kwdefaults__", {"hard_links": False, "descriptors": request.param})
    return Tools(root, write=True)


@pytest.fixture
def open_files(tmp_path: Path) -> Iterator[None]:
    """Fail where a test leaves a file or a folder of its own open."""
    yield
    assert not [file for file in held() if file.startswith(str(tmp_path))]


def held() -> Iterator[str]:
    """Yield what this process has open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # whoever had it open has closed it meanwhile
            yield os.readlink(descriptor)


pytestmark = pytest.mark.usefixtures("open_files")


def test_what_is_in_a_folder(tools: Tools) -> None:
    """With sizes; what is below it, where a pattern asks for that; hidden names where it writes the dot."""
    assert tools.list() == "notes/\nplan.md  20 bytes"
    assert tools.list("notes") == "notes/a.md  35 bytes\nnotes/deep/"
    assert tools.list(pattern="*.md") == "notes/a.md  35 bytes\nplan.md  20 bytes"
    assert tools.list(pattern="./.*") == ".hidden  3 bytes"
    assert tools.list("notes/deep", "*.md") == "(nothing)"


def test_a_text_is_read(tools: Tools, root: Path) -> None:
    """Whole if it is short, else piece by piece."""
    assert (
        tools.read("plan.md") == tools.read("./notes//../plan.md".replace("notes//../", "")) == "# Plan\nSee the inn.\n"
    )
    small = Tools(root, most=10)
    assert small.read("plan.md") == "# Plan\n… 13 more characters; pass start=7 to go on"
    assert small.read("plan.md", 7).startswith("See the in")
    (root / "latin.txt").write_bytes(b"caf\xe9")
    assert tools.read("latin.txt") == "caf�"


def test_lines_are_found(tools: Tools) -> None:
    """In any case, wherever the pattern looks, with the place of each."""
    everywhere = "notes/a.md:1: An Inn by the harbour\nnotes/deep/b.txt:1: innkeeper\nplan.md:2: See the inn."
    assert tools.search("inn") == everywhere
    assert tools.search("INN", "notes/*") == "notes/a.md:1: An Inn by the harbour"
    assert tools.search(r"\binn\b", regex=True, pattern="*.md").splitlines() == [
        "notes/a.md:1: An Inn by the harbour",
        "plan.md:2: See the inn.",
    ]
    assert tools.search("keeper$", regex=True) == "notes/deep/b.txt:1: innkeeper"
    assert tools.search("^nothing", regex=True) == "notes/a.md:2: nothing else"
    assert tools.search(r"harbour\s+nothing|inn\.$", regex=True) == "plan.md:2: See the inn."
    assert tools.search("palace") == "(nothing found)"


def test_a_long_line_is_shown_around_what_was_found(tools: Tools, root: Path) -> None:
    """Not whole."""
    (root / "long.txt").write_text("x" * 5_000 + "needle" + "y" * 5_000)
    found = tools.search("needle")
    assert len(found) < 250
    assert found.startswith("long.txt:1: …xxx")
    assert "xneedley" in found
    assert found.endswith("y…")


def test_a_file_is_written(tools: Tools, root: Path) -> None:
    """With the folders it is in; nothing else is left behind, and who may read it stays as it was."""
    assert tools.write("new/folder/c.md", "höher\n") == "new/folder/c.md was made: 6 characters"
    assert (root / "new/folder/c.md").read_bytes() == "höher\n".encode()
    (root / "plan.md").chmod(0o640)
    assert tools.write("plan.md", "") == "plan.md was replaced: 0 characters"
    assert (root / "plan.md").stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(root)) == [".hidden", "new", "notes", "plan.md"]


def test_a_piece_is_replaced_if_it_is_the_only_one(tools: Tools, root: Path) -> None:
    """Else the error says how many there are, and the file stays."""
    assert tools.edit("plan.md", "the inn", "a hotel") == "plan.md was replaced: 20 characters"
    assert (root / "plan.md").read_text() == "# Plan\nSee a hotel.\n"
    (root / "plan.md").write_text("aaa b")
    for old, reason in [("a", "occurs 3 times"), ("aa", "occurs 2 times"), ("c", "does not occur: read the file")]:
        with pytest.raises(FileError, match=reason):
            tools.edit("plan.md", old, "x")
    with pytest.raises(FileError, match=r"lines end with \\r\\n"):
        tools.edit("notes/deep/b.txt", "innkeeper\ntwo", "x")
    with pytest.raises(InvalidArguments, match="old: it is empty"):
        tools.edit("plan.md", "", "x")
    (root / "plan.md").write_text("a" * 100_000)
    with pytest.raises(FileError, match="occurs at least 100 times"):
        tools.edit("plan.md", "a" * 5_000, "x")
    (root / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(FileError, match=r"not UTF-8 text \(byte 3\)"):
        tools.edit("latin.txt", "caf", "x")
    assert (root / "plan.md").read_text() == "a" * 100_000


def test_edits_side_by_side_are_all_kept(tools: Tools, root: Path) -> None:
    """Each sees what the one before it has left."""
    (root / "list.txt").write_text("".join(f"<{i}>" for i in range(20)))
    threads = [threading.Thread(target=tools.edit, args=("list.txt", f"<{i}>", f"({i})")) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (root / "list.txt").read_text() == "".join(f"({i})" for i in range(20))


OUTSIDE = ["../secret.txt", "notes/../../secret.txt", "/etc/passwd", "//etc/passwd", "notes/../plan.md", "..", "/"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out(tools: Tools, path: str) -> None:
    """Not by `..`, not from the root of the system; neither to read, nor to write, nor to list."""
    for attempt in (tools.read, lambda p: tools.write(p, "x"), lambda p: tools.edit(p, "is", "x"), tools.list):
        with pytest.raises(FileError, match="is not below the folder"):
            attempt(path)


def test_no_link_leads_out(tools: Tools, root: Path) -> None:
    """Links are neither followed, nor written through, nor searched, wherever they lead."""
    (root / "file").symlink_to(root.parent / "secret.txt")
    (root / "up").symlink_to(root.parent)
    (root / "inside").symlink_to(root / "notes")
    (root / "nowhere").symlink_to(root.parent / "new.txt")
    for path in ("file", "up/secret.txt", "inside/a.md", "nowhere"):
        for attempt in (tools.read, lambda p: tools.write(p, "x"), lambda p: tools.edit(p, "is", "x")):
            with pytest.raises(FileError, match="is a link, and links are not followed"):
                attempt(path)
    with pytest.raises(FileError, match="up is a link"):
        tools.list("up")
    assert SECRET not in tools.search("password")
    assert "secret" not in tools.list(pattern="**")
    assert "file  a link, cannot be opened" in tools.list()
    assert (root.parent / "secret.txt").read_text() == SECRET
    assert not (root.parent / "new.txt").exists()


def test_a_link_that_is_swapped_in_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a name and its opening: for the file itself, and for a folder on the way to it."""
    tools = Tools(root, write=True)
    look = Place.status

    def swap(place: Place, name: str) -> os.stat_result:
        status = look(place, name)
        if name == "plan.md":
            (root / "plan.md").unlink()
            (root / "plan.md").symlink_to(root.parent / "secret.txt")
        return status

    monkeypatch.setattr(Place, "status", swap)
    with pytest.raises(FileError, match="is a link"):
        tools.read("plan.md")
    enter = Place.enter

    def swap_after(place: Place, name: str) -> Place:
        entered = enter(place, name)
        (root / "notes").rename(root / "moved")
        (root / "notes").symlink_to(root.parent)
        return entered

    monkeypatch.setattr(Place, "enter", swap_after)
    (root.parent / "a.md").write_text(SECRET)
    assert tools.read("notes/a.md").startswith("An Inn")


def test_without_open_folders_a_folder_is_looked_at_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no link may be a junction, which has another path."""
    monkeypatch.setattr(Folder.__init__, "__kwdefaults__", {"hard_links": False, "descriptors": False})
    tools, look = Tools(root), Place.status
    (root.parent / "a.md").write_text(SECRET)

    def swap(place: Place, name: str) -> os.stat_result:
        status = look(place, name)
        if name == "notes" and not (root / "moved").exists():
            (root / "notes").rename(root / "moved")
            (root / "notes").symlink_to(root.parent)
        return status

    monkeypatch.setattr(Place, "status", swap)
    with pytest.raises(FileError, match="notes is a link"):
        tools.read("notes/a.md")


def test_whoever_swaps_all_the_time_gets_nothing_out(root: Path) -> None:
    """A thread that replaces a folder by a link and back while the tools read and write through it."""
    tools, ends, done = Tools(root, write=True), threading.Event(), set[str]()
    (root.parent / "a.md").write_text(SECRET)
    (root / "aside").mkdir()

    def swap() -> None:
        for n in itertools.count():
            if ends.is_set():
                return
            with suppress(OSError):
                (root / "notes").rename(root / f"aside/{n}")
            with suppress(OSError):
                (root / "notes").symlink_to(root.parent)
            with suppress(OSError):
                (root / "notes").unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(60):
            with suppress(FileError):
                done.add(tools.write("notes/a.md", "An Inn"))
                done.add(tools.read("notes/a.md"))
            done.add(tools.search("password", "notes/*"))
    finally:
        ends.set()
        thread.join()
    assert not any(SECRET in one for one in done)
    assert "notes/a.md was made: 6 characters" in done
    assert (root.parent / "a.md").read_text() == SECRET


def test_what_is_no_regular_file_neither_hangs_nor_is_read(tools: Tools, root: Path) -> None:
    """Pipes, sockets, folders."""
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(root, os.O_RDONLY)  # the path may be too long for a socket's name
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        for path, reason in [("pipe", "no regular file"), ("socket", "no regular file"), ("notes", "a folder")]:
            for attempt in (tools.read, lambda p: tools.write(p, "x")):
                with pytest.raises(FileError, match=f"{path} is {reason}"):
                    attempt(path)
        assert "not searched: 2" in tools.search("no such text")
        assert "pipe  no regular file" in tools.list()


def test_a_pipe_that_is_swapped_in_does_not_hang(tools: Tools, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the opening."""
    look = Place.status

    def swap(place: Place, name: str) -> os.stat_result:
        status = look(place, name)
        (root / "plan.md").unlink()
        os.mkfifo(root / "plan.md")
        return status

    monkeypatch.setattr(Place, "status", swap)
    with pytest.raises(FileError, match="no regular file"):
        tools.read("plan.md")


def test_a_file_of_several_names_is_not_opened(tools: Tools, root: Path) -> None:
    """It may lie outside, unless the developer says otherwise; a new file under its name is another."""
    os.link(root.parent / "secret.txt", root / "same.txt")
    for attempt in (tools.read, lambda p: tools.edit(p, "is", "x")):
        with pytest.raises(FileError, match="hard links"):
            attempt("same.txt")
    assert "1234" not in tools.search("password")
    assert Tools(root, hard_links=True).read("same.txt") == SECRET
    tools.write("same.txt", "new")
    assert (root.parent / "secret.txt").read_text() == SECRET


def test_what_is_too_large_or_no_text_is_told(tools: Tools, root: Path) -> None:
    """And is skipped by a search."""
    (root / "image.png").write_bytes(b"\x89PNG\0password")
    with (root / "huge.log").open("wb") as file:
        file.truncate(folder_module.MOST_BYTES + 1)
    with pytest.raises(FileError, match=r"image.png is not text \(13 bytes\)"):
        tools.read("image.png")
    with pytest.raises(FileError, match=r"huge.log has 5,000,001 bytes, and 5,000,000 are the most"):
        tools.read("huge.log")
    assert tools.search("password").splitlines()[1].startswith("(not searched: 2, being no text, links or larger")
    with pytest.raises(InvalidArguments, match="at most 1,000,000"):
        tools.write("a.txt", "x" * 1_000_001)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing.md", "does not exist: list the folder"),
        ("plan.md/x", "plan.md is a file, and no folder: read it"),
        ("a\0b", "no NUL"),
        ("x" * 1_001, "at most 1,000 characters"),
        ("y" * 300, "too long"),
        ("x/" * 60, "more than 50 folders"),
        ("\ud800", "cannot name a file"),
        ("", "is a folder"),
        (".", "is a folder"),
    ],
)
def test_a_path_of_no_use_is_told(tools: Tools, path: str, reason: str) -> None:
    """With what to do."""
    with pytest.raises(FileError, match=reason):
        tools.read(path)


def test_what_may_only_be_read_is_not_replaced(tools: Tools, root: Path) -> None:
    """Though a folder's owner could."""
    (root / "plan.md").chmod(0o444)
    with pytest.raises(FileError, match="may only be read"):
        tools.write("plan.md", "x")


def test_a_write_that_fails_leaves_what_was_there(tools: Tools, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing beside it."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="the disk is full"):
        tools.write("plan.md", "x")
    assert (root / "plan.md").read_text() == "# Plan\nSee the inn.\n"
    assert sorted(os.listdir(root)) == [".hidden", "notes", "plan.md"]


def test_large_folders_are_looked_at_in_part(tools: Tools, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that is told: too many files, too many bytes, too many lines."""
    monkeypatch.setattr(module, "_MOST_ENTRIES", 3)
    assert tools.list(pattern="**").endswith(
        "(stopped, there are too many files: list a folder below, or use a pattern)"
    )
    assert "(stopped, there are too many files" in tools.search("inn")
    monkeypatch.setattr(module, "_MOST_ENTRIES", 100)
    monkeypatch.setattr(module, "_MOST_SEARCHED", 40)
    assert "(stopped, the files are too large" in tools.search("inn")
    monkeypatch.setattr(module, "_MOST_SEARCHED", 10**6)
    (root / "many.txt").write_text("inn\n" * 600)
    found = Tools(root, most=20_000).search("inn", "many.txt")
    assert "(stopped, there are too many such lines: use a narrower query or pattern)" in found
    assert found.count("many.txt:") == 500
    monkeypatch.setattr(module, "_SECONDS", -1.0)
    assert "(stopped, it takes too long" in tools.search("inn")


def test_a_deep_tree_is_walked_so_far(tools: Tools, root: Path) -> None:
    """No stack and no descriptors run out."""
    deep = root
    for _ in range(120):
        deep = deep / "d"
        deep.mkdir()
    assert tools.list("d", "**").count("\n") == 50


@pytest.mark.parametrize("query", ["(a+)+$", "(a|aa)+$", "(.*)*x", "(a{30}){30}", "(" * 90 + "a" + ")" * 90])
def test_no_expression_takes_long(tools: Tools, root: Path, query: str) -> None:
    """Whatever it would cost an engine that tries all ways."""
    (root / "a.txt").write_text("a" * 200_000 + "!")
    began = time.thread_time()
    tools.search(query, "a.txt", regex=True)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    ("query", "regex", "reason"),
    [
        ("(a", True, r"missing \): \(a: use a simpler expression"),
        ("(a{1000}){1000}", True, "invalid repetition size"),
        (r"(a)\1", True, "invalid escape sequence"),
        ("", False, "say what to find within one line"),
        ("a\nb", False, "within one line"),
    ],
)
def test_a_query_of_no_use_is_told(tools: Tools, query: str, regex: bool, reason: str) -> None:
    """For a model to mend."""
    with pytest.raises(InvalidArguments, match=reason):
        tools.search(query, regex=regex)


def test_a_missing_engine_is_told(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; plain text is searched without it."""
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(DefinitionError, match=r"pip install 'agentrt\[files\]'"):
        tools.search("a", regex=True)
    assert "plan.md" in tools.search("plan")


def test_what_the_tools_are(root: Path, tmp_path: Path) -> None:
    """Names, effects, trust, and what a model is told of them."""
    reading = files(root)
    assert [(t.name, t.effect, t.untrusted) for t in reading] == [
        ("files.list", "read", True),
        ("files.read", "read", True),
        ("files.search", "read", True),
    ]
    both = files(root, write=True, untrusted=False)
    assert [(t.name, t.effect) for t in both[3:]] == [("files.write", "idempotent"), ("files.edit", "unsafe")]
    assert not any(t.untrusted for t in both)
    spec = tool_spec(both[2])
    assert (spec.name, spec.parameters["required"]) == ("files_search", ["query"])
    assert all(p["description"] for t in both for p in tool_spec(t).parameters["properties"].values())
    with pytest.raises(DefinitionError, match="is no folder: make it first"):
        files(tmp_path / "missing")


@pytest.mark.anyio
async def test_an_agent_reads_a_file(root: Path) -> None:
    """And what it may not read it is told of."""

    def say(request: ModelRequest) -> Any:
        told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
        return " | ".join(told) if told else [call("files_read", path=p) for p in ("plan.md", "../secret.txt")]

    tools: list[Tool[..., str]] = files(root)
    result = await run(Agent("reader", model=FunctionModel(say), tools=tools), "go")
    assert "# Plan\nSee the inn.\n" in result.output
    assert "FileError: ../secret.txt is not below the folder" in result.output


def test_edits_by_different_tools_are_all_kept(root: Path) -> None:
    """Those of two agents that each have the folder, or one the folder around it."""
    (root / "notes/c").write_text("".join(f"<{i}>" for i in range(30)))
    editors = [(Tools(root / "notes", write=True), "c"), (Tools(root, write=True), "notes/c")]

    def edit(i: int) -> None:
        tools, path = editors[i % 2]
        tools.edit(path, f"<{i}>", f"[{i}]")

    threads = [threading.Thread(target=edit, args=(i,)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "<" not in (root / "notes/c").read_text()


def test_several_folders_have_tools_of_their_own(root: Path) -> None:
    """Under names of their own; without, both are named where the agent is made."""
    tools = [*files(root), *files(root / "notes", name="notes", write=True)]
    assert [t.name for t in tools][3:] == ["notes.list", "notes.read", "notes.search", "notes.write", "notes.edit"]
    Agent("clerk", tools=tools)
    with pytest.raises(DefinitionError, match=r"two tools named 'files\.list': give one of them another name="):
        Agent("clerk", tools=[*files(root), *files(root / "notes")])


def test_a_large_file_is_edited(tools: Tools, root: Path) -> None:
    """If it gets no larger; what is said otherwise speaks of the file."""
    (root / "large").write_text("x" * 1_000_000 + "inn")
    assert tools.edit("large", "inn", "out") == "large was replaced: 1,000,003 characters"
    with pytest.raises(FileError, match=r"large was not changed: it would have 1,000,004 characters, at most"):
        tools.edit("large", "out", "outs")


@pytest.mark.parametrize("pattern", ["../*", "notes/../*", "*.{md,txt}", "notes/{a,b}.md"])
def test_a_pattern_that_fits_nothing_is_told(tools: Tools, pattern: str) -> None:
    """With what to write instead."""
    with pytest.raises(InvalidArguments, match=r"leave out \.\.|\{a,b\} is not known here.*ask once for each"):
        tools.list(".", pattern)


def test_how_to_write_a_path_is_told(tools: Tools, root: Path) -> None:
    """One from the system's root, though it is in the folder, and one of a file where a folder is wanted."""
    with pytest.raises(FileError, match=r"write it from the folder on: notes/a\.md"):
        tools.read(str(root / "notes/a.md"))
    with pytest.raises(FileError, match="is not below the folder"):
        tools.read(str(root / "../secret.txt"))
    with pytest.raises(FileError, match=r"plan\.md is a file, and no folder: read it"):
        tools.list("plan.md")


def test_what_a_folder_holds_is_named_as_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "plan.md").write_text("plan")
    listing, reading, _ = files(tmp_path)
    for folder in ("notes", "./notes/"):
        assert listing(folder) == "notes/plan.md  4 bytes"
    assert reading("notes/plan.md") == "plan"
