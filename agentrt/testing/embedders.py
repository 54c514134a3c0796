"""Embedders for tests: vectors by a function of a text."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from agentrt.embedding import Embedded, Vector
from agentrt.usage import FREE, Price, Usage


class FunctionEmbedder:
    """Make vectors by a function of a text; `asked` are the batches it was asked for.

    With a price that is not `FREE` each word is billed as a token.
    """

    def __init__(
        self,
        function: Callable[[str], Vector],
        dimensions: int,
        *,
        name: str = "test/embedder",
        price: Price | None = FREE,
        batch_size: int = 64,
        window: int = 8192,
    ) -> None:
        self.name = name
        self.dimensions = dimensions
        self.batch_size = batch_size
        self.window = window
        self.price = price
        self.asked: list[Sequence[str]] = []
        self._function = function

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return 0 if self.price == FREE else sum(len(text.split()) for text in texts)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.asked.append(tuple(texts))
        usage = Usage(input_tokens=await self.count_tokens(texts))
        return Embedded([_normal(self._function(text)) for text in texts], usage)

    async def aclose(self) -> None:
        """Release nothing."""


def _normal(vector: Vector) -> Vector:
    length = sum(n * n for n in vector) ** 0.5 or 1.0
    return array("f", [n / length for n in vector])
