"""Deps: handed to every node of a run, checked against what a node says it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, runtime_checkable

import pytest

from agentrt import (
    END,
    START,
    Agent,
    Context,
    DefinitionError,
    Graph,
    Partial,
    StepFailed,
    guarded,
    run,
    run_sync,
    stream,
    tool,
)
from agentrt.deps import needed_deps
from agentrt.events import to_json
from agentrt.testing import ScriptedModel, call

pytestmark = pytest.mark.anyio


@dataclass
class Deps:
    user: str = "ada"


class Other:
    """Be something else."""


async def greet(text: str, ctx: Context[Deps]) -> str:
    return f"{text} {ctx.deps.user}"


async def plain(text: str, ctx: Context) -> str:
    return f"{text} {ctx.deps}"


@tool
async def whoami(ctx: Context[Deps]) -> str:
    """Tell who asks."""
    return ctx.deps.user


def about(value: str, ctx: Context[Deps]) -> str:
    return f"You help {ctx.deps.user}."


async def settle(rest: Partial, ctx: Context[Deps]) -> str:
    return ctx.deps.user


async def known(value: str, ctx: Context[Deps]) -> bool:
    return bool(ctx.deps.user)


async def test_a_node_gets_the_run_s_deps() -> None:
    """Under `Context[X]` as under a plain `Context`, by every way to run."""
    assert (await run(greet, "hi", deps=Deps())).output == "hi ada"
    assert (await run(plain, "hi", deps=7)).output == "hi 7"
    assert (await run(plain, "hi")).output == "hi None"
    async with stream(greet, "hi", deps=Deps("bob")) as events:
        async for _ in events:
            pass
    assert events.result.output == "hi bob"


def test_run_sync_takes_deps() -> None:
    """As `run` does."""
    assert run_sync(greet, "hi", deps=Deps()).output == "hi ada"


async def test_tools_instructions_and_guardrails_get_them() -> None:
    """All through their `ctx`; they are no parameter of the model's."""
    with ScriptedModel([call("whoami"), "done"]) as model:
        agent = guarded(Agent("a", model=model, tools=[whoami], instructions=about), before=[known])
        await run(agent, "hi", deps=Deps())
    system, _, _, told = model.requests[1].messages
    assert (system.text, told.text) == ("You help ada.", "ada")
    assert model.requests[0].tools[0].parameters["properties"] == {}


async def test_wrong_deps_are_told_before_anything_runs() -> None:
    """Of nodes, of sub-graphs' nodes, of agents' tools and instructions and of guardrails: all at once."""
    started: list[Any] = []
    inner = Graph("inner", wrap_up=settle)
    inner.chain(START, greet, END)
    agent = Agent("helper", tools=[whoami], instructions=about)
    graph = Graph("g")
    graph.chain(START, inner, guarded(agent, before=[known]), END)
    with pytest.raises(DefinitionError) as error:
        await run(graph, "hi", deps=Other(), observers=[started.append])
    lines = str(error.value).splitlines()
    assert lines[0] == "'greet' needs deps of Deps, and the run has those of Other: pass run(…, deps=Deps(…))"
    assert [line.split("'")[1] for line in lines] == ["greet", "settle", "helper", "whoami", "known"]
    assert started == []


async def test_a_node_called_by_code_is_checked_at_its_step() -> None:
    """The error is that step's."""

    async def caller(text: str, ctx: Context) -> str:
        return await ctx.run(greet, text)

    with pytest.raises(StepFailed, match="none were given") as error:
        await run(caller, "hi")
    assert error.value.path == "caller/greet"


async def test_deps_are_in_no_event() -> None:
    """Connections and secrets stay out of the record."""

    async def length(text: str, ctx: Context[Deps]) -> int:
        return len(ctx.deps.user)

    record: list[Any] = []
    assert (await run(length, "hi", deps=Deps("s3cret"), observers=[record.append])).output == 6
    assert not any(b"s3cret" in to_json(e) or "s3cret" in repr(e) for e in record)


class Typed(TypedDict):
    user: str


class Named(Protocol):
    user: str


@runtime_checkable
class Checked(Protocol):
    user: str


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Context, None),
        (Context[Any], None),
        (Context[Deps], Deps),
        (Context[Deps | None], None),
        (Context[dict[str, int]], None),
        (Context[Typed], None),
        (Context[Named], None),
        (Context[Checked], Checked),
    ],
)
def test_only_classes_are_checked(annotation: Any, expected: Any) -> None:
    """The rest is for type checkers."""
    assert needed_deps(annotation) is expected
