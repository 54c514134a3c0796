"""Which node a file is about."""

import pytest

from agentrt.cli.exits import UsageError
from agentrt.cli.source import load
from tests.cli.conftest import Write

TOOL = "@tool\ndef add(a: int) -> int:\n    'Add.'\n    return a\n"


@pytest.mark.parametrize(
    ("body", "chosen"),
    [
        ('x = Graph("x")\nmain = Graph("y")', "y"),
        ('x = Graph("x")\nagent = Agent("y")', "y"),
        ('a = Agent("a")\nb = Agent("b")\ng = Graph("g")\ng.chain(START, a, b, END)', "g"),
        (TOOL + 'a = Agent("a", tools=[add])', "a"),
        (TOOL, "add"),
        ('inner = Graph("inner")\nouter = Graph("outer")\nouter.chain(START, inner, END)', "outer"),
        ('a = Graph("a")\nsame = a', "a"),
        ("from agentrt import *\ng = Graph('g')", "g"),
    ],
)
def test_choice(write: Write, body: str, chosen: str) -> None:
    """A usual name is taken first, then the only outermost graph, the only agent, the only node."""
    assert load(write(body)).node.name == chosen


def test_a_guarded_graph_is_chosen_with_its_guardrails(write: Write) -> None:
    """Never the bare graph inside, which would run unguarded."""
    body = """
def no(x: str) -> str:
    return "no"
a = Agent("a")
inner = Graph("inner")
inner.chain(START, a, END)
safe = guarded(inner, before=[no])
"""
    assert type(load(write("from agentrt import guarded\n" + body)).node).__name__ == "Guarded"


def test_imported_nodes_do_not_count(write: Write) -> None:
    """A file is about what it defines, not about what it imports, from its own folder too."""
    write('other = Graph("other")', "library.py")
    assert load(write('from library import other\nmine = Graph("mine")')).node.name == "mine"


def test_name_picks_any_node(write: Write) -> None:
    """NAME picks a node or a typed function, an imported one too."""
    file = write("def f(x: str) -> str:\n    return x\nfrom agentrt_tools import calculator\n")
    assert load(f"{file}:f").node.name == "f"
    assert load(f"{file}:calculator").node.name == "calculator"


def test_colon_in_a_file_name(write: Write) -> None:
    """A file whose name holds a colon is found."""
    assert load(write('g = Graph("g")', "odd:name.py")).node.name == "g"


def test_standard_library_names_do_not_clash(write: Write) -> None:
    """A file may be called like a module that is loaded."""
    assert load(write('g = Graph("g")', "json.py")).node.name == "g"


def test_failed_import_can_be_tried_again(write: Write) -> None:
    """A module whose import failed is not kept."""
    with pytest.raises(UsageError):
        load(write("1 / 0"))
    assert load(write('g = Graph("g")')).node.name == "g"
