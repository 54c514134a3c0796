"""What an index remembers of the embedder that it was made with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Self

from agentrt.embedding import Embedder, embedder
from agentrt.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Made:
    """Hold the name of the embedder that an index was made with, how many numbers its vectors have, and what besides
    its name makes it again, as JSON: none that is `null` is found again by its name.
    """

    name: str
    dimensions: int
    options: str = field(default="{}", compare=False)

    @classmethod
    def by(cls, given: Embedder) -> Self:
        return cls(given.name, given.dimensions, json.dumps(getattr(given, "options", None)))

    def again(self) -> Embedder:
        """Return the embedder once more; raises `DefinitionError` for one that only code can make."""
        options = json.loads(self.options)
        if options is None or options.keys() - {"dimensions"}:  # a file does not say where queries and keys are sent
            where = f", at {options['api_base']}" if options and options.get("api_base") else ""
            raise DefinitionError(
                f"the index was made with {self.name}{where}: its name alone does not lead there; open the index with "
                'embedder=…, or by words alone with mode="text"'
            )
        return embedder(self.name, **options)
