"""Vectors of an index in memory: the nearest are looked for by the signs of their numbers, then compared.

A vector of 256 numbers takes 256 bytes, and 32 for the signs; among a hundred thousand the nearest are found in some
milliseconds, where a product with all of them takes four times as long. That is exact up to `CANDIDATES` vectors.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from agentrt.embedding import Vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Bits: TypeAlias = NDArray[np.uint64]
    Ids: TypeAlias = NDArray[np.int64]
    Bytes: TypeAlias = NDArray[np.int8]

CANDIDATES: Final = 5000


def packed(vectors: Sequence[Vector]) -> list[bytes]:
    """Return vectors as they are stored: a byte a number, of their directions alone."""
    import numpy as np

    if not vectors:
        return []
    numbers = np.array([np.asarray(vector, dtype=np.float32) for vector in vectors])
    scales = 127 / np.maximum(np.abs(numbers).max(axis=1, keepdims=True), 1e-12)
    return list(map(bytes, np.rint(numbers * scales).astype(np.int8)))


def unpacked(stored: bytes) -> Vector:
    """Return a vector as it was stored, of length 1."""
    import numpy as np

    numbers = np.frombuffer(stored, dtype=np.int8).astype(np.float32)
    return array("f", (numbers / max(float(np.linalg.norm(numbers)), 1e-12)).tobytes())


class StoredVectors:
    """Hold the vectors of all passages, by id."""

    def __init__(self, rows: Iterable[tuple[int, bytes]]) -> None:
        import numpy as np

        ids, stored = array("q"), bytearray()
        for i, row in rows:
            ids.append(i)
            stored += row
        self._ids: Ids = np.frombuffer(ids, dtype=np.int64)
        self._numbers: Bytes = np.frombuffer(stored, dtype=np.int8).reshape(len(ids), -1) if ids else _no_rows()
        self._signs = _signs(self._numbers)

    def __len__(self) -> int:
        return len(self._ids)

    def nearest(self, vector: Vector, n: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        """Return the n passages with the highest cosine, the best first."""
        import numpy as np

        if not len(self):
            return []
        asked = np.asarray(vector, dtype=np.float32)
        places = self._candidates(asked, max(CANDIDATES, n), among)
        numbers = self._numbers[places].astype(np.float32)
        # Not `@`: BLAS would wake its threads for this little, and wait for them where the cores are busy.
        lengths = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
        scores = np.einsum("ij,j->i", numbers, asked) / np.maximum(lengths, 1e-12)
        order = np.argsort(-scores, kind="stable")[:n]
        return [(int(i), float(score)) for i, score in zip(self._ids[places[order]], scores[order], strict=True)]

    def _candidates(self, asked: Floats, n: int, among: Sequence[int] | None) -> Ids:
        """Return the places of the n vectors whose signs differ least from those of the one that is asked for."""
        import numpy as np

        places = np.arange(len(self._ids))
        if among is not None:
            places = places[np.isin(self._ids, np.array(among, dtype=np.int64))]
        if len(places) <= n:
            return places
        signs = self._signs if among is None else self._signs[:, places]
        differing = np.zeros(len(places), dtype=np.uint16)
        for row, word in zip(signs, _signs(asked[None]), strict=True):  # not at once: that takes thirty times as long
            differing += np.bitwise_count(row ^ word)
        return places[np.argpartition(differing, n)[:n]]


def _signs(numbers: Floats | Bytes) -> Bits:
    """Return the signs of the numbers of each vector, a bit each: row i has bits 64i to 64i + 63 of all vectors."""
    import numpy as np

    bits = np.packbits(numbers > 0, axis=1)
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64).T)


def _no_rows() -> Bytes:
    import numpy as np

    return np.zeros((0, 8), dtype=np.int8)
