"""Indexes are real ones here, in real time: servers and other processes do not know of virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentrt.index import PostgresIndex, SqliteIndex, StoredIndex

Open: TypeAlias = Callable[..., Awaitable[StoredIndex]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Return what opens the index of this test, again and again."""
    async with AsyncExitStack() as closing:
        if request.param == "postgres":
            server = request.getfixturevalue("server")
            server.sql("DROP SCHEMA IF EXISTS agentrt_index CASCADE")

        async def opened(**options: Any) -> StoredIndex:
            index: StoredIndex
            options.setdefault("make", True)
            if request.param == "postgres":
                index = await PostgresIndex.open(server.url, **options)
            else:
                index = SqliteIndex(tmp_path / "index.db", **options)
            closing.push_async_callback(index.aclose)
            return index

        yield opened
