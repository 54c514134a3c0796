"""Content: the text of what the web answers, by its type and in its own characters."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from email.message import Message
from typing import TYPE_CHECKING, Final

from agentrt_tools.reach import FetchError

if TYPE_CHECKING:
    from agentrt.index.confined import Parsers

_PDF: Final = "application/pdf"
_PARSING: Final = 10.0
"""Seconds that one page may take to be parsed."""
_HTML: Final = ("text/html", "application/xhtml+xml")
_TEXT: Final = re.compile(r"text/|application/(.+\+)?(json|xml|yaml|x-yaml|javascript|x-ndjson|toml)$")
_CHARSETS: Final = re.compile(r"(utf-(8|16|32)|iso8859|iso2022|cp\d|gb|hz|big5|euc|shift|koi8|mac|ascii|johab|tis)")
"""Codecs that read text in bounded work; Python knows others, of which some take quadratic time."""
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META: Final = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
_HEAD: Final = 4_096
"""Bytes at the beginning in which pages state their characters."""


def readable_text(body: bytes, content_type: str, url: str, *, whole: bool = True) -> tuple[str, str]:
    """Return the title, if any, and the text of what `url` answered; raises `FetchError` for what is not text."""
    header = Message()
    header["content-type"] = content_type or _sniffed(body)
    kind = header.get_content_type()
    if kind == _PDF:
        return _parsed(url, lambda parsers: _pdf(body, url, parsers, whole=whole))
    if kind not in _HTML and not _TEXT.match(kind):
        raise FetchError(f"{url} is {kind}, {len(body):,} bytes, not text; look for a page that says the same")
    text = decoded(body, str(header.get_param("charset", "")))
    if "\0" in text[:_HEAD]:
        raise FetchError(f"{url} says that it is {kind}, but is not text; try another address")
    return _parsed(url, lambda parsers: _html(text, url, parsers)) if kind in _HTML else ("", text)


def decoded(body: bytes, charset: str) -> str:
    """Decode text by its byte order mark, else by the stated characters, else by what its HTML says, else as UTF-8."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body.decode(codec, "replace")
    meta = _META.search(body[:_HEAD])
    stated = charset or (meta[1].decode("ascii", "replace") if meta else "")
    return body.decode(_codec(stated), "replace")


def _codec(charset: str) -> str:
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return "utf-8"
    if name in ("ascii", "iso8859-1"):
        return "cp1252"  # what browsers read under these names
    return name if _CHARSETS.match(name) else "utf-8"


def _sniffed(body: bytes) -> str:
    """Guess the type of what does not say."""
    head = body[:_HEAD].lstrip().lower()
    if head.startswith(b"%pdf-"):
        return _PDF
    return "text/html" if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) else "text/plain"


def _parsed(url: str, parse: Callable[[Parsers], tuple[str, str]]) -> tuple[str, str]:
    """Parse what others wrote in a process of its own, which is ended where that takes too much."""
    from agentrt.index.confined import Parsers, Unreadable

    try:
        with Parsers(seconds=_PARSING) as parsers:
            return parse(parsers)
    except Unreadable as error:
        raise FetchError(f"{url} cannot be read: {error}; try another address") from error


def _html(text: str, url: str, parsers: Parsers) -> tuple[str, str]:
    from agentrt.index.html import readable

    page = readable(text, base=url, parsers=parsers)
    return page.title, page.text


def _pdf(body: bytes, url: str, parsers: Parsers, *, whole: bool) -> tuple[str, str]:
    if not whole:
        raise FetchError(f"{url} is a PDF of more than {len(body):,} bytes, too long to be read; try another address")
    read = parsers.parse("pdf", body)
    text = "\n\n".join(page for page in read["pages"] if page.strip())
    if not text and read["failed"]:
        number, why = next(iter(read["failed"].items()))
        raise FetchError(f"{url} is a PDF of which page {number} cannot be read: {why}; try another address")
    if not text:
        raise FetchError(f"{url} is a PDF without text: its pages may be pictures; try another address")
    return read["title"], text
