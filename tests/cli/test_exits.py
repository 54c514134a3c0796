"""How a command ends, and what it says then."""

import pytest
import typer

from agentrt.cli.exits import ExitStatus, UsageError, describe, told
from agentrt.errors import DefinitionError, ModelUnavailable, UnknownModel


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("write FILE"), ExitStatus.USAGE, "write FILE"),
        (DefinitionError("no name"), ExitStatus.USAGE, "no name"),
        (UnknownModel("no such model", model="p/m"), ExitStatus.USAGE, "p/m: no such model"),
        (ModelUnavailable("down", model="p/m"), ExitStatus.FAILED, "p/m: down"),
        (ValueError("odd\nvalue"), ExitStatus.FAILED, "ValueError: odd value"),
        (KeyError(), ExitStatus.FAILED, "KeyError"),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED, "interrupted"),
    ],
)
def test_an_error_is_a_line_and_a_status(
    error: BaseException, status: ExitStatus, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts read the status, people the line; the place is told of users' code alone."""
    with pytest.raises(typer.Exit) as ended, told():
        raise error
    assert ended.value.exit_code == status
    assert capsys.readouterr().err.splitlines()[0].startswith(f"error: {line}")


def test_a_reader_that_has_gone_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """As in `agentrt show | head`: click ends the command, and nothing is said."""
    with pytest.raises(BrokenPipeError), told():
        raise BrokenPipeError
    assert capsys.readouterr().err == ""


def test_a_status_that_was_decided_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever decides it has said why."""
    with pytest.raises(typer.Exit) as ended, told():
        raise typer.Exit(ExitStatus.BUDGET_EXCEEDED)
    assert (ended.value.exit_code, capsys.readouterr().err) == (ExitStatus.BUDGET_EXCEEDED, "")


def test_the_place_of_an_error_is_told_of_users_code_alone() -> None:
    """Where there is none, nothing stands in its place."""
    assert describe(ValueError("odd")) == "ValueError: odd"
