"""HTML to text, in a process of its own: this module imports nothing of agentrt, so that it starts quickly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_SPACE: Final = re.compile(r"[ \t\n\r\f\v]+")
_HIDING: Final = re.compile(r"(display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_UNREAD: Final = frozenset(
    "script style noscript template svg math iframe object embed canvas audio video head title "  # noqa: SIM905
    "button select textarea input datalist dialog".split()
)
_AROUND: Final = frozenset({"nav", "aside", "footer"})
_AROUND_ROLES: Final = frozenset({"navigation", "banner", "contentinfo", "search", "complementary"})
_BLOCKS: Final = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form "  # noqa: SIM905
    "h1 h2 h3 h4 h5 h6 header hr html li main nav ol p pre section summary table tbody tfoot thead tr ul".split()
)
_HEADINGS: Final = {f"h{n}": "#" * n + " " for n in range(1, 7)}


def parse(html: bytes, base: str | None = None) -> dict[str, Any]:
    """Return a page's title and its text; with a `base` links are written `[text](address)`."""
    from selectolax.lexbor import LexborHTMLParser

    root = LexborHTMLParser(html).root
    if root is None:
        return {"title": "", "text": ""}
    title = root.css_first("head > title") or root.css_first("title")
    text = _Writer(base, everything=False).write(_content(root)) or _Writer(base, everything=True).write(root)
    return {"title": _line(title.text()) if title is not None else "", "text": text}


def _content(root: LexborNode) -> LexborNode:
    """Return what holds the page's own text: the one element that says so, else everything."""
    for selector in ("main, [role=main]", "article"):
        found = root.css(selector)
        if len(found) == 1 and not _is_hidden(found[0].attributes):
            return found[0]
    return root


def _is_hidden(given: Mapping[str, str | None]) -> bool:
    return "hidden" in given or given.get("aria-hidden") == "true" or bool(_HIDING.search(given.get("style") or ""))


def _line(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


class _Writer:
    """Write a tree as text: headings, list items, table rows and code as Markdown has them, paragraphs apart.

    The walk keeps no stack of Python's, so that no depth of nesting is too deep.
    """

    def __init__(self, base: str | None, *, everything: bool) -> None:
        self._base = base
        self._everything = everything
        self._blocks: list[tuple[str, str]] = []
        self._words: list[str] = []
        self._kind = ""
        self._prefix = ""
        self._lists = self._articles = self._pre = self._row = 0
        self._links: list[int] = []

    def write(self, top: LexborNode) -> str:
        end = top.mem_id  # to compare nodes is to write both as HTML
        node: LexborNode = top
        while True:
            entered = self._enter(node)
            if entered and node.first_child is not None:
                node = node.first_child
                continue
            if entered:
                self._leave(node)
            while node.mem_id != end and node.next is None and node.parent is not None:
                node = node.parent
                self._leave(node)
            if node.mem_id == end or node.next is None:
                break
            node = node.next
        self._flush()
        return self._joined()

    def _enter(self, node: LexborNode) -> bool:
        """Begin a node; return whether what is inside is read."""
        if node.is_text_node:
            self._words.append(node.text_content or "")
            return False
        tag = node.tag or ""
        given = node.attributes
        if tag in _UNREAD or not node.is_element_node or self._is_left_out(tag, given):
            return False
        if tag in _BLOCKS:
            self._break(tag)
        if tag in ("td", "th") and any(w.strip() for w in self._words):
            self._words.append(" | ")
        elif tag == "br":
            self._words.append("\n" if self._pre else "\v")
        elif tag == "img":
            self._words.append(f" {given.get('alt') or ''} ")
        elif tag == "a":
            self._links.append(len(self._words))
        self._count(tag, 1)
        if tag in _HEADINGS:
            self._kind, self._prefix = "heading", _HEADINGS[tag]
        elif tag == "li":
            self._kind, self._prefix = "item", "  " * max(self._lists - 1, 0) + "- "
        return True

    def _is_left_out(self, tag: str, given: Mapping[str, str | None]) -> bool:
        if given and _is_hidden(given):
            return True
        if self._everything or tag in ("html", "body", "main"):
            return False
        around = tag in _AROUND or given.get("role") in _AROUND_ROLES
        return around or (tag == "header" and not self._articles)

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag == "a" and self._links:
            self._link(node, self._links.pop())
        if tag in _BLOCKS:
            self._break(tag)
        self._count(tag, -1)

    def _count(self, tag: str, by: int) -> None:
        if tag in ("ul", "ol"):
            self._lists += by
        elif tag in ("article", "main"):
            self._articles += by
        elif tag == "pre":
            self._pre += by
        elif tag == "tr":
            self._row += by

    def _link(self, node: LexborNode, begin: int) -> None:
        address = (node.attributes.get("href") or "").strip()
        text = _line("".join(self._words[begin:]))
        if self._base is None or not text or address.startswith(("#", "javascript:")) or not address:
            return
        self._words[begin:] = [f"[{text}]({_joined_address(self._base, address)})"]

    def _break(self, tag: str) -> None:
        """End the block before; within a table's row blocks are only words apart."""
        if self._row and tag != "tr":
            self._words.append(" ")
        else:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._words)
        self._words.clear()
        self._links = [0 for _ in self._links]
        if self._pre and not self._row:
            if text.strip():
                self._blocks.append(("code", _fenced(text.strip("\n"))))
            return
        text = "\n".join(filter(None, map(_line, text.split("\v"))))
        if text:
            kind = "row" if self._row else self._kind
            self._blocks.append((kind, self._prefix + text))
            self._kind = self._prefix = ""

    def _joined(self) -> str:
        parts: list[str] = []
        before = ""
        for kind, text in self._blocks:
            if parts:
                parts.append("\n" if kind == before and kind in ("item", "row") else "\n\n")
            parts.append(text)
            before = kind
        return "".join(parts)


def _joined_address(base: str, address: str) -> str:
    try:
        return urljoin(base, address)
    except ValueError:  # such as an address with half a bracket: it is shown as it is
        return address


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
