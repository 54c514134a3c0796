"""The embedder in this process: WordLlama, the mean of static vectors of tokens; no network, no cost."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from agentrt.embedding import Embedded
from agentrt.errors import DefinitionError
from agentrt.usage import FREE, Price, Usage

_DIMENSIONS: Final = 256
_BATCH: Final = 256
_LOADING: Final = threading.Lock()


class WordllamaEmbedder:
    """Turn texts into vectors of 256 dimensions, in a thread: 1,000 texts of 200 words take about a second of one core.

    Bills no tokens and counts as no model call. Needs the extra `agentrt[retrieval]`.
    """

    name: str = "wordllama"
    dimensions: int = _DIMENSIONS
    batch_size: int = _BATCH
    window: int = 1_000_000
    price: Price | None = FREE
    options: Mapping[str, int] = {}

    def __init__(self) -> None:
        if importlib.util.find_spec("wordllama") is None:
            raise DefinitionError("the embedder wordllama is not installed: pip install 'agentrt[retrieval]'")

    def __repr__(self) -> str:
        return "<WordllamaEmbedder>"

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return 0

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return a vector for each text: of length 1, or 0 for one without words."""
        return Embedded(await anyio.to_thread.run_sync(_vectors, texts), Usage())

    async def aclose(self) -> None:
        """Keep what is loaded: it is the process's, 32 MB."""


def _vectors(texts: Sequence[str]) -> list[array[float]]:
    import numpy as np

    with _LOADING:  # one thread loads, and one at a time works: the library's tokenizer uses all cores itself
        means = _model().embed([_writable(text) for text in texts])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return [array("f", row) for row in map(bytes, means)]


def _writable(text: str) -> str:
    return text.encode(errors="replace").decode() or " "


@cache
def _model() -> Any:
    """Load the weights that the package brings along: left to itself it would look for others in the network."""
    with _logging_kept():
        wordllama = importlib.import_module("wordllama")
    return wordllama.WordLlama.load(cache_dir=Path(str(wordllama.__file__)).parent, disable_download=True)


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Undo what the library does to everybody's logging where it is imported: `basicConfig(level=INFO)`, twice."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
