"""Embeddings: texts as vectors, the models that make them, and the step that asks one within the budget."""

from __future__ import annotations

import base64
import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Final, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, TOKENS, USD
from agentrt.errors import ModelUnavailable, UnknownModel, UnknownPrice
from agentrt.events import CacheHit
from agentrt.forecast import reading_interval
from agentrt.interval import Interval, Outlook
from agentrt.ledger import Request
from agentrt.model import UNPRICED, is_unbilled
from agentrt.node import Context, Node
from agentrt.retry import Retry
from agentrt.usage import FREE, Price, Usage
from agentrt.value import Value

Vector: TypeAlias = Sequence[float]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Hold the vectors of some texts, in their order, and what they cost; the runtime prices `usage`."""

    vectors: Sequence[Vector]
    usage: Usage


@runtime_checkable
class Embedder(Protocol):
    """Turn texts into vectors. Implementations raise `ModelError`s only, each vendor error mapped once.

    name: what indexes remember it by: vectors of two names are not compared.
    dimensions: how many numbers a vector has.
    batch_size: how many texts one call may have.
    window: how many tokens of a text count at most.
    price: None where nobody knows it, `FREE` where nothing is charged.

    One that `embedder(name, …)` makes has `options`, too: what it was given besides its name, but for secrets. An index
    that was made with one that has none is opened with it again, and not by its name.
    """

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def window(self) -> int: ...

    @property
    def price(self) -> Price | None: ...

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens a call will be billed, never fewer; 0 says that it is no call of a model at all."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return a vector of length 1 for each text."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


_ADAPTERS: Final = {"wordllama": "agentrt.models.wordllama:WordllamaEmbedder"}
_ANY_PROVIDER: Final = "agentrt.models.embedding:LitellmEmbedder"


def embedder(name: str, *, dimensions: int | None = None) -> Embedder:
    """Return a new embedder: `wordllama`, which runs in this process and is free, or any litellm `provider/model`.

    dimensions: how many numbers its vectors are to have, where a provider lets one choose or nobody knows.
    Raises `UnknownModel` saying what to write instead, and `DefinitionError` naming the extra to install.
    """
    adapter = _ADAPTERS.get(name)
    provider, slash, rest = name.partition("/")
    if adapter is None and not (provider and slash and rest):
        raise UnknownModel(
            f"unknown embedder {name!r}: write wordllama for the one in this process, or provider/model, like "
            "openai/text-embedding-3-small"
        )
    options = {} if dimensions is None else {"dimensions": dimensions}
    found: Embedder = resolve_name(adapter or _ANY_PROVIDER)(*(() if adapter else (name,)), **options)
    return found


class Vectors(Value):
    """Hold vectors as text, for the record: base64 of their numbers as float32, little-endian, one after another."""

    dimensions: int
    data: str

    @classmethod
    def of(cls, vectors: Sequence[Vector], dimensions: int) -> Self:
        numbers = array("f")
        for vector in vectors:
            numbers.extend(vector)
        return cls(dimensions, base64.b64encode(_swapped(numbers).tobytes()).decode())

    def __iter__(self) -> Iterator[Vector]:
        numbers = array("f")
        numbers.frombytes(base64.b64decode(self.data))
        numbers = _swapped(numbers)
        return (numbers[i : i + self.dimensions] for i in range(0, len(numbers), self.dimensions))


def _swapped(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


class Embeddings(Node[Sequence[str], Vectors]):
    """Ask an embedder for the vectors of some texts, as a step of its own.

    remember: of how many texts, those used last, vectors are kept: they cost nothing again.
    """

    kind = "embeddings"

    def __init__(self, embedder: Embedder, *, remember: int = 0, retry: Retry | None = None) -> None:
        super().__init__("embeddings", input=list[str], output=Vectors, retry=retry)
        self.embedder = embedder
        self.attributes = {"model": embedder.name, "dimensions": embedder.dimensions}
        self._known = _Remembered(remember)

    def interval(self, outlook: Outlook) -> Interval:
        """Bound one call with one text, as retrievers make it; one that remembers may not have to make it."""
        given = self.embedder
        return reading_interval(given.name, given.price, given.window, outlook.path) if _bills(given) else Interval()

    async def invoke(self, ctx: Context, value: Sequence[str], /) -> Vectors:
        vectors = {text: self._known[text] for text in dict.fromkeys(value) if text in self._known}
        missing = [text for text in dict.fromkeys(value) if text not in vectors]
        if missing:
            made = dict(zip(missing, await _embed(ctx, self.embedder, missing), strict=True))
            self._known.put(made)
            vectors |= made
        else:
            ctx.record(CacheHit(path=ctx.path, at=ctx.clock(), model=self.embedder.name))
        return Vectors.of([vectors[text] for text in value], self.embedder.dimensions)


class _Remembered(OrderedDict[str, Vector]):
    """Keep the vectors used last."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __getitem__(self, text: str) -> Vector:
        self.move_to_end(text)
        return super().__getitem__(text)

    def put(self, vectors: Mapping[str, Vector]) -> None:
        for text, vector in vectors.items():
            self[text] = vector
        while len(self) > self._size:
            self.popitem(last=False)


