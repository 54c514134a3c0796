"""The names under which what a server has is known here: distinct, and the same each time it is asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import count
from typing import Final

LONGEST_NAME: Final = 64
"""What providers take as the name of a tool."""
READY_MADE: Final = ("resources", "read_resource", "prompts", "get_prompt")
"""The nodes that are made besides, for servers that have resources or prompts."""
MORE: Final = "more"
"""The node that reads on in results that were cut."""


def plain_name(stated: str) -> str:
    """Return a name in letters, digits, `_` and `-`, as all providers take it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stated).strip("_")


def distinct_names(prefix: str, stated: Collection[str], taken: Collection[str] = ()) -> Mapping[str, str]:
    """Return the name here of each name there, `PREFIX.name`; of several that would be one the later are numbered.

    A name that is plain there is kept as it is, and the others follow in their alphabet's order, so that it does not
    matter in which order a server lists them.
    """
    names: dict[str, str] = {}
    used = set(taken)
    for one in sorted(stated, key=lambda name: (plain_name(name) != name, name)):
        names[one] = _free(f"{prefix}.{plain_name(one)}", used)
        used.add(names[one])
    return names


def own_names(prefix: str, taken: Collection[str]) -> Mapping[str, str]:
    """Return the names of the nodes that are made besides: they give way to what the server has."""
    return distinct_names(prefix, (MORE, *READY_MADE), taken)


def _free(name: str, used: Collection[str]) -> str:
    if name not in used:
        return name
    numbered = (f"{name[: LONGEST_NAME - len(str(n)) - 1]}_{n}" for n in count(2))
    return next(one for one in numbered if one not in used)
