"""Outputs read back from a record: as what they were, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from agentrt import END, START, Context, FunctionNode, Graph, ReplayMismatch, StepFailed, resume, run
from agentrt.stores import MemoryJournal

pytestmark = pytest.mark.anyio


class Report(BaseModel):
    """Be a type that pydantic reads and writes."""

    title: str


@dataclass
class Handoff:
    """Be a class of a user's, named like one of ours."""

    to: str


class Socket:
    """Be nothing that can be written down."""


class Awkward(Exception):
    """Be an error that wants more than a message."""

    def __new__(cls, *, code: int) -> Awkward:
        return super().__new__(cls, code)

    def __init__(self, *, code: int) -> None:
        self.code = code


async def gone_on(make: Callable[[int], Awaitable[Any]]) -> Any:
    """Run `make` and a step that fails on what it made, go on, and return what the step was given then."""
    given: list[Any] = []

    async def look(value: Any) -> int:
        given.append(value)
        if len(given) == 1:
            raise RuntimeError("not yet")
        return 1

    graph: Graph[int, int] = Graph("g", input=int, output=int)
    graph.chain(START, make, look, END)
    journal = MemoryJournal()
    with pytest.raises(StepFailed):
        await run(graph, 1, journal=journal, run_id="r")
    await resume(graph, "r", journal=journal)
    return given[1]


async def a_report(n: int) -> Report:
    return Report(title=str(n))


async def a_handoff(n: int) -> Handoff:
    return Handoff("b")


async def an_annotated(n: int) -> Annotated[int, Field(json_schema_extra={"examples": [1]}), ["a list"]]:
    return n


async def a_pair(n: int) -> tuple[int, str]:
    return n, "b"


@pytest.mark.parametrize(
    ("make", "made"), [(a_report, Report(title="1")), (a_handoff, Handoff("b")), (an_annotated, 1), (a_pair, (1, "b"))]
)
async def test_an_output_is_read_as_the_type_its_node_declares(make: Any, made: Any) -> None:
    """Whatever pydantic can write and read, and whatever it is called."""
    assert await gone_on(make) == made


async def untyped_report(n: int) -> Any:
    return Report(title="x")


async def untyped_socket(n: int) -> object:
    return Socket()


async def sockets(n: int) -> dict[str, object]:
    return {"a": Socket()}


@pytest.mark.parametrize("make", [untyped_report, untyped_socket, sockets])
async def test_what_cannot_be_read_back_is_refused(make: Any) -> None:
    """A text or a dict in its place would be another value, and nobody would know."""
    with pytest.raises(ReplayMismatch, match=f"of g/{make.__name__} cannot be read.*declare as its type"):
        await gone_on(make)


async def test_an_error_that_cannot_be_made_again_is_told_by_its_name() -> None:
    """The step that failed still has failed."""
    tries: list[int] = []

    async def fails(n: int) -> int:
        raise Awkward(code=n)

    async def other(n: int) -> int:
        tries.append(n)
        if len(tries) == 1:
            raise RuntimeError("not yet")
        return n

    async def catches(n: int, ctx: Context) -> str:
        try:
            await ctx.run(fails, n)
        except Exception as error:  # noqa: BLE001 - whatever it is
            said = f"{type(error).__name__}: {error}"
        await ctx.run(other, n)
        return said

    journal = MemoryJournal()
    with pytest.raises(StepFailed):
        await run(catches, 7, journal=journal, run_id="r")
    assert (await resume(catches, "r", journal=journal)).output == "AgentrtError: Awkward: 7"


@dataclass
class Dog:
    """Be one of two classes that look the same written down."""

    name: str


@dataclass
class Cat:
    name: str


@dataclass
class Puppy(Dog):
    weeks: int = 1


WHEN = date(2020, 1, 1)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (list[date], [WHEN]),
        (dict[int, str], {1: "a"}),
        (set[int], {1, 2}),
        (tuple[int, date], (1, WHEN)),
        (list[Dog], [Dog("a")]),
        (object, [{"a": [1, None, True, 1.5]}]),
        (dict[str, Any], {"a": {"b": []}}),
    ],
)
async def test_what_a_container_held_is_what_it_holds(declared: Any, value: Any) -> None:
    """By the types that are declared, or as plain JSON."""
    found = await gone_on(FunctionNode(make_of(declared, value), name="make"))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (date | str, WHEN),
        (Dog | Cat, Cat("a")),
        (Dog, Puppy("a")),
        (list[Dog | Cat], [Cat("a")]),
        (list[Dog], [Puppy("a")]),
        (list, [WHEN]),
        (dict[str, Any], {"a": Dog("a")}),
        (object, (1, 2)),
        (list, [{1}]),
        (list, [b"x"]),
        (dict, {1: 2}),
    ],
)
async def test_what_would_be_something_else_is_refused(declared: Any, value: Any) -> None:
    """Never taken for what it was."""
    with pytest.raises(ReplayMismatch, match="cannot be read as"):
        await gone_on(FunctionNode(make_of(declared, value), name="make"))


def make_of(declared: Any, value: Any) -> Any:
    async def make(n: int) -> Any:
        return value

    make.__annotations__["return"] = declared
    return make
