"""Searching the web: one tool over the search engines that provide it."""

from __future__ import annotations

import html
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agentrt import AgentrtError, DefinitionError, InvalidArguments, RateLimited, Tool
from agentrt.retry import Retry
from agentrt.text import shortened
from agentrt.tool import Approval, as_text
from agentrt_tools.excerpt import MOST_CHARACTERS

MOST_RESULTS: Final = 20
MOST_QUERY: Final = 400
"""Characters of a query: what Brave takes."""
MOST_PAGES: Final = 10
"""Pages of results that Brave has, and that a SearXNG server is asked for at most."""
_MOST_SNIPPET: Final = 500
_MOST_TITLE: Final = 150
_MOST_ADDRESS: Final = 2_000
_LEAST: Final = 250
"""In fewer characters not even one result has room."""
_WORDS: Final = (_MOST_SNIPPET, 400, 300, 250, 200, 150, 100, 70, 50, 20, 0)
_LEAST_WORDS: Final = (50, 20, 0)
"""So many characters of title and snippet each result has; fewer only where else none would be shown."""
_MOST_BYTES: Final = 5_000_000
_BRAVE: Final = "https://api.search.brave.com/res/v1/web/search"
_MARK: Final = re.compile(r"</?(strong|b|em|mark)>")
"""How engines mark the words that were searched for."""
_COUNTED: Final = re.compile(r"[0-9]{1,9}")
"""How long to wait, in seconds; it may be a date instead, which is not read."""
_SEARCHES: Final = "async def search(self, query, count) that returns a list of SearchResult(title=…, url=…, snippet=…)"
_DESCRIPTION: Final = "Search the web and return the titles, addresses and beginnings of pages."


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hold one page that was found, with a few of its words."""

    title: str
    url: str
    snippet: str


class SearchError(AgentrtError):
    """Say why a search engine gave no results, and what to do."""


class SearchProvider(Protocol):
    """Find pages of the web.

    One that can go on takes a third argument, `page`, counted from 1: models are offered it then.
    """

    async def search(self, query: str, count: int) -> list[SearchResult]:
        """Return at most `count` results, the best first.

        Raises `SearchError`; `RateLimited` where trying again later helps.
        """
        ...


def web_search(
    provider: SearchProvider,
    *,
    name: str = "web_search",
    description: str = _DESCRIPTION,
    timeout: float = 20.0,
    retry: Retry | None = None,
    approval: Approval = False,
    most: int = MOST_CHARACTERS,
) -> Tool[..., list[SearchResult]]:
    """Build a tool that searches the web.

    timeout: in seconds. most: how many characters the results of one call have together, as a model reads them; where
    they are longer, they are shortened, and those whose addresses have no room then are left out, which is said.

    What a model searches for leaves for the provider: let people approve the calls of an agent that reads what must
    not.

    Raises `DefinitionError` for what is no provider, for too small a `most`, and when it is used for a provider that
    returns something else.
    """
    _check(provider)
    if most < _LEAST:
        raise DefinitionError(f"web_search: most={most}: no result has room in fewer than {_LEAST} characters")

    async def search(query: str, count: int = 5) -> list[SearchResult]:
        """Search the web.

        Args:
            query: A few words, as for any search engine.
            count: How many results to return, 20 at most; more words of each are shown if they are few.
        """
        _check_asked(query, count)
        return await _found(provider, query.strip(), count)

    async def search_on(query: str, count: int = 5, page: int = 1) -> list[SearchResult]:
        """Search the web.

        Args:
            query: A few words, as for any search engine.
            count: How many results to return, 20 at most; more words of each are shown if they are few.
            page: Where to go on: 2 returns the next results of the same number.
        """
        _check_asked(query, count, page)
        given = {"page": page} if page > 1 else {}
        return await _found(provider, query.strip(), count, **given)

    return _Search(
        search_on if _goes_on(provider) else search,
        most,
        name=name,
        description=description,
        timeout=timeout,
        retry=retry,
        approval=approval,
    )


def _check(provider: SearchProvider) -> None:
    given: Any = provider
    if isinstance(given, type):
        raise DefinitionError(f"web_search: {given.__name__} is a class: make a provider of it, {given.__name__}(…)")
    try:
        inspect.signature(given.search).bind("words", 5)
    except (AttributeError, TypeError) as error:
        raise DefinitionError(f"web_search: {given!r} is no provider: {error}; it needs {_SEARCHES}") from error


def _goes_on(provider: Any) -> bool:
    """Say whether a provider has more than the first page of results."""
    try:
        inspect.signature(provider.search).bind("words", 5, page=2)
    except TypeError:
        return False
    return True


def _check_asked(query: str, count: int, page: int = 1) -> None:
    if not 0 < len(query.strip()) <= MOST_QUERY:
        raise InvalidArguments(f"query: write 1 to {MOST_QUERY} characters; {len(query.strip()):,} were given")
    if not 1 <= count <= MOST_RESULTS:
        raise InvalidArguments(f"count: ask for 1 to {MOST_RESULTS} results")
    if not 1 <= page <= MOST_PAGES:
        raise InvalidArguments(f"page: there are pages 1 to {MOST_PAGES}")


async def _found(provider: Any, query: str, count: int, **page: int) -> list[SearchResult]:
    """Ask a provider; raises `DefinitionError` for one that does not keep to the protocol."""
    asked: Any = provider.search(query, count, **page)
    if not inspect.isawaitable(asked):
        raise DefinitionError(f"web_search: search of {provider!r} is not async; it needs {_SEARCHES}")
    found: Any = await asked
    if not isinstance(found, list | tuple) or not all(isinstance(one, SearchResult) for one in found):
        raise DefinitionError(f"web_search: {provider!r} returned {found!r:.200}; it needs {_SEARCHES}")
    if odd := [one for one in found if not all(isinstance(v, str) for v in (one.title, one.url, one.snippet))]:
        raise DefinitionError(f"web_search: {provider!r} returned {odd[0]!r:.200}, whose fields are not all text")
    return [_shortened(one, _MOST_SNIPPET) for one in found[:count]]


class _Search(Tool[..., list[SearchResult]]):
    """Show a model as much of what was found as there is room for."""

    def __init__(self, function: Callable[..., Any], most: int, **options: Any) -> None:
        super().__init__(function, effect="read", untrusted=True, **options)
        self._most = most

    def shown(self, output: Sequence[SearchResult]) -> str:
        return told(output, self._most)


def told(results: Sequence[SearchResult], most: int) -> str:
    """Return results as a model reads them, in so many characters: of each less is told, then some are left out.

    What is left out is said in a line that comes on top.
    """
    shown = next((some for words in _LEAST_WORDS if (some := _with_room(results, words, most))), [])
    texts = (as_text([_shortened(result, words) for result in shown]) for words in _WORDS)
    text = next(text for text in texts if len(text) <= most)
    if not (left := len(results) - len(shown)):
        return text
    instead = "ask for a smaller count" if shown else "search for something else"
    return f"{text}\n… {left} results are left out, as there is no room for their addresses: {instead}"


def _with_room(results: Iterable[SearchResult], words: int, most: int) -> list[SearchResult]:
    """Return those that fit, in order, with at most so many characters of the title and the snippet of each."""
    shown, room = [], most - len("[]")
    for result in results:
        size = len(as_text(_shortened(result, words))) + len(",")
        if size <= room:
            shown.append(result)
            room -= size
    return shown


def _shortened(result: SearchResult, words: int) -> SearchResult:
    """Shorten title and snippet. Half an address leads nowhere: one without measure is left out."""
    return SearchResult(
        title=_cut(result.title, min(words, _MOST_TITLE)),
        url=result.url if len(result.url) <= _MOST_ADDRESS else "",
        snippet=_cut(result.snippet, words),
    )


def _cut(text: str, most: int) -> str:
    plain = text[: most + 1].encode(errors="replace").decode()  # half a character cannot be sent
    return shortened(plain, most) if most else ""


class Brave:
    """Search with the Brave Search API; the key is `key`, or in `BRAVE_API_KEY`."""

    def __init__(self, key: str | None = None, *, url: str = _BRAVE) -> None:
        self._key = key
        self._url = url

    async def search(self, query: str, count: int, page: int = 1) -> list[SearchResult]:
        """Search; raises `DefinitionError` without a key."""
        key = self._key or os.environ.get("BRAVE_API_KEY")
        if not key:
            raise DefinitionError("Brave Search needs a key: set BRAVE_API_KEY, or use Brave(key=…)")
        asked = {"q": query, "count": str(count), "text_decorations": "false"}
        if page > 1:
            asked["offset"] = str(page - 1)
        answer = await _json(self._url, asked, {"X-Subscription-Token": key})
        return _results(_part(_part(answer, "web", {}), "results", []), "description")


class SearXNG:
    """Search with a SearXNG server of one's own, whose settings list `json` among `search: formats`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/search"

    async def search(self, query: str, count: int, page: int = 1) -> list[SearchResult]:
        """Search; a server's pages have a length of their own, and as many are asked for as are needed."""
        found: dict[str, SearchResult] = {}
        for number in range(1, MOST_PAGES + 1):
            before = len(found)
            for result in await self._page(query, number):
                found.setdefault(result.url, result)
            if len(found) >= page * count or len(found) == before:
                break
        return list(found.values())[(page - 1) * count : page * count]

    async def _page(self, query: str, number: int) -> list[SearchResult]:
        asked = {"q": query, "format": "json", **({"pageno": str(number)} if number > 1 else {})}
        return _results(_part(await _json(self._url, asked, {}), "results", []), "content")


