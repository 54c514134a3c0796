"""Fetching: pages as text, and nothing but pages of the public internet."""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest

from agentrt import InvalidArguments, StepFailed, run
from agentrt.tool import tool_spec
from agentrt_tools import fetch, fetcher
from agentrt_tools.reach import FetchError, Reach, is_public
from tests.index.pdfs import pdf, pdf_of_streams
from tests.tools.servers import Answer, always, response, serving

pytestmark = pytest.mark.anyio

PAGE = b"""<html><head><title>Owls &amp; more</title><script>var x = 1;</script></head><body><h1>Owls</h1>
<p>They hunt at <a href="/night">night</a>.</p></body></html>"""


async def got(answer: Answer, *, start: int = 0, path: str = "/", **options: Any) -> str:
    """Fetch from a server that answers so, by a name that leads to it."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with serving(answer) as port:
        tool = fetcher(allow=[f"owls.example:{port}"], resolve=resolve, **options)
        text: str = await tool.function(f"http://owls.example:{port}{path}", start)
        return text.replace(f":{port}", "")


async def refused(url: str, *, addresses: Sequence[str] = ("93.184.216.34",), **options: Any) -> str:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    with pytest.raises(FetchError) as caught:
        await fetcher(resolve=resolve, **options).function(url)
    return str(caught.value)


async def test_a_page_is_returned_as_text_with_its_title_and_links() -> None:
    """Without scripts."""
    text = await got(always(response(PAGE, content_type="text/html; charset=utf-8")))
    assert text == (
        "Title: Owls & more\nAddress: http://owls.example/\n\n# Owls\n\n"
        "They hunt at [night](http://owls.example/night)."
    )


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "só".encode(), "só"),
        ("text/plain; charset=iso-8859-1", "só “x”".encode("cp1252"), "só “x”"),
        ("text/plain; charset=utf-16-le", "só".encode("utf-16-le"), "só"),
        ("text/plain; charset=latin-1", "\ufeffsó".encode("utf-8"), "só"),
        ("text/plain; charset=no-such", b"s\xff", "s\ufffd"),
        ("text/plain; charset=punycode", b"a-b", "a-b"),
        ("text/plain; charset=zlib", b"a", "a"),
        ("text/csv", b"a,b\n1,2", "a,b\n1,2"),
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("application/ld+json", b"[]", "[]"),
        ("application/rss+xml", b"<rss/>", "<rss/>"),
        ("", b"plain", "plain"),
    ],
)
async def test_text_is_returned_as_it_is(kind: str, body: bytes, text: str) -> None:
    """In its own characters; a byte order mark is right, whatever the header says."""
    assert (await got(always(response(body, content_type=kind)))).partition("\n\n")[2] == text


async def test_html_may_state_its_characters_itself() -> None:
    """As browsers read them."""
    page = '<meta charset="windows-1252"><p>só</p>'.encode("cp1252")
    assert (await got(always(response(page, content_type="text/html")))).endswith("\n\nsó")
    assert "só" in await got(always(response("<!doctype html><p>só".encode(), content_type="")))


async def test_the_text_of_a_pdf_is_returned() -> None:
    """Of a part of one nothing can be read."""
    document = pdf(["Owls hunt", "at night"], title="Owls")
    text = await got(always(response(document, content_type="application/pdf")))
    assert text == "Title: Owls\nAddress: http://owls.example/\n\nOwls hunt\n\nat night"
    with pytest.raises(FetchError, match="more than 100 bytes, too long"):
        await got(always(response(document, content_type="application/pdf")), most_bytes=100)


@pytest.mark.parametrize(
    ("document", "reason"), [(b"%PDF-1.4 nonsense", "cannot be read"), (pdf([" "]), "without text")]
)
async def test_a_pdf_without_text_is_told(document: bytes, reason: str) -> None:
    """Broken, or nothing but pictures."""
    with pytest.raises(FetchError, match=reason):
        await got(always(response(document, content_type="application/pdf")))


@pytest.mark.slow
async def test_a_pdf_that_unpacks_to_too_much_is_told() -> None:
    """And not taken for pictures."""
    bomb = pdf_of_streams([b"BT /F1 12 Tf (A) Tj ET\n" * 4_000_000])
    with pytest.raises(FetchError, match="of which page 1 cannot be read: it unpacks to more than is read of a page"):
        await got(always(response(bomb, content_type="application/pdf")))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(b"\x89PNG\0", content_type="image/png"), "is image/png, 5 bytes, not text"),
        (response(b"\x89PNG\0\0", content_type="text/html"), "says that it is text/html, but is not text"),
        (response(b"gone", "404 Not Found"), "answered 404; try another address"),
        (response(b"a", content_type="text/plain", content_encoding="br"), "packed as 'br', which was not asked for"),
        (response(b"a", content_type="text/plain", content_encoding="gzip, gzip"), "packed as 'gzip, gzip'"),
        (response(b"not gzip", content_type="text/plain", content_encoding="gzip"), "packed in a way"),
        (response(b"short", content_type="text/plain", content_length="100"), "cannot be read"),
        (b"nonsense\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000, "cannot be read"),
        (b"", "cannot be read"),
        (response(status="302 Found", location="http://[::1"), "is no address"),
        (response(status="302 Found", location="file:///etc/passwd"), "write a whole address"),
        (response(status="302 Found", location="ftp://owls.example/"), "write a whole address"),
        (response(status="302 Found", location="http://x:y@owls.example/"), "a user or a password"),
        (response(status="302 Found", location="/again"), "redirects more than 5 times"),
    ],
)
async def test_what_cannot_be_read_is_told(answer: bytes, reason: str) -> None:
    """With what to do."""
    with pytest.raises(FetchError, match=reason):
        await got(always(answer))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_packed_pages_are_unpacked_no_further_than_wanted(encoding: str) -> None:
    """A bomb of a gigabyte costs what is returned of it."""
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    small = await got(always(response(pack(b"hello"), content_type="text/plain", content_encoding=encoding)))
    assert small.endswith("\n\nhello")
    bomb = response(pack(b"A" * 20_000_000, 1), content_type="text/plain", content_encoding=encoding)
    text = await got(always(bomb), most_bytes=10_000, most=20_000)
    assert "(The page is longer: only its first 10,000 bytes were read.)" in text
    assert text.count("A") < 10_100


async def test_all_members_of_a_packed_page_are_read() -> None:
    """And what fills up its end is left out; together they are unpacked no further than one would be."""
    parts = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two ") + gzip.compress(b"three")
    for end in (b"", bytes(100), b"end"):
        page = response(parts + end, content_type="text/plain", content_encoding="gzip")
        assert (await got(always(page))).endswith("\n\none two three")
    cut = response(parts[:-9], content_type="text/plain", content_encoding="gzip")
    assert "(The page is longer" in await got(always(cut))
    many = response(gzip.compress(b"A" * 9_000) * 3, content_type="text/plain", content_encoding="gzip")
    text = await got(always(many), most_bytes=10_000, most=20_000)
    assert "only its first 10,000 bytes were read" in text
    assert 9_000 < text.count("A") < 10_100


async def test_a_page_without_end_is_left() -> None:
    """At the limit of bytes, whatever length it states."""

    async def endless(head: str, stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            await stream.send(b"again " * 10_000)

    assert "only its first 50,000 bytes were read" in await got(endless, most_bytes=50_000)


async def test_a_slow_page_is_left_in_time() -> None:
    """Though it always has one more byte."""

    async def drip(head: str, stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            await stream.send(b"x")
            await anyio.sleep(0.05)

    with pytest.raises(FetchError, match="took longer than"):
        await got(drip, seconds=0.3)


async def test_a_long_page_is_read_on() -> None:
    """From where the last line says."""
    body = "".join(f"line {n}\n" for n in range(1000)).encode()
    answer = always(response(body, content_type="text/plain"))
    first = await got(answer, most=100)
    start = int(first.rpartition("pass start=")[2].split()[0])
    assert (await got(answer, most=100, start=start)).startswith(first.splitlines()[-2].replace("line 6", "line 7")[:4])
    with pytest.raises(InvalidArguments, match="start=99999: the text has"):
        await got(answer, start=99_999)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::", "fe80::1",
        "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
    ],
)  # fmt: skip
async def test_no_private_address_is_reached_under_any_name(address: str) -> None:
    """Every address that a name leads to is looked at, with those that it embeds."""
    assert not is_public(address)
    for addresses in ([address], ["93.184.216.34", address]):
        told = await refused("http://owls.example/", addresses=addresses)
        assert told == "owls.example leads to an address that is not public, and may not be reached"


def test_public_addresses_are_public() -> None:
    """Also where they are embedded."""
    for address in (
        "93.184.216.34",
        "2606:4700::1111",
        "::ffff:93.184.216.34",
        "64:ff9b::5db8:d822",
        "2002:5db8:d822::1",
    ):
        assert is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/", "not public"),
        ("http://2130706433/", "not public"),
        ("http://0x7f000001/", "not public"),
        ("http://0x7f.1/", "not public"),
        ("http://0177.0.0.1/", "is no address"),
        ("http://127.1/", "not public"),
        ("http://0/", "not public"),
        ("http://localhost/", "not public"),
        ("http://LOCALHOST/", "not public"),
        ("http://[::1]/", "not public"),
        ("http://[::ffff:7f00:1]/", "not public"),
        ("http://[64:ff9b::127.0.0.1]/", "not public"),
        ("http://①②⑦.⓪.⓪.①/", "is no address"),
        ("http://127。0。0。1/", "not public"),
        ("http://example.org@127.0.0.1/", "a user or a password"),
        ("http://example.org:80@127.0.0.1/", "a user or a password"),
        ("http://127.0.0.1:22/", "port 22"),
        ("http://example.org:8080/", "port 8080"),
        ("https://example.org:6379/", "port 6379"),
        ("file:///etc/passwd", "write a whole address"),
        ("gopher://127.0.0.1/", "write a whole address"),
        ("example.org", "write a whole address"),
        ("//example.org/", "write a whole address"),
        ("http:///x", "write a whole address"),
        ("", "write a whole address"),
        ("http://example.org:99999999/", "port 99999999"),
        ("http://ex\0ample.org/", "is no address"),
        ("http://\ud800/", "is no address"),
        ("http://" + "a" * 70_000 + "/", "is no address"),
    ],
)
async def test_no_spelling_leads_inside(url: str, reason: str) -> None:
    """By the system's own resolver."""
    with pytest.raises(FetchError, match=reason):
        await fetch.function(url)


