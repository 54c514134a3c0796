"""How words become a node's input."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agentrt import END, START, Agent, Graph, collect
from agentrt.cli.exits import UsageError
from agentrt.cli.inputs import read_input
from agentrt.function import as_node
from agentrt.node import Node


class Ask(BaseModel):
    question: str
    n: int = Field(5, ge=1)
    documents: Path | None = None
    deep: bool = False
    max_words: list[str] = []


@dataclass
class Point:
    x: float
    y: float = 0.0


class Row(TypedDict):
    name: str


def of(kind: Any) -> Node[Any, Any]:
    return Agent("helper", input=kind)


def read(node: Node[Any, Any], *words: str) -> Any:
    return read_input(node, words, "flow.py")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (str, "5", "5"),
        (str, '{"a": 1}', '{"a": 1}'),
        (int, "5", 5),
        (float, "5", 5.0),
        (bool, "true", True),
        (list[str], '["a"]', ["a"]),
        (str | None, "5", "5"),
        (str | None, "null", None),
        (Path, "here", Path("here")),
        (object, "5", "5"),
        (object, "[5]", [5]),
        (Point, "2", Point(2.0)),
        (Point, '{"x": 1, "y": 2}', Point(1.0, 2.0)),
        (Row, "Ada", {"name": "Ada"}),
    ],
)
def test_text_is_read_as_the_type_says(kind: Any, text: str, value: object) -> None:
    """Text stays text where the type is text; elsewhere it is JSON, or text where the type takes that."""
    assert read(of(kind), text) == value


def test_fields_are_options() -> None:
    """The INPUT is the first field, the others are options; a switch takes no value, a list may be repeated."""
    ask = read(of(Ask), "why?", "--n=3", "--documents", "7", "--deep", "--max-words", "a", "--max-words", "b")
    assert ask == Ask(question="why?", n=3, documents=Path("7"), deep=True, max_words=["a", "b"])


def test_options_go_over_json() -> None:
    """An INPUT that is a JSON object holds all fields, and options go over it."""
    assert read(of(Ask), '{"question": "a", "n": 2}', "--n", "4") == Ask(question="a", n=4)


def test_no_input_takes_the_defaults() -> None:
    """A type whose fields all have defaults needs no INPUT."""

    class Easy(BaseModel):
        n: int = 3

    assert read(of(Easy)) == Easy()


def test_function_takes_its_parameters() -> None:
    """The parameters of a function are its fields; one without any takes no input."""

    def add(a: int, b: int = 2) -> int:
        return a + b

    def nothing() -> int:
        return 1

    assert read(as_node(add), "1", "--b", "5") == {"a": 1, "b": 5}
    assert read(as_node(nothing)) is None
    with pytest.raises(UsageError, match="takes no input"):
        read(as_node(nothing), "x")


def test_graph_without_a_type_takes_what_its_first_node_takes() -> None:
    """An undeclared input is that of the node behind START."""

    def double(x: int) -> int:
        return 2 * x

    graph = Graph("g")
    graph.chain(START, double, END)
    assert read(graph, "4") == 4


def test_a_graph_that_begins_with_a_fork_takes_anything() -> None:
    """What its branches take is no one's input: it is read as a value that nothing is known of."""

    def double(x: int) -> int:
        return 2 * x

    graph = Graph("g")
    graph.edge(START, double, each=True)
    graph.edge(double, END, join=collect)
    assert read(graph, "[1, 2]") == [1, 2]


def test_an_input_that_no_words_can_make_is_told() -> None:
    """A type that only code can make an object of."""

    class Socket:
        """Be something that no text says."""

    with pytest.raises(UsageError, match=r"input of type Socket cannot be read from a command line: Unable to gen"):
        read(of(Socket), "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], 'flow.py needs question: agentrt run flow.py "INPUT"'),
        (["why?", "--n", "x", "--deep=perhaps"], "n: Input should be a valid integer.*\n.*deep: Input should be"),
        (["why?", "--n", "0"], "n: Input should be greater than or equal to 1"),
        (["why?", "--nope", "1"], "no option --nope; the input's fields are --question, --n, --documents"),
        (['{"question": '], "begins with { but is not JSON"),
    ],
)
def test_mistakes_are_told(words: list[str], message: str) -> None:
    """Each mistake is one line that names the field."""
    with pytest.raises(UsageError, match=message.replace("{", r"\{")):
        read(of(Ask), *words)
