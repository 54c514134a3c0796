"""Connections to servers that stall, die, flood and write nonsense: every request ends, and so does every process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from agentrt_tools.mcp.connection import MOST_FAILURES, Connection, connection
from agentrt_tools.mcp.content import value_of
from agentrt_tools.mcp.offer import listing
from agentrt_tools.mcp.server import Server, ServerFailed, ToolFailed
from tests.tools.mcp.conftest import Command, Log, gone

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(command: list[str], timeout: float = 20.0) -> AsyncIterator[Connection]:
    async with connection(Server.of(command, timeout=timeout, name="it")) as opened:
        yield opened


def echo(text: str = "hi") -> Callable[[Any], Awaitable[Any]]:
    return lambda client: client.call_tool("echo", {"text": text})


async def said(opened: Connection, text: str = "hi", *, again: bool = False) -> object:
    return value_of(await opened.request(echo(text), again=again), structured=False)


async def test_requests_run_side_by_side_on_one_process(hostile: Command, log: Log) -> None:
    """Each gets its own answer."""
    told: dict[str, object] = {}

    async def ask(text: str) -> None:
        told[text] = await said(opened, text)

    async with connected(hostile("good")) as opened, anyio.create_task_group() as tasks:
        for text in ("a", "b", "c"):
            tasks.start_soon(ask, text)
    assert told == {"a": "a", "b": "b", "c": "c"}
    assert log.lines().count("started") == 1


async def test_what_is_no_message_is_passed_over(hostile: Command) -> None:
    """Banners, bytes that are no text and half of a JSON array."""
    async with connected(hostile("garbage")) as opened:
        assert await said(opened) == "hi"


async def test_a_server_that_does_not_answer_is_given_up_in_time(hostile: Command) -> None:
    """The time-out holds for the whole start, whatever the SDK waits for."""
    began = time.monotonic()
    with pytest.raises(ServerFailed, match=r"MCP server it: did not answer within 0.2 s of its start"):
        async with connected(hostile("mute"), timeout=0.2) as opened:
            await said(opened)
    assert time.monotonic() - began < 10


async def test_those_who_wait_for_one_start_share_its_failure(hostile: Command) -> None:
    """None of them waits for longer than the time-out."""
    failures: list[ServerFailed] = []

    async def ask() -> None:
        with pytest.raises(ServerFailed) as failed:
            await said(opened)
        failures.append(failed.value)

    async with connected(hostile("mute"), timeout=0.3) as opened:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        assert opened.statistics()["failures"] == 1
    assert (len(failures), len({str(failure) for failure in failures})) == (3, 1)


@pytest.mark.slow
async def test_a_server_that_heeds_nothing_is_killed_with_its_children(hostile: Command, log: Log) -> None:
    """Two seconds after it was asked to end."""
    async with connected(hostile("deaf")) as opened:
        assert await said(opened) == "hi"
    started = log.processes()
    assert len(started) == 2
    assert await gone(started)


async def test_what_a_server_started_ends_with_it(hostile: Command, log: Log) -> None:
    """A server that ends by itself leaves nobody behind, in groups of their own neither."""
    async with connected(hostile("parent")) as opened:
        assert await said(opened) == "hi"
    started = log.processes()
    assert len(started) == 3
    assert await gone(started)


async def test_a_server_that_cannot_start_tells_why(hostile: Command) -> None:
    """Its last words are in the error, without what would colour a terminal."""
    with pytest.raises(ServerFailed, match=r"it ended with status 7; it said last:\n\[31mno licence found\[0m$"):
        async with connected(hostile("exit")) as opened:
            await said(opened)
    with pytest.raises(ServerFailed, match="No such file or directory"):
        async with connected(["/nowhere/server"]) as opened:
            await said(opened)


@pytest.mark.usefixtures("patient")
async def test_a_stalled_call_ends_in_time_and_is_cancelled(hostile: Command, log: Log) -> None:
    """The server is told, and the connection is as good as before."""
    async with connected(hostile("stall"), timeout=0.5) as opened:
        with pytest.raises(ServerFailed, match=r"did not answer within 0.5 s"):
            await said(opened)
        assert (await opened.request(listing)).name == "hostile/server"
        assert log.lines() == ["started", "called", "cancelled"]


async def test_whoever_is_cancelled_cancels_the_request(hostile: Command, log: Log) -> None:
    """The server is told."""
    async with connected(hostile("stall")) as opened:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(said, opened)
            await log.wait("called")
            tasks.cancel_scope.cancel()
        await opened.request(listing)
        assert log.lines()[-1] == "cancelled"


async def test_a_call_is_made_again_only_where_that_does_no_harm(hostile: Command, log: Log) -> None:
    """The server is started again for it."""
    async with connected(hostile("die-once")) as opened:
        assert await said(opened, again=True) == "hi"
    assert log.lines() == ["started", "called", "started", "called"]


async def test_a_call_that_may_have_had_its_effect_fails_and_the_next_goes_on(hostile: Command, log: Log) -> None:
    """The error tells what the server said."""
    async with connected(hostile("die-once")) as opened:
        with pytest.raises(
            ServerFailed, match="broke off: it ended with status 3; whether the call has had its effect"
        ):
            await said(opened)
        assert await said(opened) == "hi"


@pytest.mark.slow
async def test_a_server_that_always_dies_is_given_up(hostile: Command, log: Log) -> None:
    """After a few starts, each later than the one before."""
    async with connected(hostile("die")) as opened:
        for _ in range(MOST_FAILURES):
            with pytest.raises(ServerFailed, match="out of cheese"):
                await said(opened)
        with pytest.raises(ServerFailed, match="failed 5 times in a row; given up"):
            await said(opened)
    assert log.lines().count("started") == MOST_FAILURES


@pytest.mark.parametrize(
    ("mode", "told"), [("flood", "messages that nobody asked for"), ("huge", "a message of more than 8,000,000 bytes")]
)
async def test_a_flood_is_cut_off(hostile: Command, mode: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many messages nor a long one keep this process busy, or fill its memory."""
    monkeypatch.setattr("agentrt_tools.mcp.process._MOST_UNASKED", 500)
    async with connected(hostile(mode)) as opened:
        with pytest.raises(ServerFailed, match=told):
            await said(opened)


@pytest.mark.parametrize(
    ("mode", "error", "told"),
    [
        ("nonsense", ServerFailed, "answered with what is no answer of the protocol"),
        ("refused", ToolFailed, "no such tool"),
        ("endless", ServerFailed, "does not end"),
    ],
)
async def test_answers_that_are_none_are_errors(hostile: Command, mode: str, error: type[Exception], told: str) -> None:
    """The connection outlives them."""
    async with connected(hostile(mode)) as opened:
        with pytest.raises(error, match=told):
            await opened.request(listing if mode == "endless" else echo())
        assert opened.statistics()["failures"] == 0


async def test_nobody_answers_what_a_server_asks(hostile: Command) -> None:
    """Neither for the user nor about folders; it is told so."""
    async with connected(hostile("asks")) as opened:
        assert await said(opened) == "List roots not supported | Elicitation not supported"