async def _json(url: str, asked: Mapping[str, str], headers: Mapping[str, str]) -> object:
    """Ask a search engine; raises `SearchError`, or `RateLimited` where it asks to slow down."""
    import httpx
    from pydantic_core import from_json

    place = httpx.URL(url).host
    try:
        async with (
            httpx.AsyncClient(headers={"Accept": "application/json", **headers}, timeout=None) as client,
            client.stream("GET", url, params=dict(asked)) as response,
        ):
            if response.status_code != 200:
                raise _refusal(place, response)
            return from_json(await _bytes(response, place))
    except httpx.HTTPError as error:
        raise SearchError(f"{place} cannot be reached: {str(error) or type(error).__name__}") from error
    except ValueError as error:
        raise SearchError(f"{place} did not answer in JSON: {error}") from error


async def _bytes(response: Any, place: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes(65_536):
        body += chunk
        if len(body) > _MOST_BYTES:
            raise SearchError(f"{place} answered with more than {_MOST_BYTES:,} bytes; search for something else")
    return bytes(body)


def _refusal(place: str, response: Any) -> AgentrtError:
    status = response.status_code
    if status == 429:
        after = response.headers.get("retry-after", "")
        return RateLimited(
            f"{place} asks to search less often", retry_after=float(after) if _COUNTED.fullmatch(after) else None
        )
    known = {401: "its key is refused", 403: "it refuses: wrong key, or JSON is not among its formats"}
    return SearchError(f"{place} answered {status}: {known.get(status, 'search for something else, or later')}")


def _part(value: object, key: str, default: Any) -> Any:
    """Return a field of a JSON object where it is there and of the default's kind."""
    part = value.get(key) if isinstance(value, Mapping) else None
    return part if isinstance(part, type(default)) else default


def _results(rows: Iterable[object], snippet: str) -> list[SearchResult]:
    """Read results; a row without an address is none."""
    found = (SearchResult(_text(r, "title"), _part(r, "url", ""), _text(r, snippet)) for r in rows)
    return [r for r in found if r.url.startswith(("http://", "https://"))]


def _text(row: object, key: str) -> str:
    return html.unescape(_MARK.sub("", _part(row, key, ""))).strip()
