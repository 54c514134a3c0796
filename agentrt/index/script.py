"""Scripts: the words of a text, also where no spaces stand between them."""

from __future__ import annotations

import re
from typing import Final

_EACH: Final = (
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d"
)
_EACH_RARE: Final = "\U00020000-\U0003ffff"
_FOUR: Final = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
WORD: Final = re.compile(
    rf"(?:[{_EACH}{_EACH_RARE}]|[{_FOUR}]{{1,4}})[^\w\s]{{0,40}}|[^\s{_EACH}{_EACH_RARE}{_FOUR}]{{1,40}}"
)
"""A word, or what counts as one where no spaces tell, so that every text can be counted and cut.

That is each character of Chinese and Japanese, each four of Thai, Lao, Tibetan, Burmese and Khmer, with the signs after
them, and 40 characters of anything else.
"""


def count_words(text: str) -> int:
    """Return how many words a text has, as `WORD` says."""
    return sum(1 for _ in WORD.finditer(text))
