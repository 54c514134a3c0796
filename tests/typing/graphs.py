"""What type checkers accept and refuse in graphs: checked by mypy and pyright, never run.

Each `type: ignore` marks an error that both must find: an unused one is an error itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from typing import assert_type

from agentrt import END, START, Agent, Context, Graph, Result, best, collect, first, run, tool, vote


@dataclass
class Report:
    body: str


@dataclass
class Verdict:
    ok: bool


planner = Agent("planner", output=list[str])
researcher = Agent("researcher")
writer = Agent("writer", output=Report)
critic = Agent("critic", input=Report, output=Verdict)


async def shout(text: str) -> str:
    return text.upper()


def length(text: str) -> int:
    return len(text)


def score(text: str) -> float:
    return len(text)


async def double(number: int, ctx: Context) -> int:
    assert_type(await ctx.run(shout, "a"), str)
    assert_type(await ctx.run(critic, Report("")), Verdict)
    assert_type(await ctx.map(researcher, ["a", "b"]), list[str])
    return number * 2


@tool
async def search(query: str, k: int = 5) -> list[str]:
    return [query] * k


brief = Graph("brief", input=str, output=Report)
brief.edge(START, planner)
brief.edge(planner, researcher, each=True)
brief.edge(researcher, writer, join=collect)
brief.edge(writer, critic)
brief.edge(critic, END, when=lambda v: v.ok, send=writer)
brief.edge(critic, writer, times=3)
brief.edge(critic, END, send=writer)

brief.edge(shout, length)
brief.edge(length, double)
brief.edge(shout, [shout] * 5)
brief.edge(shout, [shout, length])
brief.edge(planner, length, each=lambda names: names)
brief.edge(length, double, join=vote)
brief.edge(shout, length, join=best(score))
brief.edge(shout, length, join=first())
brief.edge((shout, researcher), planner, join=collect)
brief.chain(START, shout, length, END)

brief.edge(shout, double)  # type: ignore
brief.edge(length, shout)  # type: ignore
brief.edge(planner, double, each=True)  # type: ignore
brief.edge(critic, END, when=lambda v: v.okay)  # type: ignore
brief.edge(writer, shout)  # type: ignore
brief.edge(shout, END, join=lambda values: values.missing)  # type: ignore
brief.edge(planner, critic)  # type: ignore
brief.edge(critic, critic, send=shout)  # type: ignore
brief.edge(shout, critic, join=collect)  # type: ignore


async def results() -> None:
    assert_type(await run(brief, "why?"), Result[Report])
    assert_type(await run(researcher, "why?"), Result[str])
    assert_type(await run(shout, "why?"), Result[str])
    await run(brief, 3)  # type: ignore
