"""Searching the web: what engines answer, as values, and what goes wrong, as errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio.abc
import pytest

from agentrt import Agent, DefinitionError, InvalidArguments, RateLimited, Retry, StepFailed, run
from agentrt.messages import ToolMessage
from agentrt.testing import ScriptedModel, call
from agentrt.tool import tool_spec
from agentrt_tools import Brave, SearchProvider, SearchResult, SearXNG, web_search
from agentrt_tools.web_search import SearchError
from tests.tools.servers import Answer, always, response, serving

pytestmark = pytest.mark.anyio

BRAVE = {
    "type": "search",
    "query": {"original": "owls", "more_results_available": True},
    "mixed": {"type": "mixed", "main": [{"type": "web", "index": 0, "all": False}]},
    "web": {
        "type": "search",
        "results": [
            {
                "type": "search_result",
                "title": "Owls &amp; more",
                "url": "https://owls.example/?a=1&copy=2",
                "description": "About <strong>owls</strong>.",
                "profile": {"name": "Owls"},
                "language": "en",
            },
            {"type": "search_result", "title": "No address"},
            {"type": "search_result", "title": "Script", "url": "javascript:alert(1)", "description": None},
            "nonsense",
            {"title": "Bare", "url": "http://bare.example/"},
        ],
    },
}
SEARXNG = {
    "query": "owls",
    "number_of_results": 0,
    "results": [
        {
            "url": f"https://owls.example/{n}",
            "title": f"Owls {n}",
            "content": "They hunt at night.",
            "engine": "duckduckgo",
            "parsed_url": ["https", "owls.example", f"/{n}", "", "", ""],
            "engines": ["duckduckgo"],
            "positions": [n],
            "score": 1.0,
            "category": "general",
        }
        for n in range(12)
    ],
    "answers": [],
    "corrections": [],
    "infoboxes": [],
    "suggestions": ["owl"],
    "unresponsive_engines": [["google", "timeout"]],
}
PROVIDERS: list[Callable[[str], SearchProvider]] = [
    lambda url: Brave("key", url=f"{url}/res/v1/web/search"),
    SearXNG,
]


def heard(answer: object, heads: list[str]) -> Answer:
    async def serve(head: str, stream: anyio.abc.SocketStream) -> None:
        heads.append(head)
        await stream.send(response(json.dumps(answer).encode(), content_type="application/json"))

    return serve


async def test_brave_is_asked_as_documented() -> None:
    """With the key in its header; what is no page is left out, and marks and entities are plain text."""
    heads: list[str] = []
    async with serving(heard(BRAVE, heads)) as port:
        tool = web_search(Brave("key", url=f"http://127.0.0.1:{port}/res/v1/web/search"))
        results = await tool.function("owls at night", 3)
    assert results == [
        SearchResult("Owls & more", "https://owls.example/?a=1&copy=2", "About owls."),
        SearchResult("Bare", "http://bare.example/", ""),
    ]
    first, *headers = heads[0].lower().split("\r\n")
    assert first == "get /res/v1/web/search?q=owls+at+night&count=3&text_decorations=false http/1.1"
    assert "x-subscription-token: key" in headers
    assert "accept: application/json" in headers


async def test_searxng_is_asked_as_documented() -> None:
    """It knows no count, so that the first results are taken."""
    heads: list[str] = []
    async with serving(heard(SEARXNG, heads)) as port:
        results = await web_search(SearXNG(f"http://127.0.0.1:{port}/")).function("owls & co", 2)
    assert results[1] == SearchResult("Owls 1", "https://owls.example/1", "They hunt at night.")
    assert len(results) == 2
    assert heads[0].startswith("GET /search?q=owls+%26+co&format=json HTTP/1.1\r\n")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (response(b"{}", "429 Too Many Requests", retry_after="7"), RateLimited, "asks to search less often"),
        (response(b"{}", "429 Too Many Requests", retry_after="soon"), RateLimited, "asks to search less often"),
        (response(b"{}", "429 Too Many Requests", retry_after="\xb2"), RateLimited, "asks to search less often"),
        (response(b"{}", "401 Unauthorized"), SearchError, "answered 401: its key is refused"),
        (response(b"", "403 Forbidden"), SearchError, "JSON is not among its formats"),
        (response(b"", "500 Broken"), SearchError, "answered 500: search for something else, or later"),
        (response(b"", "302 Found", location="http://10.0.0.1/"), SearchError, "answered 302"),
        (response(b"<html>"), SearchError, "did not answer in JSON"),
        (response(b"\xff\xfe"), SearchError, "did not answer in JSON"),
        (response(b"[" * 100_000), SearchError, "did not answer in JSON"),
        (response(b" " * 5_100_000), SearchError, "more than 5,000,000 bytes"),
        (b"", SearchError, "cannot be reached"),
    ],
)
async def test_what_goes_wrong_is_told(
    provider: Callable[[str], SearchProvider], answer: bytes, error: type[Exception], reason: str
) -> None:
    """Each with what to do."""
    async with serving(always(answer)) as port:
        with pytest.raises(error, match=reason) as caught:
            await web_search(provider(f"http://127.0.0.1:{port}")).function("owls")
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after in (7.0, None)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "answer", [[], {}, None, {"web": []}, {"web": {"results": {}}}, {"results": [[]], "web": None}]
)
async def test_an_answer_of_another_shape_has_no_results(
    provider: Callable[[str], SearchProvider], answer: object
) -> None:
    """It breaks nothing."""
    async with serving(heard(answer, [])) as port:
        assert await web_search(provider(f"http://127.0.0.1:{port}")).function("owls") == []


class Loud:
    """Find many long results."""

    async def search(self, query: str, count: int) -> list[SearchResult]:
        return [SearchResult("t" * 9_999, "https://owls.example/", "s" * 9_999)] * 99


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("",), "write 1 to 400 characters; 0 were given"),
        (("x" * 401,), "401 were given"),
        (("owls", 0), "1 to 20"),
        (("owls", 21), "1 to 20"),
    ],
)
async def test_a_search_that_no_engine_takes_is_refused(arguments: tuple[Any, ...], reason: str) -> None:
    """Before any is asked."""
    with pytest.raises(InvalidArguments, match=reason):
        await web_search(Loud()).function(*arguments)


async def test_results_are_bounded_whatever_the_engine_says() -> None:
    """In number and length; what is cut shows it."""
    results = await web_search(Loud()).function("owls", 4)
    assert (len(results), len(results[0].title), len(results[0].snippet)) == (4, 150, 500)
    assert (results[0].title[-2:], results[0].snippet[-2:]) == ("t…", "s…")


@pytest.mark.parametrize("odd", ["x", "\x01", '"', "</untrusted>", "\ud800", "😀"])
@pytest.mark.parametrize("most", [300, 8_000])
async def test_results_are_bounded_together(odd: str, most: int) -> None:
    """As a model reads them; an address is there as a whole, or not at all, and what is left out is told."""
    addresses = [f"https://owls.example/{n}/" + "u" * 300 * n for n in range(20)]
    found = [SearchResult(odd * 9_999, address, odd * 9_999) for address in addresses]
    tool = web_search(Found(found), most=most)
    text, _, left = tool.shown(await tool.function("owls", 20)).partition("\n")
    assert 0.2 * most < len(text) <= most
    urls = [result["url"] for result in json.loads(text)]
    assert set(urls) <= {*addresses, ""}
    assert (f"… {20 - len(urls)} results are left out" in left) == (len(urls) < 20)


@pytest.mark.parametrize(("length", "shown"), [(300, 20), (700, 10), (1_900, 4)])
async def test_long_addresses_leave_room_for_fewer_results(length: int, shown: int) -> None:
    """The first, in order; a model is told of the others, and never that nothing was found."""
    found = [SearchResult("t", f"https://owls.example/{n}/".ljust(length, "u"), "s" * 300) for n in range(20)]
    tool = web_search(Found(found))
    model = ScriptedModel([call("web_search", query="owls", count=20), "Seen."])
    await run(Agent("asker", tools=[tool]), "When?", model=model)
    (told,) = [m.text for m in model.requests[1].messages if isinstance(m, ToolMessage)]
    assert [f"/{n}/uuu" in told for n in range(20)] == [n < shown for n in range(20)]
    left = f"… {20 - shown} results are left out, as there is no room for their addresses: ask for a smaller count"
    assert (left in told) == (shown < 20)


async def test_an_address_that_has_no_room_hides_no_other() -> None:
    """And where none has, that is said."""
    found = [SearchResult("t", f"https://owls.example/{n}".ljust(n, "u"), "s") for n in (400, 30, 500)]
    tool = web_search(Found(found), most=300)
    assert tool.shown(found).startswith('[{"title":"t","url":"https://owls.example/30uuuuuuu","snippet":"s"}]\n… 2 res')
    assert tool.shown(found[:1]).startswith("[]\n… 1 results are left out")
    assert tool.shown([]) == "[]"


def test_room_for_no_result_is_told_to_the_developer() -> None:
    """A model would be told that nothing was found."""
    with pytest.raises(DefinitionError, match="most=249: no result has room in fewer than 250 characters"):
        web_search(Loud(), most=249)


async def test_brave_goes_on_page_by_page() -> None:
    heads: list[str] = []
    async with serving(heard(BRAVE, heads)) as port:
        await web_search(Brave("key", url=f"http://127.0.0.1:{port}/search")).function("owls", 3, 2)
    assert heads[0].startswith("GET /search?q=owls&count=3&text_decorations=false&offset=1 HTTP/1.1\r\n")


async def test_searxng_goes_on_wherever_its_own_pages_end() -> None:
    """Nothing is left out or told twice, and a server that has no more is not asked again."""
    heads: list[str] = []

    async def answer(head: str, stream: anyio.abc.SocketStream) -> None:
        heads.append(head)
        number = int(head.partition("pageno=")[2][:1] or 1)
        rows = [{"url": f"https://owls.example/{n}"} for n in range(7 * (number - 1), min(7 * number + 1, 17))]
        await stream.send(response(json.dumps({"results": rows}).encode()))

    async with serving(answer) as port:
        tool = web_search(SearXNG(f"http://127.0.0.1:{port}"))
        pages = [await tool.function("owls", 5, page) for page in (1, 2, 3, 4, 5)]
    assert [[int(r.url.rpartition("/")[2]) for r in page] for page in pages] == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16], [],
    ]  # fmt: skip
    assert len(heads) == 1 + 2 + 2 + 4 + 4


async def test_pages_are_offered_where_there_are_some() -> None:
    """And ten at most."""
    assert "page" in tool_spec(web_search(Brave("key"))).parameters["properties"]
    assert "page" not in tool_spec(web_search(Loud())).parameters["properties"]
    for page in (0, 11):
        with pytest.raises(InvalidArguments, match="page: there are pages 1 to 10"):
            await web_search(Brave("key")).function("owls", 5, page)


async def test_a_missing_key_is_told_to_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model could mend it; the environment may hold it."""
    monkeypatch.delenv("BRAVE_API_KEY", raising=False)
    with pytest.raises(DefinitionError, match="set BRAVE_API_KEY"):
        await web_search(Brave()).function("owls")
    monkeypatch.setenv("BRAVE_API_KEY", "from the environment")
    heads: list[str] = []
    async with serving(heard(BRAVE, heads)) as port:
        await web_search(Brave(url=f"http://127.0.0.1:{port}")).function("owls")
    assert "from the environment" in heads[0]