async def test_a_name_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system's resolver says, which a machine without a network may have to wait for."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match=r"no-such-host has no address: .*Name or service not known"):
        await fetch.function("http://no-such-host/")


async def test_an_address_may_be_allowed() -> None:
    """With its port, in whichever way it is written."""
    reach = Reach(allow=["[::1]:8000", "Home.Example:80"])
    for url in ("http://[::1]:8000/", "http://home.example./", "http://HOME.example:80/"):
        reach.check(httpx.URL(url))
    assert await reach.addresses("::1", 8000) == ["::1"]
    for url in ("http://[::1]:8001/", "http://home.example:8000/"):
        with pytest.raises(FetchError, match="port 800"):
            reach.check(httpx.URL(url))


async def test_a_redirect_is_checked_like_every_address() -> None:
    """The private server is never asked."""
    asked: list[str] = []

    async def private(head: str, stream: anyio.abc.SocketStream) -> None:
        asked.append(head)
        await stream.send(response(b"secret", content_type="text/plain"))

    async with serving(private) as port:
        for target in (f"http://127.0.0.1:{port}/", "http://127.0.0.1/", "http://localhost/", "//127.0.0.1/"):
            with pytest.raises(FetchError, match="may not be reached"):
                await got(always(response(status="302 Found", location=target)))
    assert asked == []


