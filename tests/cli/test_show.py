"""`agentrt show` and `agentrt runs`: what is recorded, read again."""

import io
import sys
from pathlib import Path

import anyio
import pytest

from agentrt.cli.show import View, _print, lines
from agentrt.cli.steptree import StepTree
from agentrt.events import (
    BranchDied,
    BudgetClamped,
    BudgetDenied,
    Emitted,
    ErrorInfo,
    Event,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    UsageRecorded,
)
from agentrt.journal import RunSummary
from agentrt.owner import this_process
from agentrt.stores import SqliteJournal, open_store
from agentrt.usage import Usage
from tests.cli.conftest import Shell, Write, document

FLOW = """
async def items(n: int) -> list[int]:
    return list(range(n))
def odd(i: int) -> int:
    if i == 30:
        raise ValueError("thirty")
    return i
def total(xs: list[int]) -> int:
    return sum(xs)
g = Graph("sums", input=int, output=int)
g.chain(START, items)
g.edge(items, odd, each=True)
g.edge(odd, total, join=first(1000))
g.edge(total, END)
"""


def step(path: str, kind: str = "node", at: float = 1.0, join: tuple[int, int] | None = None) -> StepStarted:
    return StepStarted(path=path, at=at, name=path.rpartition("/")[2], kind=kind, input="in", join=join)


def text(events: list[Event], view: View | None = None) -> list[str]:
    return [line.branch + line.text.plain for line in lines(StepTree(events), view or View())]


def test_tree_of_a_run(shell: Shell, write: Write) -> None:
    """The tree shows what went in and out, how many arrived at a join, and the branches in trouble."""
    shell("run", write(FLOW), "40", "--quiet")
    shown = shell("show").stdout
    assert "sums graph  40 → 750" in shown
    assert "└─ total (join 39 of 40)" in shown
    assert "· ValueError: thirty" in shown
    assert "… 27 more of odd (27 done): --full shows them" in shown
    assert len(shell("show", "--full").stdout.splitlines()) > 42


def test_depth_cuts_the_tree(shell: Shell, write: Write) -> None:
    """--depth shows so many levels and counts the rest."""
    shell("run", write(FLOW), "3", "--quiet")
    shown = shell("show", "last", "--depth", "1").stdout
    assert "sums graph (+5 steps)" in shown
    assert "items" not in shown


def test_json_is_one_object(shell: Shell, write: Write) -> None:
    """--json prints the run and its steps, each after the one above it."""
    shell("run", write(FLOW), "2", "--quiet")
    found = document(shell("show", "--json"))
    assert (found["name"], found["status"], found["output"]) == ("sums", "done", 1)
    assert [s["path"] for s in found["steps"]] == ["sums", "sums/items", "sums/odd[0]", "sums/odd[1]", "sums/total"]
    assert found["steps"][-1]["join"] == {"arrived": 2, "expected": 2}


def test_run_is_found_by_the_beginning_of_its_id(shell: Shell, write: Write) -> None:
    """A unique beginning of an id names a run; one that fits several, or none, is an error."""
    ids = [document(shell("run", write(FLOW), "2", "--json"))["run_id"] for _ in range(2)]
    assert ids[0] in shell("show", ids[0][:-1] if ids[0][:-1] != ids[1][:-1] else ids[0]).stdout
    assert "2 runs begin with '2'" in shell("show", "2").stderr
    missing = shell("show", "nothing")
    assert (missing.exit_code, "no run 'nothing'" in missing.stderr) == (2, True)


def test_nothing_recorded_yet(shell: Shell) -> None:
    """An empty store says how to begin."""
    assert "agentrt run FILE starts one" in shell("runs").stderr
    assert document(shell("runs", "--json")) == []
    assert shell("show").exit_code == 2


def test_runs_are_a_table(shell: Shell, write: Write) -> None:
    """Runs are listed newest first, as many as asked for."""
    file = write(FLOW)
    for n in ("1", "31", "2"):
        shell("run", file, n, "--quiet")
    table = shell("runs", "--limit", "2").stdout.splitlines()
    assert table[0].split() == ["RUN", "NAME", "STATUS", "STARTED", "TIME", "TOKENS", "COST"]
    assert len(table) == 3