async def test_an_agent_searches_and_waits_where_an_engine_asks_it_to() -> None:
    """As a tool that reads, whose results are marked; a retry waits as long as the engine says."""
    answers = iter([response(b"{}", "429 Slow", retry_after="3"), response(json.dumps(SEARXNG).encode())])

    async def answer(head: str, stream: anyio.abc.SocketStream) -> None:
        await stream.send(next(answers))

    async with serving(answer) as port:
        tool = web_search(SearXNG(f"http://127.0.0.1:{port}"), retry=Retry(backoff=0.01, on=_impatient))
        with ScriptedModel([call("web_search", query="owls", count=1), "At night."]) as model:
            assert (await run(Agent("asker", tools=[tool]), "When?", model=model)).output == "At night."
    (told,) = [m for m in model.requests[1].messages if isinstance(m, ToolMessage)]
    assert '[{"title":"Owls 0","url":"https://owls.example/0","snippet":"They hunt at night."}]' in told.text
    assert (told.untrusted, tool.effect) == (True, "read")


def _impatient(error: Exception) -> bool:
    """Try again, and do not let the test wait for real, as an open socket would."""
    if isinstance(error, RateLimited):
        assert error.retry_after == 3
        error.retry_after = None
        return True
    return False


def test_a_model_is_told_how_to_search() -> None:
    """In two parameters, where there is one page."""
    spec = tool_spec(web_search(Loud()))
    assert [*spec.parameters["properties"]] == ["query", "count"]
    assert spec.parameters["required"] == ["query"]


