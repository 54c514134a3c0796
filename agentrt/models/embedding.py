"""Embedders of every provider litellm knows, by their names `provider/model`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread

from agentrt.embedding import Embedded, Vector
from agentrt.errors import DefinitionError, ModelError, ModelUnavailable
from agentrt.model import unbilled
from agentrt.models import prices, tokens
from agentrt.models.provider import OWN_MACHINE, check_key, close, load, translated
from agentrt.usage import FREE, Price, Usage

_BATCH: Final = 128
_WINDOW: Final = 8191
"""Tokens of a text, where no table says."""


class LitellmEmbedder:
    """Ask an embedding model of any provider litellm knows: `openai/text-embedding-3-small`, `ollama/…`.

    Keys come from the provider's environment variables, or `api_key`; `api_base` leads to a server of one's own.
    `price` and `dimensions` override litellm's table; a model that may be asked for fewer dimensions is.
    Raises `DefinitionError` where nobody knows the dimensions.
    """

    def __init__(
        self,
        name: str,
        *,
        dimensions: int | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        price: Price | None = None,
        batch_size: int = _BATCH,
    ) -> None:
        entry = prices.entry(name)
        known = dimensions or entry.get("output_vector_size")
        if known is None:
            raise DefinitionError(f"nobody knows how long vectors of {name} are: LitellmEmbedder(…, dimensions=)")
        self.name = name
        self.dimensions = int(known)
        self.batch_size = batch_size
        self.window = int(entry.get("max_input_tokens") or _WINDOW)
        self._shortened = dimensions if dimensions != entry.get("output_vector_size") else None
        self._api_base, self._api_key = api_base, api_key
        given = {"dimensions": dimensions, "api_base": _bare(api_base)}
        self.options = {option: value for option, value in given.items() if value is not None}
        self._own_price = price
        self._has_asked = False

    @property
    def price(self) -> Price | None:
        if self._own_price is not None:
            return self._own_price
        return FREE if self.name.partition("/")[0] in OWN_MACHINE else prices.price(self.name)

    def __repr__(self) -> str:
        return f"<LitellmEmbedder {self.name!r}>"

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens the texts have, at most: counted in a thread."""
        await anyio.to_thread.run_sync(load)
        return await anyio.to_thread.run_sync(tokens.count_texts, self.name, texts)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return a vector of length 1 for each text; raises `ModelError`s."""
        with unbilled():
            await anyio.to_thread.run_sync(load)
            check_key(self.name, self._api_key)
        self._has_asked = True
        try:
            reply = await load().aembedding(input=list(texts), **self._asking())
        except ModelError:
            raise
        except Exception as error:
            raise translated(error, self.name, has_key=self._api_key is not None) from error
        vectors = [_normal(row["embedding"]) for row in sorted(reply.data, key=lambda row: row["index"])]
        if [len(vector) for vector in vectors] != [self.dimensions] * len(texts):
            raise ModelUnavailable(
                f"{len(vectors)} vectors came for {len(texts)} texts, or not of {self.dimensions} dimensions",
                model=self.name,
            )
        read = reply.usage.prompt_tokens if reply.usage is not None else None
        usage = Usage(input_tokens=read) if read else await self._worst_usage(texts)
        return Embedded(vectors, usage)

    async def aclose(self) -> None:
        """Close litellm's connections, which all its models in this process share."""
        if self._has_asked:
            self._has_asked = False
            await close()

    def _asking(self) -> dict[str, Any]:
        asked = {
            "model": self.name,
            "dimensions": self._shortened,
            "encoding_format": "float",
            "api_base": self._api_base,
            "api_key": self._api_key,
        }
        # No retries here: each would be a call that the budget did not reserve.
        return {k: v for k, v in asked.items() if v is not None} | {"num_retries": 0, "max_retries": 0}

    async def _worst_usage(self, texts: Sequence[str]) -> Usage:
        read = await self.count_tokens(texts)
        return Usage(input_tokens=read, uncertain=read)


def _normal(numbers: Sequence[float]) -> Vector:
    """Return a vector of length 1; one without length stays what it is."""
    length = sum(n * n for n in numbers) ** 0.5 or 1.0
    return array("f", [n / length for n in numbers])


def _bare(url: str | None) -> str | None:
    """Return an address without what may be secret in it."""
    if url is None:
        return None
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
