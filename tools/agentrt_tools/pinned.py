"""Pinned connections: names resolved once, checked, and connected to as what they were found to be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import httpcore

from agentrt_tools.reach import FetchError, Reach


class PinnedNetwork(httpcore.AsyncNetworkBackend):
    """Connect to the addresses that may be reached, and to nothing else.

    The name is looked up once, so that no second look-up can lead elsewhere than the one that was checked. What uses
    the connection goes on to send the name, and to check certificates by it.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._network = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that answers; raises `FetchError` for one that may not be reached."""
        failure: httpcore.ConnectError = httpcore.ConnectError(f"{host} has no address")
        for address in await self._reach.addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: raises `FetchError`."""
        raise FetchError(f"{path} is no address of the web")
