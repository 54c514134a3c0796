"""Stores are real ones here, in real time: other processes do not know of virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agentrt.journal import Journal
from tests.stores.places import Place
from tests.stores.postgresql import Server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def mortal(server: Server) -> Iterator[Server]:
    """Return the server, for a test that may end it."""
    yield server
    server.start()
    server.go_on()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    server = None
    if request.param == "postgres":
        server = request.getfixturevalue("server")
        server.sql("DROP SCHEMA IF EXISTS agentrt CASCADE")
    async with AsyncExitStack() as closing:
        yield Place(request.param, tmp_path / "runs.db", server, closing)


@pytest.fixture
async def journal(place: Place) -> Journal:
    return place.open()
