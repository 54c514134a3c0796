"""Prompts that begin alike: which slot of the local server still knows how much of a prompt.

Reading is what costs on a small machine: eight prompts with the same 670 tokens of examples in front take eight slots
two minutes, since each slot reads for itself. So a beginning that several prompts share is read once and saved to a
file, and a slot that does not know it restores it, in milliseconds. This module decides; `local` does.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

WORTH: Final = 600
"""Characters that are worth a file: some 150 tokens, a second of reading; restoring takes a twentieth of one."""
_REMEMBERED: Final = 64
_FILES: Final = 8


@dataclass(slots=True, eq=False)
class Slot:
    """Hold what one of the server's slots has read; `text` is empty where nobody knows."""

    id: int
    text: str = ""
    is_taken: bool = False


class SlotTable:
    """Remember what the slots have read and which beginnings are saved; nothing here waits."""

    def __init__(self, slots: int) -> None:
        self.slots = [Slot(i) for i in range(slots)]
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._asked: deque[str] = deque(maxlen=_REMEMBERED)
        self._saved: OrderedDict[str, str] = OrderedDict()
        self._files = 0

    def announce(self, prompt: str) -> None:
        """Note a prompt that is going to be asked, before it is its turn."""
        if prompt not in self._recent:
            self._recent.append(prompt)

    def take(self, prompt: str) -> Slot | None:
        """Return the free slot that knows most of the prompt, or None if all are taken; end with `give_back`."""
        self._asked.append(prompt)
        free = [slot for slot in self.slots if not slot.is_taken]
        if not free:
            return None
        # Of slots that know equally much, the one with least to lose.
        slot = max(free, key=lambda s: (_common(s.text, prompt), -len(s.text)))
        slot.is_taken = True
        return slot

    def give_back(self, slot: Slot, prompt: str) -> None:
        slot.text, slot.is_taken = prompt, False

    def forget(self) -> None:
        """Note that the server chose slots itself, so that nobody knows what the free ones hold now."""
        for slot in self.slots:
            if not slot.is_taken:
                slot.text = ""

    def saved(self, prompt: str) -> tuple[str, str] | None:
        """Return the longest saved beginning of the prompt, with its file's name."""
        known = max((text for text in self._saved if prompt.startswith(text)), key=len, default=None)
        if known is None:
            return None
        self._saved.move_to_end(known)
        return known, self._saved[known]

    def worth_saving(self, prompt: str) -> str | None:
        """Return the beginning of a prompt that others have too, unless it, or nearly all of it, is saved."""
        known = self.saved(prompt)
        least = WORTH + (len(known[0]) if known else 0)
        shared = [_common(other, prompt) for other in self._recent if other != prompt]
        if self._asked.count(prompt) > 1:  # draws of one prompt that could not be one request
            shared.append(len(prompt))
        length = min((n for n in shared if n >= least), default=0)  # the least is what the largest family shares
        end = prompt.rfind("\n", 0, length) + 1  # a token may reach over the end of what is shared, but not over a line
        return prompt[:end] if end >= least else None

    def save(self, text: str) -> str:
        """Return the name of the file to save a beginning in; the oldest file is used again."""
        if len(self._saved) >= _FILES:
            _, file = self._saved.popitem(last=False)
        else:
            file, self._files = f"prefix-{self._files}.bin", self._files + 1
        self._saved[text] = file
        return file

    def drop(self, text: str) -> None:
        """Forget a beginning whose file could not be written or read."""
        self._saved.pop(text, None)

    def is_worth_restoring(self, text: str, slot: Slot, prompt: str) -> bool:
        return len(text) - _common(slot.text, prompt) >= WORTH // 2


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin alike, by halving: comparing slices is a thousand times cheaper."""
    same, most = 0, min(len(one), len(other))
    while same < most:
        middle = (same + most + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same
