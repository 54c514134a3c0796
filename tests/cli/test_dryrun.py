"""`agentrt run --dry-run`, and runs that are refused."""

from pathlib import Path

import pytest

from tests.cli.conftest import Shell, Write, document

BRIEF = """
def plan(x: str) -> list[str]:
    open("ran", "w").close()
    return [x, x]
g = Graph("brief", input=str, output=str)
solver = Agent("solver", model=model, instructions="Three words more", max_turns=2)
g.chain(START, plan)
g.edge(plan, solver, each=True)
g.edge(solver, Agent("writer", model=model, instructions="Write it"), join=collect)
g.edge(g.nodes[-1], END)
"""


def test_it_prints_a_table_and_runs_nothing(shell: Shell, write: Write) -> None:
    """Least, greatest, budget and who dominates, a dimension a line; then whether it fits."""
    result = shell("run", write(BRIEF), "hi", "--dry-run", "--widths", "solver=2-3", "--budget", "model_calls=4")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "LEAST GREATEST BUDGET DOMINATED BY"
    assert lines[5:8] == ["model_calls 3 4, by budget 4 brief/writer", "tool_calls 0 0", "steps 8 22 brief/writer"]
    assert (result.exit_code, lines[-1]) == (0, "may fit: its budget may run out of model_calls")
    assert not Path("ran").exists()


def test_it_names_what_has_no_bound(shell: Shell, write: Write) -> None:
    """With the reason, and the dimensions."""
    result = shell("run", write(BRIEF), "hi", "--dry-run")
    named = [line for line in result.stdout.splitlines() if "solver" in line and "unbounded" in line]
    assert len(named) == 1
    assert "steps: brief/solver is forked to once an item" in named[0]
    assert result.stdout.splitlines()[-1] == "no budget is set"


@pytest.mark.parametrize(("budget", "status"), [("steps=4", 0), ("steps=3", 3), ("tokens=1,steps=90", 3)])
def test_its_status_says_whether_it_fits(shell: Shell, write: Write, budget: str, status: int) -> None:
    """3, as for a run that exceeds its budget, where not even the least fits."""
    result = shell("run", write(BRIEF), "hi", "--dry-run", "--budget", budget)
    assert result.exit_code == status
    assert ("does not fit: a run of 'brief' needs at least" in result.stdout) == (status == 3)


def test_it_can_be_sure_to_fit(shell: Shell, write: Write) -> None:
    """Where the greatest is within the budget."""
    result = shell("run", write(BRIEF), "hi", "--dry-run", "--widths", "solver=2", "--budget", "steps=100")
    assert result.stdout.splitlines()[-1] == "fits: no run takes more than its budget"


def test_json_is_one_object(shell: Shell, write: Write) -> None:
    """A bound for each dimension; what is infinite is null; the error says why it does not fit."""
    found = document(shell("run", write(BRIEF), "hi", "--dry-run", "--json", "--budget", "steps=2"))
    assert (found["name"], found["fits"], found["error"]["type"]) == ("brief", False, "BudgetTooSmall")
    tokens = found["bounds"]["tokens"]
    assert (tokens["least"], tokens["greatest"], tokens["uncapped"]) == (2, 2_000_000, None)
    assert list(tokens["unbounded"]) == ["brief/solver"]
    assert "error" not in document(shell("run", write(BRIEF), "hi", "--dry-run", "--json"))


def test_a_run_that_cannot_fit_is_refused(shell: Shell, write: Write) -> None:
    """Before anything runs, in one line that says what is needed and who needs it."""
    result = shell("run", write(BRIEF), "hi", "--budget", "tokens=1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        "error: a run of 'brief' needs at least 2 tokens, most of it for brief/writer, and its budget is 1; "
        "raise Budget(tokens=…)\n"
    )
    assert not Path("ran").exists()
    assert not Path("runs.db").exists()


def test_widths_that_are_no_numbers_are_told(shell: Shell, write: Write) -> None:
    """With the part that is wrong."""
    result = shell("run", write(BRIEF), "hi", "--dry-run", "--widths", "solver=many")
    assert (result.exit_code, "--widths 'solver=many'" in result.stderr) == (2, True)


def test_widths_of_no_fork_are_told(shell: Shell, write: Write) -> None:
    """With those there are."""
    result = shell("run", write(BRIEF), "hi", "--dry-run", "--widths", "solvers=3")
    assert (result.exit_code, "widths= of solvers" in result.stderr, "solver\n" in result.stderr) == (2, True, True)
