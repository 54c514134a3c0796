"""Duplicates: texts that say the same but for case, space and the signs around words, or nearly so."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from agentrt.errors import DefinitionError
from agentrt.index.script import WORD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BEFORE: Final = "\"'“‘„«*_"
_AFTER: Final = "\"'”’“»*_.,;:!…。，；：！"
"""Signs that mean nothing before and after a word; within it, and in `-5`, `(5)`, `5%` and `C#`, they do."""
_SHINGLE: Final = 5
_BANDS: Final = 16
_ROWS: Final = 8
_PRIME: Final = (1 << 31) - 1
"""A permutation of the hashes below it is h → (a·h + b) mod p; products stay below 2^64."""
_SEED: Final = 7


class Duplicates:
    """Remember texts, and tell of each new one which earlier one it repeats.

    Two texts are near duplicates if they have the same numbers, and share at least `similarity` of their runs of five
    words (Jaccard), as estimated by MinHash (Broder 1997) with 128 permutations, give or take 0.03; candidates are
    those that agree in one of 16 bands of 8. Takes 1.5 kB a text. Raises `DefinitionError` without numpy.
    """

    def __init__(self, similarity: float = 0.9) -> None:
        try:
            import numpy as np
        except ImportError as error:
            raise DefinitionError("curation needs numpy: pip install 'agentrt[curation]'") from error

        self._similarity = similarity
        self._exact: dict[bytes, str] = {}
        self._names: list[str] = []
        self._signatures: list[NDArray[np.uint32]] = []
        self._bands: dict[bytes, list[int]] = {}
        random = np.random.default_rng(_SEED)
        self._factors: Any = random.integers(1, _PRIME, (_BANDS * _ROWS, 1), dtype=np.uint64)
        self._terms: Any = random.integers(0, _PRIME, (_BANDS * _ROWS, 1), dtype=np.uint64)

    def seen(self, name: str, text: str, *, label: str = "") -> tuple[str, float] | None:
        """Return the name of an earlier text that this one repeats, and how similar it is; else remember it.

        label: what else is said of the text, such as its title; texts of different labels are no duplicates.
        """
        said = [word for word in map(_bare, text.casefold().split()) if word]
        digest = _digest(label, " ".join(said))
        if digest in self._exact:
            return self._exact[digest], 1.0
        signature = self._signature(WORD.findall(" ".join(said)))
        group = _digest(label, " ".join(word for word in said if any(map(str.isdigit, word))))
        keys = _keys(signature, group) if signature is not None else ()
        near = self._nearest(signature, keys) if signature is not None else None
        if near is not None:
            return near
        self._exact[digest] = name
        if signature is not None:
            self._remember(name, signature, keys)
        return None

    def _signature(self, words: Sequence[str]) -> NDArray[np.uint32] | None:
        """Return the least hash of all shingles under each permutation; None for a text too short to compare."""
        import numpy as np

        if len(words) < 2 * _SHINGLE:
            return None
        runs = {" ".join(words[i : i + _SHINGLE]) for i in range(len(words) - _SHINGLE + 1)}
        hashes = np.fromiter((zlib.crc32(run.encode("utf-8", "replace")) % _PRIME for run in runs), dtype=np.uint64)
        least = np.full(_BANDS * _ROWS, _PRIME, dtype=np.uint64)
        for i in range(0, len(hashes), 4096):  # of a long text a part at a time, so that memory stays small
            permuted = (self._factors * hashes[None, i : i + 4096] + self._terms) % np.uint64(_PRIME)
            least = np.minimum(least, permuted.min(axis=1))
        return least.astype(np.uint32)

    def _nearest(self, signature: NDArray[np.uint32], keys: Sequence[bytes]) -> tuple[str, float] | None:
        candidates = {i for key in keys for i in self._bands.get(key, ())}
        best = max(((float((self._signatures[i] == signature).mean()), -i) for i in candidates), default=(0.0, 0))
        return (self._names[-best[1]], best[0]) if best[0] >= self._similarity else None

    def _remember(self, name: str, signature: NDArray[np.uint32], keys: Sequence[bytes]) -> None:
        for key in keys:
            self._bands.setdefault(key, []).append(len(self._names))
        self._names.append(name)
        self._signatures.append(signature)


def _bare(word: str) -> str:
    return word.lstrip(_BEFORE).rstrip(_AFTER)


def _digest(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


def _keys(signature: NDArray[np.uint32], group: bytes) -> list[bytes]:
    """Return what texts of a group agree in if they are likely to be alike: a part of their signatures, numbered."""
    data, size = signature.tobytes(), 4 * _ROWS
    return [b"%s%c%s" % (group, band, data[band * size : (band + 1) * size]) for band in range(_BANDS)]
