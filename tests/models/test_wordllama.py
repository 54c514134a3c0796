"""The embedder in this process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentrt import Retriever, embedder, run
from agentrt.embedding import Embedder
from agentrt.errors import DefinitionError
from agentrt.index import Document, SqliteIndex

pytestmark = pytest.mark.anyio


async def test_vectors_are_of_meaning_and_length_one() -> None:
    """What means the same is near, and every text has a vector: empty ones of no length."""
    given: Embedder = embedder("wordllama")
    vectors = (await given.embed(["a boat on the lake", "ships at sea", "interest rates", "", "\ud800"])).vectors
    assert {len(v) for v in vectors} == {given.dimensions}
    near, far = (sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors[1:3])
    assert near > far + 0.1
    assert [sum(a * a for a in v) for v in vectors[:3]] == pytest.approx([1, 1, 1], abs=1e-4)


async def test_it_costs_nothing() -> None:
    """No token is counted, and a run with it makes no model call."""
    given = embedder("wordllama")
    assert await given.count_tokens(["some words"]) == 0


async def test_an_index_finds_with_it(tmp_path: object) -> None:
    """The index remembers its embedder's name, so that it opens without it."""
    path = f"{tmp_path}/index.db"
    index = SqliteIndex(path, make=True, embedder="wordllama")
    await index.update([Document(source="a", text="The vessel leaves at noon."), Document(source="b", text="Soup.")])
    await index.aclose()
    opened = SqliteIndex(path)
    result = await run(Retriever("guide", opened, k=1), "When does the boat go?")
    assert [p.source for p in result.output] == ["a"]
    await opened.aclose()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed the extra is told its name."""
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(DefinitionError, match=r"agentrt\[retrieval\]"):
        embedder("wordllama")


@pytest.mark.slow  # a process of its own, which imports it anew
def test_other_libraries_log_as_before() -> None:
    """The library sets up the root logger where it is imported; that is undone."""
    program = (
        "import anyio, logging\n"
        "from agentrt.models.wordllama import WordllamaEmbedder\n"
        "anyio.run(WordllamaEmbedder().embed, ['x'])\n"
        "logging.getLogger('httpx').info('not asked for')\n"
        "print(logging.root.handlers, logging.root.level)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[] 30\n", "")
