"""A traced run that kills its own process in mid-run; `test_processes.py` starts it, and starts it to go on.

python tests/tracing/killed.py STORE begin|resume
"""

from __future__ import annotations

import os
import signal
import sys

import anyio

from agentrt import END, START, Graph, resume, run, tool
from agentrt.stores import SqliteJournal
from agentrt.tracing import configure

RUN = "killed"


async def first(word: str) -> str:
    return word.upper()


@tool(effect="idempotent")
async def second(word: str) -> str:
    """Die, the first time."""
    if sys.argv[2] == "begin":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{word}!"


graph: Graph[str, str] = Graph("killed", input=str, output=str)
graph.chain(START, first, second, END)


async def main() -> None:
    journal = SqliteJournal(sys.argv[1])
    try:
        if sys.argv[2] == "begin":
            await run(graph, "help", journal=journal, run_id=RUN)
        else:
            print((await resume(graph, RUN, journal=journal)).output)
    finally:
        await journal.aclose()


if __name__ == "__main__":
    with configure():
        anyio.run(main)
