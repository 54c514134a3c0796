"""An MCP server at a URL, spoken to over streamable HTTP, with bounds on what it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
from mcp.client.streamable_http import streamable_http_client

from agentrt_tools.mcp.process import MOST_BYTES
from agentrt_tools.mcp.server import Server, ServerFailed

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams


@asynccontextmanager
async def http_transport(server: Server) -> AsyncGenerator[TransportStreams]:
    """Yield the streams of a server's messages."""
    # A stream of a call may be silent for as long as the call may take, which is bounded elsewhere.
    timeout = httpx2.Timeout(server.timeout, read=None)
    headers = {"accept-encoding": "identity", **dict(server.headers)}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, transport=_Bounded()) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MOST_BYTES) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncHTTPTransport):
    """Refuse answers that are compressed, and break off those that are too long."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            await response.aclose()
            raise ServerFailed(f"it answered in {encoding!r}, which nobody asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Stream(response.stream)
        return response


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for data in self._stream:
            read += len(data)
            if read > MOST_BYTES:
                raise ServerFailed(f"it answered with more than {MOST_BYTES:,} bytes")
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
