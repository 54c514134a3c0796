"""`agentrt run`: output, JSON, budgets, records."""

from pathlib import Path

import pytest

import agentrt
from agentrt.errors import JournalError
from agentrt.stores import SqliteJournal
from tests.cli.conftest import Shell, Write, document

ECHO = """
def shout(text: str) -> str:
    print("noise")
    return text.upper()
g = Graph("loud", input=str, output=str)
g.chain(START, shout, END)
"""
ASK = """
g = Graph("asked", input=str, output=str)
g.chain(START, Agent("helper", model=model), END)
"""
SWARM = """
from pydantic import BaseModel
class Ask(BaseModel):
    n: int = 2
async def plan(ask: Ask, ctx: Context) -> list[int]:
    ctx.emit("planning")
    return list(range(ask.n))
def tell(answers: list[str]) -> list[dict]:
    return [{"way": a, "solved": i, "rate": i / 3} for i, a in enumerate(answers)]
g = Graph("swarm", input=Ask, output=list)
g.chain(START, plan)
g.edge(plan, Agent("solver", model=model), each=True)
g.edge(g.nodes[-1], tell, join=collect)
g.edge(tell, END)
"""


def test_whatever_came_out_is_printed(shell: Shell, write: Write) -> None:
    """Output that no JSON can hold, too."""
    odd = 'async def odd(x: str) -> dict[str, str]:\n    return {"a": "\\ud800"}\n'
    result = shell("run", f"{write(odd)}:odd", "hello", "--no-store", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "ud800" in result.stdout


def test_text_is_printed_as_it_is(shell: Shell, write: Write) -> None:
    """Stdout holds the output alone; what users' code prints goes to stderr, with the run's summary."""
    result = shell("run", write(ECHO), "hello")
    assert (result.exit_code, result.stdout) == (0, "HELLO\n")
    assert "noise" in result.stderr
    assert "done · 2 steps · 0 tokens" in result.stderr
    assert "agentrt show 2" in result.stderr


def test_flat_rows_are_a_table(shell: Shell, write: Write) -> None:
    """A list of flat mappings is printed as an aligned table, numbers to the right."""
    result = shell("run", write(SWARM), "--n", "2", "--quiet")
    assert result.stdout.splitlines() == [
        "way       solved    rate",
        "so it is       0       0",
        "so it is       1  0.3333",
    ]


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("None", ""),
        ("{'a': [1, None]}", '{\n  "a": [\n    1,\n    null\n  ]\n}\n'),
        ("[]", "[]\n"),
        ("[{'a': {}}]", '[\n  {\n    "a": {}\n  }\n]\n'),
        ("float('nan')", "null\n"),
    ],
)
def test_other_values_are_json(shell: Shell, write: Write, value: str, printed: str) -> None:
    """What is neither text nor a table is pretty JSON; nothing is nothing."""
    file = write(f"def give() -> object:\n    return {value}\n")
    assert shell("run", f"{file}:give").stdout == printed


def test_json_is_one_object(shell: Shell, write: Write) -> None:
    """--json prints the run's id, stop reason, output and usage, and nothing else."""
    found = document(shell("run", write(SWARM), "--json"))
    assert set(found) == {"run_id", "stop_reason", "output", "usage"}
    assert (found["stop_reason"], len(found["output"])) == ("done", 2)
    assert found["usage"]["tokens"] > 0
    assert found["usage"]["model_calls"] == 2


def test_json_of_a_failure_is_one_object(shell: Shell, write: Write) -> None:
    """A run that fails prints its error with type, message and path, and no output."""
    file = write(
        'async def boom(x: str) -> str:\n    raise ValueError("no")\ng = Graph("g")\ng.chain(START, boom, END)'
    )
    result = shell("run", file, "x", "--json")
    found = document(result)
    assert (result.exit_code, found["stop_reason"], found["output"]) == (1, "failed", None)
    assert found["error"] == {"type": "ValueError", "message": "no", "path": "g/boom"}


def test_exceeded_budget_has_its_own_status(shell: Shell, write: Write) -> None:
    """A budget smaller than one prompt and the floor ends the run with status 3, in one line."""
    result = shell("run", write(ASK), "hi", "--budget", "tokens=3")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.exit_code == 3
    assert len(errors) == 1
    assert "asked/helper/chat: the budget of 'asked' is exhausted" in errors[0]


def test_json_of_an_exceeded_budget(shell: Shell, write: Write) -> None:
    """The stop reason tells a budget from a failure."""
    found = document(shell("run", write(ASK), "hi", "--budget", "tokens=3", "--json"))
    assert (found["stop_reason"], found["error"]["type"]) == ("budget_exceeded", "BudgetExceeded")
    assert found["error"]["path"] == "asked/helper/chat"


def test_run_is_recorded(shell: Shell, write: Write) -> None:
    """A run is found in the store afterwards, under the id that was printed."""
    run_id = document(shell("run", write(ECHO), "hi", "--json"))["run_id"]
    assert [r["run_id"] for r in document(shell("runs", "--json"))] == [run_id]


def test_no_store_records_nothing(shell: Shell, write: Write, tmp_path: Path) -> None:
    """--no-store makes no file and says so."""
    result = shell("run", write(ECHO), "hi", "--no-store")
    assert "not recorded" in result.stderr
    assert "agentrt show" not in result.stderr
    assert not (tmp_path / "runs.db").exists()


def test_store_of_the_command_line(shell: Shell, write: Write, tmp_path: Path) -> None:
    """--store takes the place of AGENTRT_STORE, and the hint names it."""
    result = shell("run", write(ECHO), "hi", "--store", f"sqlite:///{tmp_path}/mine.db")
    assert f"--store sqlite:///{tmp_path}/mine.db" in result.stderr
    assert (tmp_path / "mine.db").exists()


