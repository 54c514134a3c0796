"""Nodes: typed functions as steps, names, and how JSON becomes an input."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from agentrt import Context, DefinitionError, FunctionNode, InvalidArguments, StepFailed, run
from agentrt.arguments import Arguments
from agentrt.function import as_node

pytestmark = pytest.mark.anyio


async def double(x: int) -> int:
    """Double a number.

    At length.
    """
    return x * 2


def test_a_function_s_node_is_always_the_same() -> None:
    """So that edges name it by the function."""
    assert as_node(double) is as_node(double)
    node = as_node(double)
    assert (node.name, node.input, node.output, node.description) == ("double", int, int, "Double a number.")
    assert as_node(node) is node
    assert repr(node) == "<FunctionNode 'double'>"


def test_closures_are_not_kept() -> None:
    """A node made of a function in a function goes when that goes."""

    def make() -> Any:
        async def closure(x: int) -> int:
            return x

        return closure

    function = make()
    alive = weakref.ref(as_node(function))
    del function
    gc.collect()
    assert alive() is None


def test_a_wrapper_is_not_what_it_wraps() -> None:
    """functools.wraps copies attributes, and yet each has its own node."""
    inner = as_node(double)

    @functools.wraps(double)
    async def wrapper(x: int) -> int:
        return await double(x) + 1

    assert as_node(wrapper) is not inner
    assert as_node(wrapper) is as_node(wrapper)
    assert as_node(double) is inner


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    async def add(self, x: int) -> int:
        return self.start + x

    async def __call__(self, x: int) -> int:
        return self.start * x


async def test_methods_and_callable_objects_are_nodes() -> None:
    """Each object's its own; a name is needed where there is none."""
    one, two = Counter(1), Counter(2)
    assert as_node(one.add) is as_node(one.add) is not as_node(two.add)
    assert (await run(two.add, 5)).output == 7
    assert (await run(FunctionNode(two, name="times"), 5)).output == 10
    assert as_node(two).name == "Counter"


@pytest.mark.parametrize("name", ["", "a/b", "a#2", "a[0]", "chat", "START", "END"])
def test_names_must_fit_a_path(name: str) -> None:
    """Paths: no / # [ ] and none of the reserved."""
    with pytest.raises(DefinitionError, match="cannot name a node"):
        FunctionNode(double, name=name or "/")


@pytest.mark.parametrize("name", ["été", "調査", "with space", "🙂"])
async def test_names_may_be_any_language(name: str) -> None:
    """And stand in paths as they are."""

    async def where(x: int, ctx: Context) -> str:
        return ctx.path

    assert (await run(FunctionNode(where, name=name), 1)).output == name


def test_what_cannot_be_a_node_is_told() -> None:
    """Lambdas, values, classes, star arguments, generators, unknown types."""

    def generator(x: int) -> Iterator[int]:
        yield x

    async def agenerator(x: int) -> Any:
        yield x

    def star(*args: int) -> None: ...

    def unknown(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    cases: list[tuple[Any, str]] = [
        (lambda x: x, "lambda"), (7, "is not a node"), (int, "is not a node"), (star, "name each parameter"),
        (generator, "is a generator"), (agenerator, "is a generator"), (unknown, "Nowhere"),
    ]  # fmt: skip
    for value, words in cases:
        with pytest.raises(DefinitionError, match=words):
            as_node(value)


async def test_one_parameter_gets_the_input_as_it_is() -> None:
    """Unhashable or not."""

    async def same(x: list[int]) -> list[int]:
        return x

    value = [1]
    assert (await run(same, value)).output is value


async def spread(a: int, b: int = 2) -> tuple[int, int]:
    return a, b


@pytest.mark.parametrize(("value", "expected"), [((1, 5), (1, 5)), ([1], (1, 2)), ({"b": 1, "a": 0}, (0, 1))])
async def test_several_parameters_get_a_mapping_or_a_sequence(value: Any, expected: Any) -> None:
    """By name, or in order."""
    assert (await run(spread, value)).output == expected


async def test_several_parameters_get_nothing_else() -> None:
    """And the error says what to send."""
    with pytest.raises(StepFailed, match="spread takes a, b: send a mapping or a tuple, not int") as error:
        await run(spread, 1)
    assert isinstance(error.value.cause, InvalidArguments)


async def test_no_parameter_ignores_the_input() -> None:
    """The context alone counts as none."""

    async def none(ctx: Context) -> str:
        return ctx.path

    assert (await run(none, 1)).output == "none"


async def test_a_sync_function_runs_in_a_thread() -> None:
    """Also a sync wrapper; an async wrapper of a sync function does not."""

    def sync(x: int) -> int:
        return threading.get_ident()

    @functools.wraps(sync)
    async def wrapper(x: int) -> int:
        return threading.get_ident()

    assert (await run(sync, 1)).output != threading.get_ident()
    assert (await run(wrapper, 1)).output == threading.get_ident()


async def test_partials_and_builtins_are_nodes() -> None:
    """With a name where they have none."""
    assert (await run(FunctionNode(functools.partial(spread, b=7), name="seven"), {"a": 1})).output == (1, 7)


def test_an_input_type_without_schema_cannot_be_a_tool() -> None:
    """The error names the node."""
    with pytest.raises(DefinitionError, match="'locks' cannot be a tool"):
        Arguments.of_type("locks", threading.Thread)


def test_an_object_input_is_read_as_it_is_and_others_by_a_field() -> None:
    """dict takes any fields; int the field `input`; nothing typed is text."""
    assert Arguments.of_type("n", dict[str, int]).parse('{"a": 1}') == {"a": 1}
    assert Arguments.of_type("n", int).parse('{"input": 1}') == 1
    assert Arguments.of_type("n", object).schema["properties"]["input"]["type"] == "string"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 5}, r"budget=5: write budget=Budget\(…\)"),
        ({"retry": 3}, r"retry=3: write retry=Retry\(…\)"),
        ({"timeout": 0}, "timeout=0: a time-out is a number of seconds above 0"),
        ({"timeout": "5"}, "timeout='5': a time-out"),
    ],
)
def test_options_are_checked_where_they_are_written(options: dict[str, Any], says: str) -> None:
    """By name, and with what to write."""
    with pytest.raises(DefinitionError, match=f"double: {says}"):
        FunctionNode(double, **options)


def test_a_function_without_a_signature_is_no_node() -> None:
    """Nobody could say what it takes."""
    with pytest.raises(DefinitionError, match="'max' cannot be a node: no signature"):
        as_node(max)
