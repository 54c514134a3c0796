"""Languages: which one a text is in."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Final

from agentrt.errors import DefinitionError

_MOST: Final = 5000
_SURE: Final = 0.95
"""How likely a language has to be: lists, code, prices and names of few words are none for sure."""
_NO_LANGUAGE: Final = "zxx"


def language_detector(*wanted: str) -> Callable[[str], str]:
    """Return what tells the language of a text from its first 5,000 characters, as ISO 639 has it, such as "en".

    Of a text that may well be in another it says "": of many that are short, and of code.

    Raises `DefinitionError` for a wanted language that is none it can tell, and without the extra `agentrt[curation]`.
    """
    try:
        import py3langid
    except ImportError as error:
        raise DefinitionError("telling languages needs py3langid: pip install 'agentrt[curation]'") from error

    known = {code for code, _ in py3langid.rank("")} if wanted else set(wanted)
    for code in wanted:
        if code not in known:
            right = next((k for k in known if k == code.strip().lower()), "its code in ISO 639, such as en or de")
            raise DefinitionError(f"{code!r} is no language that can be told: write {right}")

    def language(text: str) -> str:
        ranked = [(str(code), float(score)) for code, score in py3langid.rank(text[:_MOST])]
        best, highest = ranked[0]
        share = 1 / sum(exp(score - highest) for _, score in ranked)  # of all, the scores being logarithms
        return best if share >= _SURE and best != _NO_LANGUAGE else ""

    return language
