"""Bad input: one line that says what to do, an exit status, no traceback."""

from pathlib import Path

import pytest

from tests.cli.conftest import Shell, Write

GOOD = """
def up(text: str) -> str:
    return text.upper()
g = Graph("g", input=str, output=str)
g.chain(START, up, END)
"""

FILES = {
    "a lambda as a node": ("g = Graph('g')\ng.edge(START, lambda x: x)", "flow.py line 7: a lambda has no name"),
    "no graph": ("x = 1", "no graph in flow.py: define one with Graph(…) or Agent(…)"),
    "functions alone": ("def f(x: str) -> str:\n    return x", "pick one, like flow.py:f"),
    "several graphs": ('a = Graph("a")\nb = Graph("b")', "flow.py defines several: pick one, like flow.py:a"),
    "an import that fails": ("import nothing_here", "flow.py line 6: ModuleNotFoundError: No module named"),
    "a syntax error": ("def f(:", "flow.py line 6: SyntaxError"),
    "an exit at import": ("raise SystemExit(3)", "it ends the program while it is imported"),
    "deps": (
        "def f(x: str, ctx: Context[int]) -> str:\n    return x\ng = Graph('g', input=str)\ng.chain(START, f, END)",
        "The shell has no deps to give: run it from Python",
    ),
    "a tool without types": ("@tool\ndef t(x):\n    'T.'", "flow.py line 6: parameter 'x' of tool 't' has no type"),
}


def only_error(stderr: str) -> str:
    (line,) = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in stderr
    return line


@pytest.mark.parametrize("case", FILES)
def test_file_that_cannot_be_run(shell: Shell, write: Write, case: str) -> None:
    """What is wrong with a file is told with the place in it, exit status 2."""
    body, message = FILES[case]
    result = shell("run", write(body), "hi")
    assert only_error(result.stderr)
    assert message in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nofile.py"], "no file 'nofile.py': check the path"),
        (["flow"], "did you mean flow.py?"),
        (["notes.txt"], "notes.txt is not a Python file: give the .py file that defines the graph"),
        (["."], ". is a folder: name a file in it, like flow.py"),
        (["flow.py:zzz", "hi"], "no 'zzz' in flow.py: pick one, like flow.py:g"),
        (["flow.py:START", "hi"], "'START' in flow.py is a Marker, not a node"),
        (["flow.py"], 'flow.py needs an input (text): agentrt run flow.py "INPUT"'),
        (["flow.py", "a", "b"], 'one INPUT, not 2: put it in quotes, agentrt run flow.py "a b"'),
        (["flow.py", "hi", "--nope", "1"], "no option --nope"),
        (["flow.py", "hi", "--budget", "tokens=-5"], "Budget(tokens=-5)"),
        (["flow.py", "hi", "--budget", "gold=5"], "unknown dimension; known are usd, tokens"),
        (["flow.py", "hi", "--budget", "tokens=lots"], "write a number, like tokens=20"),
        (["flow.py", "hi", "--store", "nowhere"], "unknown store 'nowhere': write sqlite:///PATH"),
        (["flow.py", "hi", "--store", "sqlite:///no/x.db"], "no/x.db: unable to open"),
        (["flow.py", "hi", "--model", "gpt"], "unknown model 'gpt': write provider/model"),
    ],
)
def test_command_that_cannot_be_run(shell: Shell, write: Write, words: list[str], message: str) -> None:
    """What is wrong with a command is told in one line, exit status 2, and nothing is recorded."""
    write(GOOD)
    Path("notes.txt").touch()
    result = shell("run", *words)
    assert message in only_error(result.stderr)
    assert result.exit_code == 2
    assert "no runs yet" in shell("runs").stderr


def test_all_problems_of_a_graph(shell: Shell, write: Write) -> None:
    """A graph that does not validate lists every problem before anything runs."""
    file = write("def up(x: str) -> str:\n    return x\ng = Graph('g')\ng.edge(START, up)\ng.edge(up, up)")
    result = shell("run", file, "hi")
    assert result.exit_code == 2
    assert "graph 'g' has" in only_error(result.stderr)
    assert "  - END cannot be reached" in result.stderr


def test_missing_key(shell: Shell, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the model's adapter is the run's one error line, with the step's path."""
    file = write(
        "from agentrt import AuthenticationFailed\n"
        "no = FunctionModel(lambda r: AuthenticationFailed('no key: set SOME_KEY', model='some/model'))\n"
        "g = Agent('helper', model=no)"
    )
    result = shell("run", file, "hi")
    assert only_error(result.stderr) == "error: helper/chat: some/model: no key: set SOME_KEY"
    assert result.exit_code == 1


def test_error_of_users_code_names_the_line(shell: Shell, write: Write) -> None:
    """An exception in a function is told with the file, the line and the code."""
    file = write("def boom(x: str) -> int:\n    return int(x)\n")
    result = shell("run", f"{file}:boom", "hi")
    error = only_error(result.stderr)
    assert "boom: ValueError: invalid literal" in error
    assert error.endswith("(flow.py line 7: return int(x))")
    assert result.exit_code == 1
