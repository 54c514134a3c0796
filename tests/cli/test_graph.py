"""`agentrt graph`: a graph drawn from its file."""

from tests.cli.conftest import Shell, Write

LOOP = """
print("noise")
def draft(x: str) -> str:
    return x
g = Graph("g", input=str, output=str)
g.edge(START, draft)
g.edge(draft, draft, times=2)
"""


def test_a_graph_is_printed_as_mermaid(shell: Shell, write: Write) -> None:
    """And nothing but that on stdout, whatever the file prints."""
    result = shell("graph", write(LOOP + "g.edge(draft, END)"))
    assert (result.exit_code, result.stderr) == (0, "noise\n")
    assert result.stdout.splitlines()[0].startswith("flowchart")
    assert "draft" in result.stdout


def test_a_graph_with_problems_is_drawn_too(shell: Shell, write: Write) -> None:
    """To see them; they are named on stderr, with the status of a graph that cannot be what it says."""
    result = shell("graph", write(LOOP))
    assert result.exit_code == 2
    assert "draft" in result.stdout
    assert "END cannot be reached" in result.stderr


def test_only_graphs_are_drawn(shell: Shell, write: Write) -> None:
    """Another node is named with what it is."""
    result = shell("graph", write('helper = Agent("helper")'))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: 'helper' in flow.py is of kind agent: only a graph can be drawn" in result.stderr