def test_full_shows_whole_texts() -> None:
    """--full cuts nothing."""
    events: list[Event] = [step("g"), StepFinished(path="g", at=2.0, output="word " * 100 + "end")]
    assert text(events)[0].endswith("…")
    assert text(events, View(full=True))[0].endswith("word end")


def test_usage_sums_up() -> None:
    """A step's tokens include those below it."""
    used = UsageRecorded(path="g/a/chat", at=2.0, usage=Usage(input_tokens=5, output_tokens=2, cost=3))
    tree = StepTree([step("g"), step("g/a"), step("g/a/chat", "chat"), used])
    assert [(s.tokens, s.cost, s.below) for s in tree.steps.values()] == [(7, 3, 2), (7, 3, 1), (7, 3, 0)]


def test_budget_events_are_notes() -> None:
    """What the budget did to a step stands below it; a step denied its start is shown."""
    shown = text([
        step("g"),
        BudgetClamped(path="g", at=1.0, wanted=4096, granted=512),
        BudgetDenied(path="g/b", at=1.0, scope="g", dimension="steps"),
    ])  # fmt: skip
    assert "   · budget: clamped to 512 of 4,096 output tokens" in [s.replace("│", " ") for s in shown]
    assert "└─ b denied" in shown
    assert "      · budget: denied, steps of g are exhausted" in shown


def test_error_is_told_once() -> None:
    """An error that travelled up is told at the step that raised it."""
    error = ErrorInfo("ValueError", "no\nway")
    shown = text([
        step("g"), step("g/a[1]"), StepFailed(path="g/a[1]", at=2.0, error=error),
        StepFailed(path="g", at=2.0, error=error), BranchDied(path="g/a[1]", at=2.0, error=error),
    ])  # fmt: skip
    assert sum("ValueError: no way" in s for s in shown) == 1
    assert any("the branch was dropped" in s for s in shown)


def test_model_call_shows_the_last_message_and_the_reply() -> None:
    """Of a model call the new question and the answer are shown, calls of tools too."""
    asked = StepStarted(
        path="chat", at=1.0, name="chat", kind="chat", attributes={"model": "some/model"},
        input={"messages": [{"text": "be kind", "role": "system"}, {"text": "why?", "role": "user"}]},
    )  # fmt: skip
    call = {"id": "1", "name": "add", "arguments": '{"a":1}'}
    answered = StepFinished(path="chat", at=2.0, output={"message": {"text": "", "tool_calls": [call]}})
    assert text([asked, answered]) == ['chat some/model  why? → add({"a":1})']


def test_control_characters_do_not_reach_the_terminal() -> None:
    """What a tool answered cannot drive the terminal."""
    (shown,) = text([step("g"), StepFinished(path="g", at=2.0, output="\x1b]0;owned\x07\nnext")])
    assert shown == "g  in → ]0;owned next"


def test_deep_tree() -> None:
    """A recursion of thousands of calls is shown without one of ours."""
    paths = ["g" + "/g" * i for i in range(3000)]
    assert len(text([step(p) for p in paths])) == 3000


def test_the_error_of_a_failed_run_stands_last(shell: Shell, write: Write) -> None:
    """With the path of the step that failed first."""
    shell("run", write(FLOW.replace("join=first(1000)", "join=collect")), "40", "--quiet")
    assert shell("show").stdout.splitlines()[-1] == "sums/odd[30]: ValueError: thirty"


@pytest.mark.parametrize(("owner", "status"), [("this", "running"), ("another", "running"), ("", "cut off")])
def test_a_run_without_an_end_runs_or_was_cut_off(shell: Shell, tmp_path: Path, owner: str, status: str) -> None:
    """It runs as long as somebody's claim on it holds."""
    step_of_it = step("g/a")

    async def record() -> None:
        journal = SqliteJournal(tmp_path / "runs.db")
        opened = RunStarted(run_id="r1", at=1.0, name="g", input="in", limits={"usd": 0.5})
        epoch = await journal.claim(
            "r1", this_process() if owner == "this" else owner, seconds=60 if owner else 0, new=True
        )
        await journal.append("r1", epoch, [opened, step("g"), step_of_it])
        await journal.aclose()

    anyio.run(record)
    shown = shell("show", "r1").stdout.splitlines()
    assert shown[0].startswith(f"r1  {status}  g")
    assert shown[0].endswith("so far · 2 steps · 0 tokens · $0.00 · budget usd=0.5")
    assert f"└─ a {status}  in" in shown[-1]