def _bills(embedder: Embedder) -> bool:
    return embedder.price != FREE


async def vectors_of(embedder: Embedder, texts: Sequence[str]) -> Sequence[Vector]:
    """Return the vectors of texts; raises as `checked` does."""
    return checked(embedder, texts, (await embedder.embed(texts)).vectors)


def checked(embedder: Embedder, texts: Sequence[str], vectors: Sequence[Vector]) -> Sequence[Vector]:
    """Return the vectors of texts; raises `ModelUnavailable` where they are too few, or of another length."""
    if len(vectors) != len(texts) or any(len(vector) != embedder.dimensions for vector in vectors):
        lengths = ", ".join(map(str, sorted({len(vector) for vector in vectors}))) or "none"
        raise ModelUnavailable(
            f"{len(vectors)} vectors came for {len(texts)} texts, of {lengths} numbers, not {embedder.dimensions}",
            model=embedder.name,
        )
    return vectors


async def _embed(ctx: Context, embedder: Embedder, texts: Sequence[str]) -> Sequence[Vector]:
    """Reserve what the call may cost, call, and settle what was used (rule B9), as `agentrt.model.ask` does."""
    tokens = min(await embedder.count_tokens(texts), embedder.window * len(texts))
    if not tokens:
        return await vectors_of(embedder, texts)
    reservation = await ctx.reserve(_worst_case(embedder, tokens, ctx), MODEL_CALLS)
    try:
        embedded = await embedder.embed(texts)
    except BaseException as error:
        if is_unbilled(error):
            reservation.release()
        else:
            reservation.forfeit()
        raise
    usage = embedded.usage
    if embedder.price is not None and not usage.cost:
        usage = msgspec.structs.replace(usage, cost=embedder.price.cost(usage))
    reservation.settle(usage)
    return checked(embedder, texts, embedded.vectors)


def _worst_case(embedder: Embedder, tokens: int, ctx: Context) -> Request:
    price = embedder.price
    if price is None:
        if "usd" in ctx.budget.remaining:
            raise UnknownPrice(UNPRICED, model=embedder.name)
        price = FREE
    fixed = [0] * len(DIMENSIONS)
    fixed[INPUT] = fixed[TOKENS] = tokens
    fixed[USD] = price.request + tokens * price.at(tokens).input
    return Request(fixed)


async def embed_all(ctx: Context, embeddings: Embeddings, texts: Sequence[str], *, limit: int = 4) -> list[Vector]:
    """Return the vectors of any number of texts, asked for in few calls, at most `limit` at once."""
    size = embeddings.embedder.batch_size
    batches = [list(texts[i : i + size]) for i in range(0, len(texts), size)]
    return [vector for vectors in await ctx.map(embeddings, batches, limit=limit) for vector in vectors]
