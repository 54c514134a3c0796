"""`agentrt diff`: where two runs part."""

from __future__ import annotations

import json
from collections.abc import Sequence

import anyio

from agentrt.cli.diff import Difference, differences
from agentrt.cli.exits import ExitStatus
from agentrt.events import (
    BudgetDenied,
    ErrorInfo,
    Event,
    RunStarted,
    StepFailed,
    StepFinished,
    StepStarted,
    UsageRecorded,
)
from agentrt.owner import this_process
from agentrt.recorded import Recorded
from agentrt.stores import open_store
from agentrt.usage import Usage
from tests.cli.conftest import Shell


def began(path: str, input: object = "in") -> StepStarted:
    return StepStarted(path=path, at=1.0, name=path.rpartition("/")[2], kind="node", input=input)


def done(path: str, output: object = "out") -> StepFinished:
    return StepFinished(path=path, at=2.0, output=output)


def failed(path: str) -> StepFailed:
    return StepFailed(path=path, at=2.0, error=ErrorInfo("ValueError", "no"))


def found(one: Sequence[Event], other: Sequence[Event]) -> list[Difference]:
    return list(differences(Recorded(one), Recorded(other)))


def test_equal_runs_do_not_differ() -> None:
    """Nor do those whose steps had no beginning: a budget denied it."""
    denied = BudgetDenied(path="g/b", at=1.0, scope="g", dimension="steps")
    same = [began("g"), began("g/a"), done("g/a"), denied, failed("g/b"), done("g")]
    assert found(same, same) == []


def test_outputs_are_told_all_the_way_up() -> None:
    """A step that failed, or has no end, has that in its output's place."""
    one = [began("g"), began("g/a"), done("g/a", 1), began("g/b"), failed("g/b"), done("g", 1)]
    other = [began("g"), began("g/a"), done("g/a", 2), began("g/b"), done("g/b"), began("g/c"), done("g", 1)]
    assert found([*one, began("g/c"), done("g/c")], other) == [
        Difference("g/a", "output", 1, 2),
        Difference("g/b", "output", "ValueError: no", "out"),
        Difference("g/c", "output", "out", "(no end)"),
    ]


def test_below_a_step_with_another_input_nothing_is_told() -> None:
    """Nor below one that only one of them has."""
    one = [began("g"), began("g/a", 1), began("g/a/x", 1), began("g/b"), began("g/b/x")]
    other = [began("g"), began("g/a", 2), began("g/a/x", 2), began("g/c"), began("g/c/x")]
    assert found(one, other) == [
        Difference("g/a", "input", 1, 2),
        Difference("g/b", "only in the first", "in", None),
        Difference("g/c", "only in the second", None, "in"),
    ]


def test_of_an_approval_who_gave_it_and_when_is_no_difference() -> None:
    """What was decided is."""

    def approved(at: float, verdict: str = "approve") -> list[Event]:
        asked = StepStarted(path="g/pay/approve", at=1.0, name="approve", kind="question", input={"amount": 2})
        given = {"at": at, "verdict": verdict, "by": f"{at}", "value": None, "because": ""}
        return [began("g"), asked, done("g/pay/approve", given), done("g")]

    assert found(approved(2.0), approved(3.0)) == []
    [parted] = found(approved(2.0), approved(3.0, "deny"))
    assert parted.second == {"verdict": "deny", "value": None, "because": ""}


def test_the_table_and_the_document(shell: Shell) -> None:
    """Both tell each run's costs, also what is in doubt."""

    async def keep() -> None:
        journal = open_store()
        for run_id, output in (("one", 1), ("two", 2)):
            used = UsageRecorded(path="g", at=1.5, usage=Usage(input_tokens=output, uncertain=output))
            opened = RunStarted(run_id=run_id, at=1.0, name="g", input="in", limits={})
            epoch = await journal.claim(run_id, this_process(), seconds=60, new=True)
            await journal.append(run_id, epoch, [opened, began("g"), used, done("g", output)])
        await journal.aclose()

    anyio.run(keep)
    shown = shell("diff", "one", "two")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["STEP", "WHAT", "one", "two"],
        ["g", "output", "1", "2"],
    ]
    assert shown.stderr.splitlines() == [
        "one: 1 token (1 in doubt), 1 step, $0.00",
        "two: 2 tokens (2 in doubt), 1 step, $0.00",
    ]
    document = json.loads(shell("diff", "one", "two", "--json").stdout)
    assert document["differences"] == [{"path": "g", "what": "output", "first": 1, "second": 2}]
    assert [u["uncertain_tokens"] for u in document["usage"]] == [1, 2]
    assert shell("diff", "one", "three").exit_code == ExitStatus.USAGE
