"""A run that kills its own process at a given place of its journal; `test_kills.py` starts it and goes on with it.

    python tests/killed.py STORE EFFECTS AT

It appends each use of a tool to the file EFFECTS, and is killed once AT events of the run are kept; with AT 0 never.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from agentrt import END, START, Agent, Context, FunctionNode, Graph, Result, Retry, collect, run, tool
from agentrt.events import Event
from agentrt.messages import AssistantMessage, ToolCall, ToolMessage
from agentrt.model import ModelRequest
from agentrt.stores import SqliteJournal
from agentrt.testing import FunctionModel

RUN = "killed"
effects = Path()


@tool(effect="idempotent")
async def look(word: str) -> str:
    """Look a word up."""
    used("look", word)
    await anyio.lowlevel.checkpoint()
    return f"{word}!"


@tool(effect="keyed")
async def book(word: str, ctx: Context) -> str:
    """Book a word."""
    used("book", word, ctx.key)
    return f"booked {word}"


def used(*what: str) -> None:
    """Note a use of a tool outside of the run, where a kill cannot undo it."""
    with effects.open("a") as file:
        file.write(" ".join(what) + "\n")


def researcher(request: ModelRequest) -> AssistantMessage:
    """Use two tools at once, then answer with what they said."""
    told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
    if told:
        return AssistantMessage(" and ".join(told))
    word = request.messages[-1].text
    asks = f'{{"word": "{word}"}}'
    return AssistantMessage("", (ToolCall("1", "look", asks), ToolCall("2", "book", asks)))


def writer(request: ModelRequest) -> AssistantMessage:
    """Count what was said so far, so that a lost conversation shows."""
    return AssistantMessage(f"draft {len(request.messages)}")


agent = Agent("researcher", model=FunctionModel(researcher), tools=[look, book], instructions="Research.")
author = Agent("writer", model=FunctionModel(writer), instructions="Write.", history="branch")


async def words(n: int) -> list[str]:
    return [chr(97 + i) * 3 for i in range(n)]


tries: list[str] = []


async def shaky(drafts: str) -> str:
    """Fail on the first attempt of each visit of this process."""
    tries.append(drafts)
    if len(tries) % 2:
        raise ConnectionError("again")
    return drafts


async def judge(draft: str, ctx: Context) -> str:
    """Look two things up at once, and draw a number."""
    found = await ctx.map(look, [draft, draft + "?"], key=draft)
    return f"{draft} {len(found)} {ctx.random.randrange(1000)}"


unsteady = FunctionNode(shaky, retry=Retry(attempts=3, backoff=0.0, on=ConnectionError))
main = Graph("main", input=int, output=str)
main.edge(START, words)
main.edge(words, agent, each=True)
main.edge(agent, author, join=collect)
main.edge(author, unsteady)
main.edge(unsteady, judge)
main.edge(judge, END, when=lambda text: "draft 4" in text)
main.edge(judge, author, times=3)


class Deadly(SqliteJournal):
    """Keep so many events, and then kill the process, in the middle of a group if need be."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path)
        self._left = at

    async def append(self, run_id: str, epoch: int, events: Sequence[Event]) -> None:
        kept = events[: self._left] if self._left else events
        if kept:
            await super().append(run_id, epoch, kept)
        if self._left and self._left <= len(events):
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= min(self._left, len(events))


async def begin(store: Path, at: int) -> Result[str]:
    journal = Deadly(store, at)
    try:
        return await run(main, 3, journal=journal, run_id=RUN)
    finally:
        await journal.aclose()


if __name__ == "__main__":
    effects = Path(sys.argv[2])
    anyio.run(begin, Path(sys.argv[1]), int(sys.argv[3]))
