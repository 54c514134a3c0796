"""litellm's embedding models against a server on this machine that speaks OpenAI's protocol."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentrt import AuthenticationFailed, Budget, RateLimited, Retriever, UnknownModel, embedder, run
from agentrt.embedding import Embedder
from agentrt.errors import DefinitionError, ModelUnavailable
from agentrt.index import Document, Indexer, SqliteIndex
from agentrt.models import provider as provider_module
from agentrt.models.embedding import LitellmEmbedder
from agentrt.models.provider import load
from agentrt.usage import FREE, Price

pytestmark = pytest.mark.anyio
MODEL = "openai/text-embedding-3-small"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Import litellm before the first test, which should not pay for it: some seconds."""
    load()


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    asked: list[dict[str, Any]]
    status = 200
    usage: dict[str, int] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        reply: dict[str, Any] = {"error": {"message": "slow down", "type": "error"}}
        if self.server.status == 200:
            data = [
                {"object": "embedding", "index": i, "embedding": [len(text), 0.0, 3.0]}
                for i, text in enumerate(body["input"])
            ]
            reply = {"object": "list", "data": data[::-1], "model": body["model"], "usage": self.server.usage}
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider(("127.0.0.1", 0), Handler)
    server.asked = []
    server.usage = {"prompt_tokens": 7, "total_tokens": 7}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def given(provider: Provider) -> Any:
    made = LitellmEmbedder(MODEL, dimensions=3, api_base=provider.url, api_key="key", batch_size=2)
    yield made
    await made.aclose()


async def test_texts_are_embedded(given: LitellmEmbedder, provider: Provider) -> None:
    """The vectors come in the texts' order, at length 1, with what was read; fewer dimensions are asked for."""
    embedded = await given.embed(["four", "a"])
    assert [list(v) for v in embedded.vectors] == [
        pytest.approx([0.8, 0, 0.6]),
        pytest.approx([0.316228, 0, 0.948683]),
    ]
    assert embedded.usage.input_tokens == 7
    (asked,) = provider.asked
    assert (asked["input"], asked["dimensions"], asked["model"]) == (["four", "a"], 3, "text-embedding-3-small")


async def test_tokens_are_counted_before(given: LitellmEmbedder) -> None:
    """Never fewer than are billed, in the model's own vocabulary."""
    assert 8 <= await given.count_tokens(["eight words are eight tokens in this vocabulary"]) <= 20


async def test_a_bill_that_does_not_come_is_the_worst(given: LitellmEmbedder, provider: Provider) -> None:
    """Where the provider does not say what it read, what was reserved is charged, marked uncertain."""
    provider.usage = {"prompt_tokens": 0, "total_tokens": 0}
    usage = (await given.embed(["four"])).usage
    assert usage.uncertain == usage.input_tokens == await given.count_tokens(["four"])


async def test_errors_are_this_packages(given: LitellmEmbedder, provider: Provider) -> None:
    """A provider's refusal has the class and name it has for chat models."""
    provider.status = 429
    with pytest.raises(RateLimited, match="slow down"):
        await given.embed(["x"])


async def test_vectors_of_another_length_are_refused(provider: Provider) -> None:
    """They would be compared with others in vain."""
    given = LitellmEmbedder(MODEL, dimensions=4, api_base=provider.url, api_key="key")
    with pytest.raises(ModelUnavailable, match="not of 4 dimensions"):
        await given.embed(["x"])
    await given.aclose()


async def test_a_missing_key_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent without a key, and nothing is billed."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given: Embedder = embedder(MODEL)
    with pytest.raises(AuthenticationFailed) as refused:
        await given.embed(["x"])
    assert getattr(refused.value, "billed", None) is False
    await given.aclose()


def test_the_table_knows_price_dimensions_and_window() -> None:
    """What litellm's table says of a model needs not be said again; a server of one's own is free."""
    given = embedder(MODEL)
    assert (given.dimensions, given.window, given.price) == (1536, 8191, Price.per_million(input=0.02, output=0))
    assert LitellmEmbedder("ollama/nomic-embed-text", dimensions=768).price == FREE
    with pytest.raises(DefinitionError, match="dimensions="):
        embedder("openai/nobody-knows-this")
    with pytest.raises(UnknownModel):
        embedder("gpt")


async def test_an_index_is_made_within_a_budget(given: LitellmEmbedder, provider: Provider, tmp_path: Any) -> None:
    """Making and searching an index are paid by the run, call by call, in batches."""
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=given)
    documents = [Document(source=str(i), text="inn " * i) for i in range(1, 6)]
    made = await run(Indexer("build", index), documents, budget=Budget(tokens=1000, usd=1))
    assert (made.output.embedded, made.usage.model_calls, made.usage.input_tokens) == (5, 3, 21)
    assert made.usage.cost == 21 * 20_000
    found = await run(Retriever("guide", index, k=1), "inn")
    assert (len(found.output), found.usage.input_tokens, len(provider.asked)) == (1, 7, 4)
    await index.aclose()


def test_what_was_used_in_an_event_loop_that_has_ended_can_be_closed_in_another() -> None:
    """A program may run twice, and close its models the second time alone."""

    async def logged() -> None:
        pass

    async def use() -> None:
        provider_module.load()
        module = importlib.import_module("litellm.litellm_core_utils.logging_worker")
        module.GLOBAL_LOGGING_WORKER.ensure_initialized_and_enqueue(logged())
        await anyio.lowlevel.checkpoint()

    anyio.run(use)
    anyio.run(provider_module.close)
