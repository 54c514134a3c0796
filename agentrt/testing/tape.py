"""Tapes: the text of a recording, a line about the model and one for each interaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from pydantic import TypeAdapter

from agentrt.testing.interaction import Interaction, key, plain
from agentrt.usage import Price

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Tape:
    """Hold what was recorded of one model, in the order in which it was asked."""

    name: str
    price: Price | None
    interactions: tuple[Interaction, ...] = ()

    def dump(self) -> str:
        """Return the tape as JSON lines."""
        head = {"cassette": _FORMAT, "model": self.name, "price": plain(self.price)}
        return "".join(f"{line}\n" for line in (json.dumps(head), *(i.to_line() for i in self.interactions)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote; raises `ValueError` naming the line that is wrong."""
        interactions: list[Interaction] = []
        name, price = "", None
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if number == 1:
                    name, price = _head(line)
                else:
                    interactions.append(Interaction.from_line(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"line {number} is none of a cassette's: {error}") from error
        if not name:
            raise ValueError("it is empty")
        return cls(name, price, tuple(interactions))

    def in_order_of(self, other: Sequence[Interaction]) -> Self:
        """Return the same tape with its interactions where another one has them, new ones last.

        So a tape that is recorded anew differs from the old one in what has changed, whatever came first this time.
        """
        places: dict[str, int] = {}
        for place, interaction in enumerate(other):
            places.setdefault(key(interaction.request), place)
        ordered = sorted(self.interactions, key=lambda i: places.get(key(i.request), len(other)))
        return type(self)(self.name, self.price, tuple(ordered))


def _head(line: str) -> tuple[str, Price | None]:
    head = json.loads(line)
    if head["cassette"] != _FORMAT:
        raise ValueError(f"format {head['cassette']}, and this version reads format {_FORMAT}")
    return head["model"], _prices().validate_python(head["price"])


@cache
def _prices() -> TypeAdapter[Price | None]:
    return TypeAdapter(Price | None)
