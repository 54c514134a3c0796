"""Reach: which addresses of the network a model's tools may connect to."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from agentrt import AgentrtError

if TYPE_CHECKING:
    import httpx

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Return the addresses of a host; raises `OSError` for one that has none."""
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS: Final = {"http": 80, "https": 443}
_EMBEDDING: Final = tuple(
    ipaddress.IPv6Network(n) for n in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
"""Networks whose addresses stand for the IPv4 address in their last bits: compatible, mapped, translated, NAT64."""
_LOCAL: Final = tuple(ipaddress.IPv6Network(n) for n in ("64:ff9b:1::/48", "fec0::/10"))
"""Networks that are private, but that Python does not know as such."""


class FetchError(AgentrtError):
    """Say why an address cannot be fetched, and what can be done about it."""


def is_public(address: str) -> bool:
    """Say whether an IP address belongs to the public internet, or stands for one that does.

    Raises `ValueError` for what is no IP address.
    """
    ip = _meant(ipaddress.ip_address(address.partition("%")[0]))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in n for n in _LOCAL)


def _meant(ip: _Address) -> _Address:
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour is not None:
            return ip.sixtofour
        if any(ip in n for n in _EMBEDDING):
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


class Reach:
    """Decide what may be reached: the public internet at ports 80 and 443, and what is allowed besides.

    allow: `host:port` pairs that may be reached wherever they lead.
    hosts: if there are any, only these names may be reached; `*.example.org` stands for all names below that one.
    resolve: returns the addresses of a name; the system's by default.
    """

    def __init__(self, allow: Iterable[str] = (), hosts: Iterable[str] = (), resolve: Resolve | None = None) -> None:
        self._allowed = frozenset(re.sub(r"[\[\]]", "", a.lower()) for a in allow)  # [::1]:80 is the host ::1
        self._hosts = tuple(h.lower().rstrip(".") for h in hosts)
        self._resolve = resolve or resolved

    def check(self, url: httpx.URL) -> None:
        """Check an address as it is written; raises `FetchError`."""
        if url.scheme not in _PORTS or not url.host:
            raise FetchError(f"{str(url)[:200]!r} cannot be fetched: write a whole address, https://…")
        if url.userinfo:
            raise FetchError(
                "an address with a user or a password in it is not fetched: leave out what stands before @"
            )
        port = url.port or _PORTS[url.scheme]
        if self._is_allowed(url.host, port):
            return
        if port not in _PORTS.values():
            raise FetchError(f"port {port} of {url.host} may not be reached, only 80 and 443")
        if self._hosts and not any(_fits(url.host, h) for h in self._hosts):
            raise FetchError(f"{url.host} may not be reached, only {', '.join(self._hosts)}")

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Resolve a host and return the addresses to connect to: every one has been checked; raises `FetchError`."""
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host} has no address: {error}") from error
        if self._is_allowed(host, port):
            return found
        if not found or not all(is_public(a) for a in found):
            raise FetchError(f"{host} leads to an address that is not public, and may not be reached")
        return found

    def _is_allowed(self, host: str, port: int) -> bool:
        return f"{host.lower().rstrip('.')}:{port}" in self._allowed


def _fits(host: str, pattern: str) -> bool:
    host = host.lower().rstrip(".")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


async def resolved(host: str, port: int) -> Sequence[str]:
    """Ask the system for a host's addresses."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
