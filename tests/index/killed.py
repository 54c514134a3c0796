"""An update that kills its own process in the midst of its third batch; `test_sqlite.py` starts it.

python tests/index/killed.py PATH
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence

import anyio

from agentrt.embedding import Vector
from agentrt.index import Document, SqliteIndex
from agentrt.index.changes import Change
from agentrt.index.sqlite_writing import Writing
from tests.index.embedders import topical

BATCH = 20


def documents(n: int) -> list[Document]:
    return [Document(source=f"{i:04}", text=f"word{i} inn", metadata={"i": i}) for i in range(n)]


class Killed(Writing):
    batches = 0

    def __init__(self, connection: object, vectors: Mapping[bytes, Vector]) -> None:
        super().__init__(connection, vectors)  # type: ignore[arg-type]

    def carry_out(self, changes: Sequence[Change]) -> None:
        super().carry_out(changes)
        Killed.batches += 1
        if Killed.batches == 3:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(path: str) -> None:
    import agentrt.index.batches
    import agentrt.index.sqlite

    agentrt.index.sqlite.Writing = Killed  # type: ignore[misc]
    agentrt.index.batches.MOST_PIECES = BATCH  # type: ignore[misc]
    await SqliteIndex(path, make=True, embedder=topical()).update(documents(4 * BATCH))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