async def test_a_redirect_is_followed_and_its_address_told() -> None:
    """Relative ones too."""

    async def answer(head: str, stream: anyio.abc.SocketStream) -> None:
        there = head.startswith("GET /b?x=1 ")
        page = response(b"here", content_type="text/plain")
        await stream.send(page if there else response(status="301 Moved", location="b?x=1#part"))

    assert await got(answer, path="/a") == "Address: http://owls.example/b?x=1\n\nhere"


async def test_a_name_cannot_change_between_check_and_connection() -> None:
    """It is resolved once: what was checked is what is connected to, and the server still hears its name."""
    heads: list[str] = []

    async def answer(head: str, stream: anyio.abc.SocketStream) -> None:
        heads.append(head)
        await stream.send(response(b"here", content_type="text/plain"))

    rebinding = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(rebinding)

    async with serving(answer) as port:
        url = f"http://owls.example:{port}/"
        tool = fetcher(allow=[f"owls.example:{port}"], resolve=resolve)
        assert (await tool.function(url)).endswith("here")
        assert f"\r\nHost: owls.example:{port}\r\n" in heads[0]
    assert next(rebinding) == ["10.0.0.1"]


async def test_certificates_are_checked_by_name() -> None:
    """The client says which name it wants, though it connects to an address, and trusts no other's certificate."""
    hellos: list[bytes] = []

    async def listen(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            hellos.append(await stream.receive())

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, listen)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        tool = fetcher(allow=[f"owls.example:{port}"], resolve=resolve)
        with pytest.raises(FetchError, match="cannot be read"):
            await tool.function(f"https://owls.example:{port}/")
        tasks.cancel_scope.cancel()
    assert b"owls.example" in hellos[0]


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("http://owls.example/", True),
        ("http://OWLS.example./", True),
        ("http://www.birds.example/", True),
        ("http://birds.example/", False),
        ("http://evilbirds.example/", False),
        ("http://owls.example.evil.example/", False),
        ("http://a.owls.example/", False),
    ],
)
async def test_a_fetcher_may_be_held_to_names(url: str, fits: bool) -> None:
    """Exactly these, or all below one."""
    told = await refused(url, hosts=["owls.example", "*.birds.example"], addresses=["127.0.0.1"])
    assert ("not public" in told) is fits
    assert fits or "may not be reached, only owls.example, *.birds.example" in told


async def test_the_environments_proxy_is_not_used_and_a_given_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets the name, and resolves it itself."""
    heads: list[str] = []

    async def answer(head: str, stream: anyio.abc.SocketStream) -> None:
        heads.append(head)
        await stream.send(response(b"by proxy", content_type="text/plain"))

    async with serving(answer) as port:
        proxy = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("ALL_PROXY", proxy)
        assert "not public" in await refused("http://owls.example/", addresses=["10.0.0.1"])
        assert heads == []
        assert (await fetcher(proxy=proxy).function("http://owls.example/x")).endswith("by proxy")
    assert heads[0].startswith("GET http://owls.example/x HTTP/1.1")


async def test_it_runs_as_a_tool() -> None:
    """Which reads, and whose results are not to be trusted."""
    assert (fetch.effect, fetch.untrusted, fetch.name) == ("read", True, "fetch")
    assert [*tool_spec(fetch).parameters["properties"]] == ["url", "start"]
    with pytest.raises(StepFailed, match="not public"):
        await run(fetch, {"url": "http://localhost/"})