class Sync:
    def search(self, query: str, count: int) -> list[SearchResult]:
        return []


class Narrow:
    async def search(self, query: str) -> list[SearchResult]:
        return []


class Found:
    """Find what it is given."""

    def __init__(self, found: Any) -> None:
        self.found = found

    async def search(self, query: str, count: int) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (Loud, r"Loud is a class: make a provider of it, Loud\(…\)"),
        (object(), "is no provider: .* it needs async def search"),
        (Narrow(), "is no provider: too many positional arguments; it needs async def search"),
    ],
)
def test_what_is_no_provider_is_told(provider: Any, reason: str) -> None:
    """Where the tool is made."""
    with pytest.raises(DefinitionError, match=reason):
        web_search(provider)


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (Sync(), "is not async; it needs async def search"),
        (Found([{"title": "a", "url": "b", "snippet": "c"}]), r"returned \[\{'title'.*SearchResult\(title=…, url=…"),
        (Found(None), "returned None; it needs"),
        (Found([SearchResult("a", "https://owls.example/", None)]), "whose fields are not all text"),  # type: ignore[arg-type]
    ],
)
async def test_a_provider_that_breaks_its_protocol_ends_the_run(provider: Any, reason: str) -> None:
    """No model could mend it."""
    model = ScriptedModel([call("web_search", query="owls")])
    with pytest.raises(StepFailed, match=reason) as failed:
        await run(Agent("asker", tools=[web_search(provider)]), "When?", model=model)
    assert isinstance(failed.value.__cause__, DefinitionError)