def test_quiet_shows_the_output_alone(shell: Shell, write: Write) -> None:
    """--quiet leaves stderr to users' code."""
    assert shell("run", write(ECHO), "hi", "--quiet").stderr == "noise\n"


def test_stdin_is_an_input(shell: Shell, write: Write) -> None:
    """INPUT - reads stdin."""
    assert shell("run", write(ECHO), "-", stdin="from a pipe\n").stdout == "FROM A PIPE\n"


def test_emitted_text_is_shown(shell: Shell, write: Write) -> None:
    """What users' code publishes as text is a line on stderr."""
    assert "planning\n" in shell("run", write(SWARM)).stderr


def test_help_of_a_file_lists_its_fields(shell: Shell, write: Write) -> None:
    """`run FILE --help` says what the file's graph takes."""
    result = shell("run", write(SWARM), "--help")
    assert (result.exit_code, "--n int  (default: 2)" in result.stdout) == (0, True)


def test_model_of_the_command_line(shell: Shell, write: Write) -> None:
    """--model takes the place of the graph's models."""
    result = shell("run", write(ASK), "hi", "--model", "local/no-such.gguf", "--json")
    assert result.exit_code == 2
    assert "no-such.gguf" in document(result)["error"]["message"]


def test_debug_adds_the_traceback(shell: Shell, write: Write) -> None:
    """A traceback is shown with --debug, and never without."""
    file = write('def boom() -> str:\n    raise ValueError("no")\n')
    assert "Traceback" not in shell("run", f"{file}:boom").stderr
    assert "Traceback" in shell("run", f"{file}:boom", "--debug").stderr


def test_run_that_cannot_be_recorded_fails(shell: Shell, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that breaks ends the run: failed, with the journal's error, whatever the steps did."""

    async def full(self: SqliteJournal, run_id: str, epoch: int, events: object) -> None:
        raise JournalError("runs.db: the disk is full")

    monkeypatch.setattr(SqliteJournal, "append", full)
    result = shell("run", write(ECHO), "hi", "--json")
    found = document(result)
    assert (result.exit_code, found["stop_reason"], found["error"]["type"]) == (1, "failed", "JournalError")


def test_a_partial_result_is_printed(shell: Shell, write: Write) -> None:
    """What had been done is the output for people; programs find it beside an output that is null."""
    how = ("run", write(SWARM), "3", "--budget", "steps=6,on_exhausted=partial")
    result = shell(*how)
    assert result.exit_code == 3
    assert '"finished"' in result.stdout
    found = document(shell(*how, "--json"))
    assert (found["stop_reason"], found["output"]) == ("partial", None)
    assert found["partial"]["scope"] == "swarm"


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    """And needs no command."""
    assert shell("--version").stdout == f"agentrt {agentrt.__version__}\n"


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), ([], 2)])
def test_without_a_file_its_use_is_told(shell: Shell, words: list[str], status: int) -> None:
    """As it is typed; it is a mistake unless it was asked for."""
    result = shell("run", *words)
    assert result.exit_code == status
    assert "run FILE[:NAME] [INPUT] [--FIELD VALUE]... [OPTIONS]" in result.stdout


def test_help_of_a_file_without_fields_tells_the_input(shell: Shell, write: Write) -> None:
    """Its type, and how what has no default is told from what is made anew for each run."""
    assert "Its input: text" in shell("run", write(ECHO), "--help").stdout
    file = write(
        "import dataclasses\n@dataclasses.dataclass\nclass Ask:\n    why: str\n"
        "    words: list[str] = dataclasses.field(default_factory=list)\n"
        "a = Agent('a', input=Ask)",
    )
    lines = [" ".join(line.split()) for line in shell("run", file, "--help").stdout.splitlines()]
    assert "--why text (required)" in lines
    assert "--words list[str] (default: made anew)" in lines


TOOLS = """
@tool(effect="read", untrusted=True)
async def fetch(url: str) -> str:
    \"\"\"Fetch a page.\"\"\"
    return url
@tool
async def post(words: str) -> str:
    \"\"\"Post words.\"\"\"
    return words
async def go(x: str, ctx: Context) -> str:
    return await ctx.run(post, await ctx.run(fetch, x))
from agentrt import FunctionNode
go = FunctionNode(go, name="go")
go.parts = (fetch, post)
"""


def test_a_run_is_narrowed_to_some_tools(shell: Shell, write: Write) -> None:
    result = shell("run", f"{write(TOOLS)}:go", "a", "--allow", "fetch")
    assert result.exit_code == 1
    assert "post is not among the tools that this run allows: fetch" in result.stderr
    assert "refused: post is not among the tools" in shell("show", "last").stdout


def test_a_policy_is_named(shell: Shell, write: Write) -> None:
    """And asks people, since what is posted may come from outside."""
    result = shell("run", f"{write(TOOLS)}:go", "a", "--policy", "approve_untrusted_writes")
    assert result.exit_code == 4
    assert "fetch" in shell("inbox").stdout


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--allow", "fetsh"), "allow=['fetsh']: go has no such tool (there are fetch, go, post)"),
        (("--policy", "approve_all"), "no policy 'approve_all'"),
    ],
)
def test_tools_and_policies_that_are_not_there_are_told(
    shell: Shell, write: Write, option: tuple[str, str], told: str
) -> None:
    result = shell("run", f"{write(TOOLS)}:go", "a", *option)
    assert (result.exit_code, told in result.stderr) == (2, True)
