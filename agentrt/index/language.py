"""Languages: which one a text is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentrt.errors import DefinitionError

_MOST: Final = 5000


def language_detector(*wanted: str) -> Callable[[str], str]:
    """Return what tells the language of a text from its first 5,000 characters, as ISO 639 has it, such as "en".

    Of a text of a few words it is a guess. Raises `DefinitionError` for a wanted language that is none it can tell,
    and without the extra `agentrt[curation]`.
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
        return str(py3langid.classify(text[:_MOST])[0])

    return language
