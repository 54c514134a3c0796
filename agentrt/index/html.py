"""HTML as text that can be read: without scripts, navigation and what is hidden."""

from __future__ import annotations

from dataclasses import dataclass

from agentrt.index.confined import Parsers


@dataclass(frozen=True, slots=True)
class Readable:
    """Hold what a page says: its title, and its text with headings, lists, tables and code written as in Markdown."""

    title: str
    text: str


def readable(html: str, *, base: str | None = None, parsers: Parsers | None = None) -> Readable:
    """Return the text of a page; with `base`, the page's address, links are written `[text](address)`.

    Where the page marks its main part, only that is read; else all but its navigation, header and footer. A page that
    has nothing else is read whole. It is parsed in a process of its own, ended after some seconds: every HTML parser
    that was tried takes minutes for some page of a megabyte. So this blocks: in async code, call it in a thread.
    Whoever reads many pages keeps one process in `parsers`; starting it takes a tenth of a second.

    Raises `Unreadable` for a page that takes too long or too much memory, and `DefinitionError` without the extra.
    """
    if parsers is None:
        with Parsers() as own:
            return readable(html, base=base, parsers=own)
    return Readable(**parsers.parse("html", html.encode("utf-8", "replace"), base=base))