USED = Usage(input_tokens=300, output_tokens=200, uncertain=500)


def kept(*events: Event) -> None:
    """Have a record of a run `r` in the store."""

    async def keep() -> None:
        journal = open_store()
        epoch = await journal.claim("r", this_process(), seconds=60, new=True)
        await journal.append("r", epoch, [RunStarted(run_id="r", at=1.0, name="g", input="in", limits={}), *events])
        await journal.release("r", epoch)
        await journal.aclose()

    anyio.run(keep)


def test_a_run_that_waited_tells_how_long_it_was_worked_on(shell: Shell) -> None:
    """And how long it took with all that lay between its parts."""
    parked = RunParked(run_id="r", at=3.0, usage=Usage())
    went_on = RunResumed(run_id="r", at=3600.0, name="g", limits={})
    done = RunFinished(run_id="r", at=3605.0, output=1, usage=Usage(), stop_reason="done")
    kept(parked, went_on, done)
    assert " · 7.0 s of work in 1 h 00 min · " in shell("show").stdout
    assert "  7.0 s  " in shell("runs").stdout
    assert document(shell("runs", "--json"))[0]["seconds"] == 7.0


def test_a_run_that_waits_is_not_worked_on(shell: Shell) -> None:
    """However long."""
    kept(RunParked(run_id="r", at=3.0, usage=Usage()))
    assert " · 2.0 s so far · " in shell("show").stdout
    assert document(shell("show", "--json"))["seconds"] == 2.0


def test_charges_in_doubt_are_stated(shell: Shell) -> None:
    """Among the tokens that were charged."""
    kept(step("g"), step("g/chat", "chat"), UsageRecorded(path="g/chat", at=2.0, usage=USED))
    assert "500 tokens (500 in doubt)" in shell("show").stdout
    assert document(shell("show", "--json"))["uncertain_tokens"] == 500


def test_many_notes_are_cut() -> None:
    """The first are shown, the rest counted, unless all are asked for."""
    said: list[Event] = [Emitted(path="g", at=1.0, value=f"note {i}") for i in range(8)]
    assert text([step("g"), *said])[-2:] == ["   · note 4", "   · 3 more: --full shows them"]
    assert len(text([step("g"), *said], View(full=True))) == 9


def test_notes_are_what_is_to_be_told() -> None:
    """Any value that code publishes, but not the pieces of a text that stands there whole."""
    events: list[Event] = [
        step("g"), TextDelta(path="g", at=1.0, text="so"), Emitted(path="g", at=1.0, value={"done": 3}),
        StepCancelled(path="g", at=2.0),
    ]  # fmt: skip
    assert text(events) == ["g cancelled  in", "   · emitted {'done': 3}"]


def test_a_model_call_that_failed_has_no_reply() -> None:
    """The question and the error are shown."""
    asked = StepStarted(
        path="chat", at=1.0, name="chat", kind="chat", attributes={"model": "m"}, input={"messages": [{"text": "why?"}]}
    )
    failed = StepFailed(path="chat", at=2.0, error=ErrorInfo("RateLimited", "slow down"))
    assert text([asked, failed]) == ["chat m failed  why?", "   · RateLimited: slow down"]


class Terminal(io.StringIO):
    """Take what is printed, as a terminal does."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("full", [False, True])
def test_on_a_terminal_a_step_is_a_line(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    """Cut at the edge, unless whole texts are asked for."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    summary = RunSummary(run_id="r", name="g", status="done", started=1.0, ended=2.0, tokens=0, cost=0)
    tree = StepTree([step("g"), StepFinished(path="g", at=2.0, output="word " * 20 + "end")])
    _print(summary, tree, View(full=full))
    shown = terminal.getvalue()
    assert ("word end" in shown) == full
    assert ("…" in shown) != full
