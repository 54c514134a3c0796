"""Notes: a memory that agents write and search, kept where their runs are kept, and longer than these."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from agentrt import AgentrtError, Context, InvalidArguments, Tool
from agentrt.journal import Note
from agentrt.passage import Passage
from agentrt.text import shortened
from agentrt_tools.excerpt import MOST_CHARACTERS, excerpt

MOST_NOTES: Final = 1_000
"""So many notes a space holds; a few more if they are written side by side."""
MOST_TEXT: Final = 20_000
_MOST_NAME: Final = 100
_FOUND: Final = 20
_SHOWN: Final = 200
_NAMED: Final = 5
_SECONDS: Final = 30.0


class NoteError(AgentrtError):
    """Say why a note cannot be had or kept, and what to do."""


def notes(
    space: str = "notes", *, name: str = "notes", untrusted: bool = True, most: int = MOST_CHARACTERS
) -> list[Tool[..., str]]:
    """Return the tools `notes.write`, `notes.search`, `notes.read` and `notes.delete` of one space.

    All runs that are kept in one store have the notes of a space in common. name: what the tools are called, for agents
    with several spaces. untrusted: whether notes may hold what once came from the outside world. most: how many
    characters a call returns.

    A run without a journal raises `DefinitionError` where one of them is used.
    """
    tools = _Notes(space, most)
    return [
        Tool(tools.write, name=f"{name}.write", effect="idempotent", timeout=_SECONDS),
        Tool(tools.search, name=f"{name}.search", effect="read", timeout=_SECONDS, untrusted=untrusted),
        Tool(tools.read, name=f"{name}.read", effect="read", timeout=_SECONDS, untrusted=untrusted),
        Tool(tools.delete, name=f"{name}.delete", effect="idempotent", timeout=_SECONDS),
    ]


class _Notes:
    """Hold what the tools of one space share."""

    def __init__(self, space: str, most: int) -> None:
        self._space = space
        self._most = most

    async def write(self, ctx: Context, name: str, text: str) -> str:
        """Keep a note for later, also for other conversations. A note of the same name is replaced.

        Args:
            name: A short name that says what the note is about, like opening hours.
            text: All that the note is to hold.
        """
        name = name.strip()
        if not name or len(name) > _MOST_NAME or not name.isprintable():
            raise InvalidArguments(f"name: one line of at most {_MOST_NAME} characters: use a short name")
        if not text.strip() or len(text) > MOST_TEXT:
            raise InvalidArguments(f"text: {len(text):,} characters, from 1 to {MOST_TEXT:,}: write several notes")
        known = await self._known(ctx)
        name = _same(name, known) or name
        if name not in known and len(known) >= MOST_NOTES:
            raise NoteError(f"there are {len(known):,} notes, and no room for another: replace or delete one first")
        await ctx.notes.write_note(self._space, name, text)
        return f"the note {name!r} was {'replaced' if name in known else 'kept'}"

    async def search(self, ctx: Context, query: str = "", start: int = 0) -> str:
        """Find notes that share words with a query, the best first: each as its name and how it begins.

        Args:
            query: Words to look for. Leave it out to list all notes, the newest first.
            start: Where to go on reading a long answer.
        """
        from agentrt.stores.fts import FullTextIndex

        known = await self._known(ctx)
        found = sorted(known.values(), key=lambda note: note.at, reverse=True)
        if query.strip():
            index = FullTextIndex(Passage(text=n.text, source=n.name, title=n.name) for n in known.values())
            found = [known[passage.source] for passage in await index.search(query, _FOUND)]
        return excerpt("\n".join(map(_line, found)) or "(no such notes)", start, self._most)

    async def read(self, ctx: Context, name: str, start: int = 0) -> str:
        """Read a note.

        Args:
            name: The note's name.
            start: Where to go on reading a long note.
        """
        known = await self._known(ctx)
        return excerpt(_named(name, known).text, start, self._most)

    async def delete(self, ctx: Context, name: str) -> str:
        """Delete a note that is wrong or of no use any more.

        Args:
            name: The note's name.
        """
        same = _same(name, await self._known(ctx))
        if same is not None:
            await ctx.notes.write_note(self._space, same, None)
        return f"there is no note {same or name!r} any more"

    async def _known(self, ctx: Context) -> Mapping[str, Note]:
        return {note.name: note for note in await ctx.notes.notes(self._space)}


def _line(note: Note) -> str:
    return f"{note.name}: {shortened(' '.join(note.text.split()), _SHOWN)}"


def _same(name: str, known: Mapping[str, Note]) -> str | None:
    """Return the name under which a note is known that differs in case and blanks alone, if there is one."""
    if name in known:
        return name
    return next((other for other in known if _key(other) == _key(name)), None)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _named(name: str, known: Mapping[str, Note]) -> Note:
    if (same := _same(name, known)) is not None:
        return known[same]
    like = get_close_matches(name, known, _NAMED) or sorted(known, key=lambda n: known[n].at, reverse=True)[:_NAMED]
    raise NoteError(f"there is no note {name!r}: search for it; there are {', '.join(map(repr, like)) or 'none yet'}")
