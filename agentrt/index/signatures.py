"""Signatures: the signs of vectors' numbers, a bit each, by which the nearest are found before they are compared.

A hundred thousand of 256 bits are 3 MB and compared in some milliseconds; the vectors themselves stay on disk but for
the candidates. That is exact up to `CANDIDATES` passages.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentrt.embedding import Vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Bits: TypeAlias = NDArray[np.uint64]
    Ids: TypeAlias = NDArray[np.int64]

CANDIDATES: Final = 2000


def packed(vector: Vector) -> bytes:
    """Return a vector as it is stored: float16."""
    import numpy as np

    return np.asarray(vector, dtype=np.float32).astype("<f2").tobytes()


def unpacked(stored: bytes) -> Vector:
    """Return a vector as it was stored."""
    import numpy as np

    return array("f", np.frombuffer(stored, dtype="<f2").astype(np.float32).tobytes())


def signature(vector: Vector) -> bytes:
    """Return the signs of a vector's numbers, in whole 8 bytes."""
    import numpy as np

    bits = np.packbits(np.asarray(vector, dtype=np.float32) > 0)
    return bits.tobytes() + bytes(-len(bits) % 8)


class Signatures:
    """Hold the signatures of all passages, by id in ascending order."""

    def __init__(self, rows: Iterable[tuple[int, bytes]]) -> None:
        import numpy as np

        ids, bits = list[int](), list[bytes]()
        for i, row in rows:
            ids.append(i)
            bits.append(row)
        self.ids: Ids = np.array(ids, dtype=np.int64)
        self._bits: Bits = np.frombuffer(b"".join(bits), dtype=np.uint64).reshape(len(ids), -1)

    def __len__(self) -> int:
        return len(self.ids)

    def nearest(self, vector: Vector, n: int, among: Sequence[int] | None = None) -> list[int]:
        """Return the ids of the n passages whose signatures differ least from a vector's, in no order."""
        import numpy as np

        ids, bits = self.ids, self._bits
        if among is not None:
            chosen = np.isin(ids, np.array(among, dtype=np.int64))
            ids, bits = ids[chosen], bits[chosen]
        if len(ids) <= n:
            return list(map(int, ids))
        asked = np.frombuffer(signature(vector), dtype=np.uint64)
        differing = np.bitwise_count(bits ^ asked).sum(axis=1, dtype=np.uint16)
        return list(map(int, ids[np.argpartition(differing, n)[:n]]))


def ranked(vector: Vector, candidates: Sequence[tuple[int, bytes]], n: int) -> list[tuple[int, float]]:
    """Return the n candidates, each an id and a stored vector, with the highest cosine, the best first."""
    import numpy as np

    if not candidates:
        return []
    stored: Any = np.frombuffer(b"".join(row for _, row in candidates), dtype="<f2").reshape(len(candidates), -1)
    scores = stored.astype(np.float32) @ np.asarray(vector, dtype=np.float32)
    order = np.argsort(-scores, kind="stable")[:n]
    return [(candidates[i][0], float(scores[i])) for i in order]
