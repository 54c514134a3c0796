"""Fetching: a page of the web as readable text."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from agentrt import Tool
from agentrt.tool import Approval
from agentrt_tools.content import readable_text
from agentrt_tools.excerpt import MOST_CHARACTERS, excerpt
from agentrt_tools.reach import FetchError, Reach, Resolve

if TYPE_CHECKING:
    import ssl

    import httpcore
    import httpx

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 5
_HEADERS: Final = [
    ("User-Agent", "agentrt"),
    ("Accept", "text/html, text/plain;q=0.9, */*;q=0.5"),
    ("Accept-Encoding", "gzip"),  # what can be unpacked piece by piece, and no more of it than is wanted
]
_GZIP: Final = b"\x1f"
_DESCRIPTION: Final = "Fetch a page of the web by its address and return its title and text."


def fetcher(
    *,
    name: str = "fetch",
    description: str = _DESCRIPTION,
    hosts: Iterable[str] = (),
    allow: Iterable[str] = (),
    seconds: float = 20.0,
    most_bytes: int = 5_000_000,
    most: int = MOST_CHARACTERS,
    proxy: str | None = None,
    resolve: Resolve | None = None,
    approval: Approval = False,
) -> Tool[..., str]:
    """Build a tool that fetches pages of the public internet by GET.

    A model that chose the address can carry data out with it: name the `hosts` it may reach, or let people approve
    the calls, if it reads anything that must not leave.

    hosts: the only names that may be reached; `*.example.org` stands for all names below that one.
    allow: `host:port` pairs that may be reached although they are private, or the port is not 80 or 443.
    seconds: how long one fetch may take, with redirects and all.
    most_bytes: how much of a page is read, packed and unpacked; the rest is left out.
    most: how many characters are returned at once.
    proxy: the address of a proxy, which then resolves names and has to know which addresses may be reached; without
        it none is used, whatever the environment says.
    resolve: returns the addresses of a name; the system's by default.
    """
    reach = Reach(allow, hosts, resolve)

    async def fetch(url: str, start: int = 0) -> str:
        """Fetch a page and return its text.

        Args:
            url: Whole address of the page, https://…
            start: Where in the text to begin, to read on in a long page.
        """
        with anyio.move_on_after(seconds):
            page = await _fetched(url, reach, most_bytes, proxy)
            text = await anyio.to_thread.run_sync(page.text, abandon_on_cancel=True)
            return excerpt(text, start, most)
        raise FetchError(f"{url[:200]} took longer than {seconds:g} seconds; try another address")

    return Tool(fetch, name=name, description=description, effect="read", untrusted=True, approval=approval)


class Page:
    """Hold what an address answered."""

    def __init__(self, url: str, content_type: str, body: bytes, *, whole: bool) -> None:
        self.url = url
        self.content_type = content_type
        self.body = body
        self.whole = whole

    def text(self) -> str:
        """Return the page to read, under its title and address; raises `FetchError` where it has no text."""
        title, text = readable_text(self.body, self.content_type, self.url, whole=self.whole)
        head = [f"Title: {title}"] if title else []
        rest = [] if self.whole else [f"(The page is longer: only its first {len(self.body):,} bytes were read.)"]
        return "\n".join([*head, f"Address: {self.url}", *rest, "", text])


async def _fetched(url: str, reach: Reach, most: int, proxy: str | None) -> Page:
    """Fetch a page, and check again wherever it redirects to."""
    import httpx

    try:
        address = httpx.URL(url.strip()).copy_with(fragment=None)
        for _ in range(_MOST_REDIRECTS + 1):
            reach.check(address)
            answer = await _answer(address, reach, most, proxy)
            if isinstance(answer, Page):
                return answer
            address = address.join(answer).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise FetchError(f"{url[:200]!r} is no address: {error}") from error
    raise FetchError(f"{url[:200]} redirects more than {_MOST_REDIRECTS} times; try another address")


async def _answer(url: httpx.URL, reach: Reach, most: int, proxy: str | None) -> Page | str:
    """Ask one address; return its page, or where it redirects to."""
    import httpcore

    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    try:
        async with _pool(reach, proxy) as pool, pool.stream("GET", target, headers=_HEADERS) as response:
            headers = {k.decode("ascii", "replace").lower(): v.decode("latin-1") for k, v in response.headers}
            if response.status in _REDIRECTS and headers.get("location"):
                return headers["location"]
            if response.status >= 400:
                raise FetchError(f"{url} answered {response.status}; try another address")
            body, whole = await _body(response.aiter_stream(), headers.get("content-encoding", ""), most)
            return Page(str(url), headers.get("content-type", ""), body, whole=whole)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.ProxyError) as error:
        raise FetchError(f"{url} cannot be read: {str(error) or type(error).__name__}") from error


async def _body(chunks: AsyncIterable[bytes], encoding: str, most: int) -> tuple[bytes, bool]:
    """Read and unpack a body up to `most` bytes, and say whether that was all; no piece is unpacked any further."""
    unpack = _unpacker(encoding.strip().lower())
    body, read = bytearray(), 0
    async for chunk in chunks:
        read += len(chunk)
        try:
            body += chunk if unpack is None else unpack.unpack(chunk, most + 1 - len(body))
        except zlib.error as error:
            raise FetchError(f"the page is packed in a way that cannot be read: {error}") from error
        if len(body) > most or read > most:
            return bytes(body[:most]), False
    return bytes(body), unpack is None or unpack.is_whole


class _Unpacker:
    """Unpack what comes piece by piece, and no more of it than is wanted; gzip may be made of several members."""

    def __init__(self, bits: int, *, members: bool) -> None:
        self._bits = bits
        self._has_members = members
        self._member = zlib.decompressobj(bits)

    @property
    def is_whole(self) -> bool:
        return self._member.eof

    def unpack(self, chunk: bytes, most: int) -> bytes:
        """Return at most `most` bytes of what a chunk holds; raises `zlib.error`."""
        unpacked = bytearray()
        while chunk and len(unpacked) < most:
            if self._member.eof:
                self._has_members = self._has_members and chunk.startswith(_GZIP)  # others fill up the end
                if not self._has_members:
                    break
                self._member = zlib.decompressobj(self._bits)
            unpacked += self._member.decompress(chunk, most - len(unpacked))
            chunk = self._member.unused_data
        return bytes(unpacked)


def _unpacker(encoding: str) -> _Unpacker | None:
    match encoding:
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Unpacker(zlib.MAX_WBITS | 16, members=True)
        case "deflate":
            return _Unpacker(zlib.MAX_WBITS, members=False)
        case _:
            raise FetchError(f"the page is packed as {encoding[:40]!r}, which was not asked for; try another address")


def _pool(reach: Reach, proxy: str | None) -> httpcore.AsyncConnectionPool:
    """Return a pool of one connection, which leads only where it may."""
    import httpcore

    from agentrt_tools.pinned import PinnedNetwork

    if proxy is not None:
        return httpcore.AsyncConnectionPool(ssl_context=_ssl(), proxy=httpcore.Proxy(proxy))
    return httpcore.AsyncConnectionPool(ssl_context=_ssl(), network_backend=PinnedNetwork(reach))


@cache
def _ssl() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(trust_env=False)


fetch: Final = fetcher()
