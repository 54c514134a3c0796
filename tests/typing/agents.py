"""What type checkers accept and refuse around agents: deps, instructions, handoffs, guardrails; never run.

Each `type: ignore` marks an error that both must find: an unused one is an error itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from agentrt import END, START, Agent, Context, Graph, Result, guarded, handoff, keep_last, run, tool
from agentrt.messages import Message


@dataclass
class Deps:
    user: str


@dataclass
class Ticket:
    text: str


async def greet(text: str, ctx: Context[Deps]) -> str:
    assert_type(ctx.deps, Deps)
    str(ctx.deps.usr)  # type: ignore
    return await ctx.run(whoami, text)


async def asking(text: str, ctx: Context) -> str:
    assert_type(await ctx.ask("How many?", int), int)
    assert_type(await ctx.ask("How many, if any?", int | None), Any)
    return await ctx.ask("What?")


async def loose(text: str, ctx: Context) -> str:
    assert_type(ctx.deps, Any)
    return str(ctx.deps)


@tool
async def whoami(text: str, ctx: Context[Deps]) -> str:
    return ctx.deps.user + text


def system(ticket: Ticket, ctx: Context[Deps]) -> str:
    return f"{ticket.text} for {ctx.deps.user}, {ctx.budget}"


async def later(ticket: Ticket) -> str:
    return ticket.text


async def no_secrets(text: str) -> bool:
    return "sk-" not in text


def two(messages: Sequence[Message]) -> Sequence[Message]:
    return messages[:2]


triage = Agent("triage", input=Ticket, output=Ticket, instructions=system, handoffs=["billing"])
billing = Agent("billing", handoffs=[handoff("triage", history=keep_last(6)), handoff("x", history=two)])
Agent("a", input=Ticket, instructions=later)
Agent("a", input=Ticket, instructions=lambda ticket: ticket.text)
Agent("a", instructions=lambda value, ctx: f"{value} {ctx.budget}", tell_budget=True, max_repeats=None)
Agent("a", input=str, instructions=system)  # type: ignore
Agent("a", handoffs=[3])  # type: ignore
Agent("a", handoffs=[handoff("b", history=len)])  # type: ignore

assert_type(triage, Agent[Ticket, Ticket])
desk = Graph("desk", input=Ticket, output=Ticket)
desk.edge(START, triage)
desk.edge(triage, END)
desk.edge(triage, END, when=lambda ticket: ticket.text == "")
desk.chain(START, greet, loose, guarded(billing, before=[no_secrets], after=[no_secrets]), END)
desk.edge(greet, guarded(triage))  # type: ignore
desk.edge(guarded(triage, before=[no_secrets]), greet)  # type: ignore


async def results() -> None:
    assert_type(await run(desk, Ticket(""), deps=Deps("ada")), Result[Ticket])
    assert_type(await run(guarded(triage), Ticket("")), Result[Ticket])
    assert_type(await run(guarded(greet), "hi", deps=Deps("ada")), Result[str])
