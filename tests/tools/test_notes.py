"""Notes: what an agent writes in one run, it finds in another."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrt import Agent, DefinitionError, Journal, ModelRequest, replay, run
from agentrt.messages import ToolMessage
from agentrt.stores import MemoryJournal, SqliteJournal
from agentrt.testing import FunctionModel, call
from agentrt.tool import tool_spec
from agentrt_tools import notes

pytestmark = pytest.mark.anyio
module = importlib.import_module("agentrt_tools.notes")  # the package has the function under this name


def clerk(*turns: Any, tools: Sequence[Any] = ()) -> Agent[str, str]:
    """Return an agent that makes calls, one turn after the other, and says what it was told last."""

    def say(request: ModelRequest) -> Any:
        told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
        return [turns[len(told)]] if len(told) < len(turns) else told[-1]

    return Agent("clerk", model=FunctionModel(say), tools=tools or notes(untrusted=False))


async def told(journal: Journal | None, *turns: Any, **options: Any) -> str:
    return (await run(clerk(*turns, **options), "go", journal=journal)).output


def write(name: str, text: str) -> Any:
    return call("notes_write", name=name, text=text)


async def test_another_run_finds_what_was_written(tmp_path: Path) -> None:
    """In the store where both are kept, after the process has ended."""
    journal = SqliteJournal(tmp_path / "runs.db")
    assert await told(journal, write("inn", "The Zura Inn costs 74.")) == "the note 'inn' was kept"
    await journal.aclose()
    journal = SqliteJournal(tmp_path / "runs.db")
    assert await told(journal, call("notes_search", query="what does Zura cost?")) == "inn: The Zura Inn costs 74."
    assert await told(journal, call("notes_read", name="inn")) == "The Zura Inn costs 74."
    assert await told(journal, write("inn", "Closed."), call("notes_read", name="inn")) == "Closed."
    assert await told(journal, call("notes_delete", name="inn")) == "there is no note 'inn' any more"
    assert await told(journal, call("notes_delete", name="inn")) == "there is no note 'inn' any more"
    assert await told(journal, call("notes_search")) == "(no such notes)"
    await journal.aclose()


async def test_names_that_differ_in_case_and_blanks_are_one() -> None:
    """A note is found, replaced and deleted under each of them, and keeps the name that it had."""
    journal = MemoryJournal()
    assert await told(journal, write(" Opening hours ", "9 to 5")) == "the note 'Opening hours' was kept"
    assert await told(journal, write("opening  hours", "9 to 6")) == "the note 'Opening hours' was replaced"
    assert await told(journal, call("notes_read", name="OPENING HOURS ")) == "9 to 6"
    assert await told(journal, call("notes_search")) == "Opening hours: 9 to 6"
    deleted = await told(journal, call("notes_delete", name="opening hours"))
    assert deleted == "there is no note 'Opening hours' any more"
    assert await told(journal, call("notes_search")) == "(no such notes)"


async def test_spaces_are_apart() -> None:
    """And may be given to one agent under two names."""
    journal = MemoryJournal()
    both = [*notes("mine", untrusted=False), *notes("ours", name="team", untrusted=False)]
    await told(journal, write("a", "here"), call("team_write", name="b", text="there"), tools=both)
    assert await told(journal, call("notes_search"), tools=both) == "a: here"
    assert await told(journal, call("team_search"), tools=both) == "b: there"


async def test_all_notes_are_listed_newest_first() -> None:
    """By how they begin."""
    clock = iter(range(1_000_000))
    journal = MemoryJournal(clock=lambda: float(next(clock)))
    await told(journal, write("old", "x " * 500), write("new", "line\nline"))
    listed = (await told(journal, call("notes_search"))).splitlines()
    assert listed[0] == "new: line line"
    assert listed[1] == f"old: {'x ' * 99}x…"


async def test_long_answers_come_in_pieces() -> None:
    """As those of all tools."""
    journal, small = MemoryJournal(), notes(most=20, untrusted=False)
    await told(journal, write("long", "abcdefghij" * 10))
    assert await told(journal, call("notes_read", name="long"), tools=small) == (
        "abcdefghijabcdefghij\n… 80 more characters; pass start=20 to go on"
    )
    assert (await told(journal, call("notes_search"), tools=small)).endswith("pass start=20 to go on")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (write("", "x"), "name: one line of at most 100 characters"),
        (write("x" * 101, "x"), "name: one line of at most 100 characters"),
        (write("a\nb", "x"), "name: one line of at most 100 characters"),
        (write("a\0b", "x"), "name: one line of at most 100 characters"),
        (write("a", " "), "text: 1 characters, from 1 to 20,000"),
        (write("a", "x" * 20_001), "text: 20,001 characters, from 1 to 20,000: write several notes"),
        (call("notes_read", name="in"), "there is no note 'in': search for it; there are 'inn'"),
        (call("notes_read", name="zzz"), "there is no note 'zzz': search for it; there are 'inn'"),
        (call("notes_read", name="inn", start=9), "start=9: the text has 1 characters"),
    ],
)
async def test_what_cannot_be_is_told(asked: Any, reason: str) -> None:
    """For a model to mend."""
    journal = MemoryJournal()
    await journal.write_note("notes", "inn", "x")
    assert reason in await told(journal, asked)


async def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then one has to go before another comes; those that are there may change."""
    monkeypatch.setattr(module, "MOST_NOTES", 2)
    journal = MemoryJournal()
    await told(journal, write("a", "1"), write("b", "2"))
    assert "there are 2 notes, and no room for another" in await told(journal, write("c", "3"))
    assert await told(journal, write("a", "4")) == "the note 'a' was replaced"


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE notes; --", '" OR 1', "NEAR(a b)", "a\0b", "a\u2028b", "*", "🦉" * 100]
)
async def test_any_text_is_kept_and_searched(text: str) -> None:
    """None of it is syntax."""
    journal = MemoryJournal()
    await told(journal, write("a", text))
    assert await told(journal, call("notes_read", name="a")) == text.replace("\0", "\ufffd")
    await told(journal, call("notes_search", query=text))


async def test_a_run_without_a_journal_is_told() -> None:
    """The developer is: no model could mend it."""
    with pytest.raises(Exception, match=r"run it with a journal, such as journal=open_store") as raised:
        await told(None, call("notes_search"))
    assert isinstance(raised.value.__cause__ or raised.value, DefinitionError)


async def test_a_replay_writes_nothing() -> None:
    """It answers from the record."""
    journal, agent = MemoryJournal(), clerk(write("a", "1"))
    await run(agent, "go", journal=journal, run_id="r")
    await journal.write_note("notes", "a", "2")
    assert (await replay(agent, "r", journal=journal)).output == "the note 'a' was kept"
    assert [note.text for note in await journal.notes("notes")] == ["2"]


def test_what_the_tools_are() -> None:
    """Names, effects, trust, and what a model is told of them."""
    tools = notes()
    assert [(t.name, t.effect, t.untrusted) for t in tools] == [
        ("notes.write", "idempotent", False),
        ("notes.search", "read", True),
        ("notes.read", "read", True),
        ("notes.delete", "idempotent", False),
    ]
    assert set(tool_spec(tools[0]).parameters["properties"]) == {"name", "text"}
    assert all(p["description"] for t in tools for p in tool_spec(t).parameters["properties"].values())
