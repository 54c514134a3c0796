"""What is special about an index in a file."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
from pathlib import Path

import anyio
import pytest

from agentrt import Query, Retriever, run
from agentrt.errors import DefinitionError, IndexUnavailable, UnknownModel
from agentrt.index import Document, SqliteIndex
from tests.index.embedders import topical
from tests.index.killed import BATCH, documents

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_a_killed_update_leaves_whole_batches(tmp_path: Path) -> None:
    """What was committed is there, of the batch that was being written nothing, and the next update goes on from it."""
    path = tmp_path / "index.db"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(path)]
    done = await anyio.run_process(command, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    embedder = topical()
    index = SqliteIndex(path, embedder=embedder)
    assert len(await index.sources()) == 2 * BATCH
    for i in (0, 2 * BATCH - 1, 2 * BATCH):
        found = await index.search(Query(f"word{i}", where={"i": i}), 1)
        assert [p.source for p in found] == ([f"{i:04}"] if i < 2 * BATCH else [])
    changes = await index.update(documents(4 * BATCH))
    assert (changes.added, changes.unchanged, changes.embedded) == (2 * BATCH, 2 * BATCH, 2 * BATCH)
    await index.aclose()


async def test_other_processes_see_what_is_written(tmp_path: Path) -> None:
    """An index that is open finds what another one has written since, and no longer what it removed."""
    reader, writer = (SqliteIndex(tmp_path / "index.db", make=True, embedder=topical()) for _ in range(2))
    assert await reader.search("ferry", 1) == []
    await writer.update([Document(source="a", text="the ferry")])
    assert [p.source for p in await reader.search("boat", 1)] == ["a"]
    await writer.update([Document(source="b", text="a ship")], prune=True)
    assert [p.source for p in await reader.search("ferry boat", 2)] == ["b"]
    for index in (reader, writer):
        await index.aclose()


async def test_a_refused_file_is_not_kept_open(tmp_path: Path) -> None:
    """However long the error that says so is kept."""
    async with SqliteIndex(tmp_path / "index.db", make=True) as index:
        await index.update([Document(source="a", text="the ferry")])
    files = sorted(os.listdir(tmp_path))
    with pytest.raises(DefinitionError, match="made without an embedder") as raised:
        SqliteIndex(tmp_path / "index.db", embedder=topical())
    assert sorted(os.listdir(tmp_path)) == files, raised


async def test_a_retriever_searches_in_virtual_time(tmp_path: Path) -> None:
    """A search in a thread is waited for, whatever the clock."""
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=topical())
    await index.update([Document(source="a", text="the ferry", metadata={"year": 1})])
    result = await run(Retriever("guide", index, where={"year": 1}), "boat")
    assert [p.source for p in result.output] == ["a"]
    assert await run(Retriever("guide", index, where={"year": 2}), "boat") is not None
    await index.aclose()


async def test_text_needs_no_vector(tmp_path: Path) -> None:
    """An index searched by words alone asks no embedder."""
    embedder = topical()
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=embedder)
    await index.update([Document(source="a", text="the ferry")])
    words = SqliteIndex(tmp_path / "index.db", make=True, embedder=embedder, mode="text")
    embedder.asked.clear()
    assert (await run(Retriever("guide", words), "ferry")).usage.steps == 1
    assert embedder.asked == []
    for opened in (index, words):
        await opened.aclose()


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    """A database of somebody else, and a file that is none, are refused and not written to."""
    database, text = tmp_path / "runs.db", tmp_path / "notes.txt"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE notes (text)")
    connection.commit()
    connection.close()
    text.write_text("some notes, long enough not to be taken for an empty file" * 20)
    for path, reason in ((database, "no index of agentrt"), (text, "no index")):
        before = path.read_bytes()
        with pytest.raises(DefinitionError, match=reason):
            SqliteIndex(path)
        assert path.read_bytes() == before


async def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """Damage is told with the file's name and what to do."""
    path = tmp_path / "index.db"
    index = SqliteIndex(path, make=True, embedder=topical())
    await index.update(documents(300))
    await index.aclose()
    data = bytearray(path.read_bytes())
    data[8192:] = random.Random(1).randbytes(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(DefinitionError, match=r"index\.db: the file is damaged: move it away"):
        await SqliteIndex(path, embedder=topical()).search("inn word7", 3)


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """What a newer version made is not guessed at."""
    path = tmp_path / "index.db"
    await SqliteIndex(path, make=True).aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(DefinitionError, match="newer agentrt"):
        SqliteIndex(path)


def test_an_index_is_made_only_where_that_is_asked_for(tmp_path: Path) -> None:
    """A mistyped name is told, not made; neither does a mistyped embedder leave a file."""
    path = tmp_path / "index.db"
    with pytest.raises(
        DefinitionError, match=r"there is no index .*index\.db: make it with SqliteIndex\(…, make=True\)"
    ):
        SqliteIndex(path)
    with pytest.raises(UnknownModel, match="unknown embedder 'wordlama'"):
        SqliteIndex(path, make=True, embedder="wordlama")
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """Not even by an index that was open before."""
    path = tmp_path / "index.db"
    index = SqliteIndex(path, make=True)
    await index.aclose()
    index = SqliteIndex(path)
    index._file._idle.pop().close()
    path.unlink()
    with pytest.raises(DefinitionError, match="cannot be opened"):
        await index.sources()
    assert not path.exists()


async def test_an_index_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is searched all the same, and nothing is put beside it."""
    path = tmp_path / "in dex?.db"
    async with SqliteIndex(path, make=True) as index:
        await index.update(documents(10))
        assert f"{path.name}-shm" in os.listdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    async with SqliteIndex(path) as index:
        assert [p.source for p in await index.search("word7", 1)] == ["0007"]
        assert sorted(os.listdir(tmp_path)) == before
        with pytest.raises(IndexUnavailable, match="may not be written"):
            await index.write_note("a", "b")


def test_a_place_that_cannot_be_opened(tmp_path: Path) -> None:
    """A folder that does not exist is told as such."""
    with pytest.raises(DefinitionError, match="its folder exists"):
        SqliteIndex(tmp_path / "nowhere" / "index.db", make=True)


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """What cannot be written now is no fault of the definition, and changes nothing."""
    index = SqliteIndex(tmp_path / "index.db", make=True)
    await index.update(documents(10))
    with index._file.connected() as connection:
        pages = connection.execute("PRAGMA page_count").fetchall()[0][0]
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(IndexUnavailable, match="the disk is full"):
        await index.update(documents(2000))
    assert len(await index.sources()) == 10
    await index.aclose()


async def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    """Where nobody may be kept from writing, nobody writes."""
    index = SqliteIndex(tmp_path / "index.db", make=True)
    (tmp_path / "index.db-lock").mkdir()
    with pytest.raises(IndexUnavailable, match="-lock cannot be made"):
        await index.update(documents(1))
    await index.aclose()


def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who has not installed the extra is told its name."""
    monkeypatch.setitem(sys.modules, "apsw", None)
    with pytest.raises(DefinitionError, match=r"agentrt\[retrieval\]"):
        SqliteIndex(tmp_path / "index.db", make=True)
