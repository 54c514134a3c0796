"""HTML to text, in a process of its own: this module imports nothing of agentrt, so that it starts quickly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_SPACE: Final = re.compile(r"[ \t\n\r\f\v]+")
_FENCE: Final = re.compile("`{3,}")
_NUMBER: Final = re.compile(r"[+-]?(\d{1,9}\.?\d{0,9}|\.\d{1,9})")
_HIDING: Final = frozenset({("display", "none"), ("visibility", "hidden"), ("visibility", "collapse")})
_MOVED: Final = ("margin-left", "margin-top", "text-indent")
_PLACED: Final = ("left", "right", "top", "bottom", *_MOVED)
_OFF: Final = -500.0
"""Where no screen reaches, in whatever unit: people write -9999px and -999em."""
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
    if "hidden" in given or given.get("aria-hidden") == "true":
        return True
    style = _style(given)
    if not _HIDING.isdisjoint(style.items()) or _size(style, "opacity") == 0:
        return True
    moved = _PLACED if style.get("position") in ("absolute", "fixed") else _MOVED
    return any((_size(style, name) or 0) <= _OFF for name in moved)


def _style(given: Mapping[str, str | None]) -> dict[str, str]:
    """Return what an element's own style says, without comments: its values by their names."""
    first, *others = (given.get("style") or "").lower().split("/*")
    text = first + "".join(other.partition("*/")[2] for other in others)
    pairs = (part.partition(":") for part in text.split(";"))
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in pairs}


def _size(style: Mapping[str, str], name: str) -> float | None:
    number = _NUMBER.match(style.get(name, ""))
    return float(number[0]) if number else None


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
        self._lists = self._articles = self._pre = self._row = self._cells = 0
        self._links: list[int] = []
        self._unseen: list[bool] = []
        """Whether the font of the elements around has no size; one within may have some again."""

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
            if not (self._unseen and self._unseen[-1]):
                self._words.append(node.text_content or "")
            return False
        tag = node.tag or ""
        given = node.attributes
        if tag in _UNREAD or not node.is_element_node or self._is_left_out(tag, given):
            return False
        if tag in _BLOCKS:
            self._break(tag)
        self._see(given)
        self._mark(tag, given)
        self._count(tag, 1)
        if tag in _HEADINGS:
            self._kind, self._prefix = "heading", _HEADINGS[tag]
        elif tag == "li":
            self._kind, self._prefix = "item", "  " * max(self._lists - 1, 0) + "- "
        return True

    def _mark(self, tag: str, given: Mapping[str, str | None]) -> None:
        """Write what a tag itself says."""
        if tag in ("td", "th"):
            self._words.append(" | " if self._cells else "")
            self._cells += 1
        elif tag == "br":
            self._words.append("\n" if self._pre else "\v")
        elif tag == "img":
            self._words.append(f" {given.get('alt') or ''} ")
        elif tag == "a":
            self._links.append(len(self._words))

    def _is_left_out(self, tag: str, given: Mapping[str, str | None]) -> bool:
        if given and _is_hidden(given):
            return True
        if self._everything or tag in ("html", "body", "main"):
            return False
        around = tag in _AROUND or given.get("role") in _AROUND_ROLES
        return around or (tag == "header" and not self._articles)

    def _see(self, given: Mapping[str, str | None]) -> None:
        """Note whether what stands in this element has a size."""
        size = _size(_style(given), "font-size") if given else None
        around = bool(self._unseen) and self._unseen[-1]
        self._unseen.append(around if size is None else size == 0)

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        self._unseen.pop()
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
            self._cells = 0

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
        if text.strip("| ") if self._row else text:
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
    fence = "`" * max((len(run) + 1 for run in _FENCE.findall(text)), default=3)
    return f"{fence}\n{text}\n{fence}"
