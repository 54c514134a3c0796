"""`agentrt resume`, `fork`, `replay`, `diff`, `inbox` and the answers."""

from __future__ import annotations

import getpass
import json
import time

import anyio
import pytest

from agentrt import run
from agentrt.cli.exits import ExitStatus
from agentrt.cli.source import load
from agentrt.events import EffectBegun, RunResumed, UsageRecorded
from agentrt.owner import this_process
from agentrt.stores import MemoryJournal, open_store
from agentrt.usage import Usage
from tests.cli.conftest import Shell, Write

TRIP = '''
from agentrt import END, START, Agent, Context, Graph, collect, tool
from agentrt.messages import AssistantMessage, ToolCall, ToolMessage
from agentrt.testing import FunctionModel

@tool(approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"

def clerk(request):
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return AssistantMessage(last.text)
    return AssistantMessage("It is due.", (ToolCall("1", "pay", '{"amount": 20}'),))

agent = Agent("agent", model=FunctionModel(clerk), tools=[pay])

async def nights(word: str, ctx: Context) -> str:
    return f"{await ctx.ask('How many nights?', int)} nights"

main = Graph("trip", input=str, output=list[str])
main.edge(START, [agent, nights])
main.edge(agent, END, join=collect)
main.edge(nights, END, join=collect)
'''
CHAIN = """
async def first_(n: int) -> int:
    return n + 1

async def second(n: int) -> int:
    raise ValueError('no')

main = Graph("g", input=int, output=int)
main.chain(START, first_, second, END)
"""
PAY, NIGHTS = "trip/agent[0]/pay/approve", "trip/nights[1]/ask"


def begun(shell: Shell, write: Write) -> str:
    """Run until it waits, and return the run's id."""
    waiting = shell("run", write(TRIP), "go", "--json")
    assert waiting.exit_code == ExitStatus.WAITING
    found = json.loads(waiting.stdout)
    assert (found["stop_reason"], found["output"]) == ("waiting", None)
    return str(found["run_id"])


def test_a_run_asks_is_answered_and_goes_on(shell: Shell, write: Write) -> None:
    """From commands alone: what is asked, each answer, and the rest of the run."""
    run_id = begun(shell, write)
    asked = shell("inbox").stdout
    for part in (
        "How many nights?",
        "May pay be called?",
        "why: It is due.",
        "may spend on models: nothing",
        f"agentrt answer {run_id} VALUE",
    ):
        assert part in asked
    edited = shell("approve", "last", "--edit", '{"amount": 7}', "--by", "Ada")
    assert f"{PAY}: approved by Ada, edited" in edited.stderr
    assert '+  "amount": 7' in edited.stderr
    assert f"still asks: {NIGHTS}" in edited.stderr
    partly = shell("resume", "last")
    assert partly.exit_code == ExitStatus.WAITING
    assert "waiting" in partly.stderr
    assert "agentrt resume" in shell("answer", "last", "3").stderr
    done = shell("resume", run_id[:-2], "--json")
    assert json.loads(done.stdout)["output"] == ["paid 7", "3 nights"]
    assert shell("resume", "last").stdout == '[\n  "paid 7",\n  "3 nights"\n]\n'
    assert shell("inbox").stderr == "nobody is asked anything\n"
    shown = shell("show", "last").stdout
    assert "asks people: How many nights?" in shown
    assert 'approved by Ada, edited; its arguments: {"amount":7}' in shown
    assert 'pay tool  {"amount":7} → paid 7' in shown
    assert "resumed 20" in shown


def test_the_inbox_for_programs(shell: Shell, write: Write) -> None:
    """Everything a person would see."""
    begun(shell, write)
    questions = {q["path"]: q for q in json.loads(shell("inbox", "--json").stdout)}
    assert set(questions) == {PAY, NIGHTS}
    assert questions[PAY]["about"]["arguments"] == {"amount": 20}
    assert questions[NIGHTS]["schema"] == {"type": "integer"}


def test_a_denied_call_is_told_to_the_agent(shell: Shell, write: Write) -> None:
    """With the reason."""
    begun(shell, write)
    shell("deny", "last", "--because", "too much", "--by", "Ada")
    shell("answer", "last", "2")
    assert "Ada denied this call: too much" in shell("resume", "last").stdout


def test_answers_that_do_not_fit_are_refused(shell: Shell, write: Write) -> None:
    """Nothing is recorded, and it is said what would fit."""
    begun(shell, write)
    for typed, said in [
        (["approve", "last", "--edit", '{"amount": "x"}'], "amount: 'x' is not of type 'integer'"),
        (["approve", "last", "--edit", "{"], "is not JSON"),
        (["approve", "last", "--edit", "7"], "write an object"),
        (["answer", "last", "many"], "'many' is not of type 'integer'"),
        (["answer", "last", "2", "trip/other"], "does not wait for an answer to trip/other; open are trip/"),
        (["settle", "last", "--again"], "takes 'again'; it waits for"),
        (["settle", "last"], "either --happened RESULT or --again"),
    ]:
        refused = shell(*typed)
        assert refused.exit_code == ExitStatus.USAGE
        assert said in refused.stderr
    assert len(json.loads(shell("inbox", "--json").stdout)) == 2
    shell("answer", "last", "2")
    twice = shell("answer", "last", "2", NIGHTS)
    assert (twice.exit_code, f"does not wait for an answer to {NIGHTS}" in twice.stderr) == (ExitStatus.USAGE, True)


def test_a_run_is_forked_compared_and_gone_through_again(shell: Shell, write: Write) -> None:
    """A fork asks anew; the difference is where they part; a replay says that all is as recorded."""
    run_id = begun(shell, write)
    shell("approve", "last")
    shell("answer", "last", "3")
    shell("resume", "last")
    assert "every step came out as recorded" in shell("replay", "last").stderr
    assert "did you mean trip/nights[1]" in shell("fork", "last", "trip/nights").stderr
    forked = shell("fork", "last", NIGHTS, "--json")
    assert forked.exit_code == ExitStatus.WAITING
    new_id = json.loads(forked.stdout)["run_id"]
    assert json.loads(shell("runs", "--limit", "1", "--json").stdout)[0]["run_id"] == new_id  # it is the last
    for path, typed in ((PAY, ["approve", new_id, PAY]), (NIGHTS, ["answer", new_id, "5", NIGHTS])):
        if path in {q["path"] for q in json.loads(shell("inbox", new_id, "--json").stdout)}:
            shell(*typed)
    assert json.loads(shell("resume", new_id, "--json").stdout)["output"] == ["paid 20", "5 nights"]
    parted = json.loads(shell("diff", run_id, new_id, "--json").stdout)
    assert {d["path"] for d in parted["differences"]} >= {"trip", "trip/nights[1]", NIGHTS}
    assert "5 nights" in shell("diff", run_id, new_id).stdout
    assert shell("diff", run_id, run_id).stderr.startswith("every step is the same")


NAME = """
async def name(n: int, ctx: Context) -> str:
    return await ctx.ask("What is it called?")
"""


def test_a_text_that_looks_like_json_is_a_text_where_that_is_asked_for(shell: Shell, write: Write) -> None:
    """And what fits neither way is told as JSON."""
    shell("run", f"{write(NAME)}:name", "1", "--quiet")
    assert "name/ask: answered by" in shell("answer", "last", "42").stderr
    assert shell("resume", "last").stdout == "42\n"
    begun(shell, write)
    refused = shell("answer", "last", '{"n": 3}')
    assert refused.stderr == f"error: {NIGHTS}: {{'n': 3}} is not of type 'integer'\n"


PAY_SLOWLY = """
from agentrt.testing import call
from agentrt.messages import ToolMessage

@tool
async def pay(amount: int) -> str:
    \"\"\"Pay.\"\"\"
    return f"paid {amount}"

def say(request):
    last = request.messages[-1]
    return last.text if isinstance(last, ToolMessage) else call("pay", amount=20)

agent = Agent("clerk", model=FunctionModel(say), tools=[pay])
"""


@pytest.mark.parametrize(
    ("typed", "told", "output"),
    [
        (["--happened", "paid before"], "it has happened, says Ada", "paid before\n"),
        (["--again"], "it is to be made again, says Ada", "paid 20\n"),
    ],
)
def test_of_a_call_that_was_cut_off_a_person_says_what_has_become(
    shell: Shell, write: Write, typed: list[str], told: str, output: str
) -> None:
    """The run goes on from there."""
    source = load(write(PAY_SLOWLY))

    async def cut_off() -> None:
        whole, journal = MemoryJournal(), open_store()
        await run(source.node, "go", journal=whole, run_id="r", target=source.address)
        events = await whole.events("r")
        end = next(i for i, e in enumerate(events) if isinstance(e, EffectBegun)) + 1
        await journal.append("r", await journal.claim("r", "killed", seconds=0, new=True), events[:end])
        await journal.aclose()

    anyio.run(cut_off)
    assert "pay tool cut off" in shell("show", "r").stdout
    assert shell("resume", "r").exit_code == ExitStatus.WAITING
    assert "agentrt settle r 'clerk/pay/doubt[1]' --again" in shell("inbox").stdout
    assert told in shell("settle", "r", *typed, "--by", "Ada").stderr
    assert shell("resume", "r").stdout == output


def test_a_changed_graph_is_told_and_may_be_run_anew(shell: Shell, write: Write) -> None:
    """By default what was recorded of it does not answer for a step that is another."""
    failed = shell("run", write(CHAIN), "1")
    assert failed.exit_code == ExitStatus.FAILED
    mended = CHAIN.replace("raise ValueError('no')", "return n * 10")
    assert shell("resume", "last", "--in", write(mended)).stdout == "20\n"
    again = shell("replay", "last", "--in", write(mended.replace("n + 1", "n + 2"), "other.py"))
    assert (again.exit_code, "g/first_ is not what was recorded" in again.stderr) == (ExitStatus.FAILED, True)


GO_ON = """
async def ask(name: str, ctx: Context) -> str:
    if not await ctx.ask("Go on?", bool):
        raise ValueError("no")
    return name
"""


def test_the_last_line_tells_the_time_and_the_charges_of_all_parts(shell: Shell, write: Write) -> None:
    """Of which some may be in doubt."""
    run_id = json.loads(shell("run", f"{write(GO_ON)}:ask", "Rome", "--json").stdout)["run_id"]

    async def cut_off() -> None:
        journal = open_store()
        epoch = await journal.claim(run_id, this_process(), seconds=60)
        at = (await journal.run(run_id)).latest
        used = Usage(input_tokens=300, output_tokens=200, uncertain=500)
        await journal.append(run_id, epoch, [UsageRecorded(path="ask", at=at + 3600.0, usage=used)])
        await journal.release(run_id, epoch)
        await journal.aclose()

    anyio.run(cut_off)
    shell("answer", "last", "true")
    last = shell("resume", "last").stderr.splitlines()[-2]
    assert last.startswith(f"run {run_id} · done · ")
    assert " · 500 tokens (500 in doubt) · $0.00 · 1 h 00 min" in last


def test_a_run_that_is_done_is_said_to_be(shell: Shell, write: Write) -> None:
    """Its output is printed again."""
    shell("run", f"{write('def add(n: int) -> int: return n + 1')}:add", "1")
    again = shell("resume", "last")
    assert again.stdout == "2\n"
    assert "was done before: agentrt show" in again.stderr
    assert shell("resume", "last", "--quiet").stderr == ""


LATE = """
async def late(n: int, ctx: Context) -> str:
    first_, second = await ctx.map(one, [1, 2])
    return first_ + second

async def one(n: int, ctx: Context) -> str:
    return await ctx.ask(f"{n}?", timeout=60, default="none")
"""


def test_what_is_said_after_an_answer(shell: Shell, write: Write) -> None:
    """Until when a question waits; that it has to be named among several; what is still asked; how to go on."""
    run_id = json.loads(shell("run", f"{write(LATE)}:late", "1", "--json").stdout)["run_id"]
    asked = shell("inbox", "last").stdout
    assert (asked.count(', then: "none"'), asked.count("  until 20")) == (2, 2)
    several = shell("answer", "last", "x")
    assert several.exit_code == ExitStatus.USAGE
    assert "has several such questions, name one: late/one[0]/ask, late/one[1]/ask" in several.stderr
    assert shell("answer", "last", "x", "late/one[1]/ask").stderr.endswith(f"{run_id} still asks: late/one[0]/ask\n")
    assert shell("answer", "last", "y").stderr.endswith(f"agentrt resume {run_id} goes on with it\n")
    assert shell("resume", "last").stdout == "yx\n"


def test_a_model_takes_the_place_of_all_when_a_run_goes_on(shell: Shell, write: Write) -> None:
    """And is told of where there is none of its name."""
    begun(shell, write)
    shell("approve", "last")
    refused = shell("resume", "last", "--model", "local/nosuch")
    assert (refused.exit_code, "local/nosuch" in refused.stderr) == (ExitStatus.USAGE, True)


def test_an_answer_while_the_run_goes_on_is_found_when_it_goes_on_again(shell: Shell, write: Write) -> None:
    """Nobody is told to resume what somebody drives."""
    run_id = begun(shell, write)

    async def drive() -> None:
        journal = open_store()
        epoch = await journal.claim(run_id, this_process(), seconds=60)
        await journal.append(run_id, epoch, [RunResumed(run_id=run_id, at=time.time(), name="trip", limits={})])
        await journal.aclose()

    anyio.run(drive)
    shell("approve", "last")
    assert shell("answer", "last", "3").stderr == f"{NIGHTS}: answered by {getpass.getuser()}\n"


def test_a_run_that_python_started_says_where_its_graph_is_wanted(shell: Shell, write: Write) -> None:
    """The shell cannot know; it names the command that was typed."""
    begun(shell, write)
    moved = shell("resume", "last", "--in", "nowhere.py")
    assert (moved.exit_code, "no file 'nowhere.py'" in moved.stderr) == (ExitStatus.USAGE, True)

    async def start() -> None:
        journal = open_store()
        await run(load(write(CHAIN.replace("raise ValueError('no')", "return n"))).node, 1, journal=journal, run_id="r")
        await journal.aclose()

    anyio.run(start)
    for typed in ("resume r", "fork r g/second", "replay r"):
        refused = shell(*typed.split())
        assert (refused.exit_code, refused.stderr.split(", ")[-1]) == (
            ExitStatus.USAGE,
            f"agentrt {typed} --in FILE:NAME\n",
        )


def test_an_input_that_does_not_fit_a_fork_is_wrong_usage(shell: Shell, write: Write) -> None:
    """No run is begun for it."""
    begun(shell, write)
    before = shell("runs", "--json").stdout
    for path, said in [
        ("trip", "the input given to the fork does not fit trip: Input should be a valid string"),
        (NIGHTS, f"{NIGHTS} asks people, and takes no input"),
    ]:
        refused = shell("fork", "last", path, "--input", "7")
        assert (refused.exit_code, said in refused.stderr) == (ExitStatus.USAGE, True)
    assert shell("runs", "--json").stdout == before


LONG = """
async def name(n: int, ctx: Context) -> str:
    return await ctx.run(told, "word " * 100 + "OLD" + " word" * 100)

async def told(text: str) -> str:
    return text
"""


def test_a_replay_shows_what_differs(shell: Shell, write: Write) -> None:
    """Of long values the part that does, in both forms; a run that waits comes out as recorded, too."""
    shell("run", f"{write(LONG)}:name", "1")
    done = json.loads(shell("replay", "last", "--json").stdout)
    assert (done["stop_reason"], done["output"].count("word")) == ("done", 200)
    other = f"{write(LONG.replace('OLD', 'NEW'), 'other.py')}:name"
    again = shell("replay", "last", "--in", other)
    assert again.exit_code == ExitStatus.FAILED
    shown = again.stderr.splitlines()
    assert shown[0] == "error: name/told is not what was recorded"
    assert [line[:1] for line in shown if "OLD" in line or "NEW" in line] == ["-", "+"]
    assert len(again.stderr) < 1000
    error = json.loads(shell("replay", "last", "--in", other, "--json").stdout)["error"]
    assert "name/told is not what was recorded" in error["message"]
    shell("run", f"{write(NAME)}:name", "1")
    waiting = shell("replay", "last")
    assert (waiting.exit_code, waiting.stdout) == (ExitStatus.DONE, "")
    assert "every step came out as recorded, and it waits for people" in waiting.stderr
    assert json.loads(shell("replay", "last", "--json").stdout)["stop_reason"] == "waiting"


def test_errors_for_programs(shell: Shell) -> None:
    """On stdout as JSON, on stderr as ever."""
    for typed in (["show"], ["replay"], ["inbox"], ["diff", "x"], ["approve"], ["deny"], ["answer", "--by", "me", "x"]):
        refused = shell(*typed, "nosuch", "--json")
        assert refused.exit_code == ExitStatus.USAGE
        assert json.loads(refused.stdout)["error"]["type"] == "UsageError"
        assert refused.stderr.startswith("error: no run")


def test_answers_for_programs(shell: Shell, write: Write) -> None:
    """What is recorded of an answer, and what is still open."""
    run_id = begun(shell, write)
    given = json.loads(shell("approve", "last", "--edit", '{"amount": 7}', "--by", "Ada", "--json").stdout)
    assert [given[name] for name in ("run_id", "path", "verdict", "by", "value", "open")] == [
        run_id,
        PAY,
        "approve",
        "Ada",
        {"amount": 7},
        [NIGHTS],
    ]
    answered = shell("answer", "last", "3", "--json")
    assert (json.loads(answered.stdout)["value"], answered.stderr) == (3, "")


ORDER = """
from typing import Literal
from pydantic import BaseModel, Field

class Order(BaseModel):
    size: Literal["small", "large"]
    copies: int = Field(1, ge=1, le=9)

async def order(n: int, ctx: Context) -> str:
    sure = await ctx.ask("Sure?", bool)
    return f"{sure} {(await ctx.ask('What?', Order, key='o')).size}"
"""


def test_the_inbox_says_what_an_answer_is(shell: Shell, write: Write) -> None:
    """In words; and yes is an answer where true is."""
    shell("run", f"{write(ORDER)}:order", "1")
    assert "  answer: yes or no\n" in shell("inbox").stdout
    assert json.loads(shell("answer", "last", "Yes", "--json").stdout)["value"] is True
    shell("resume", "last")
    assert '  answer: {size: "small" or "large", copies?: integer at least 1 and at most 9}\n' in shell("inbox").stdout
    shell("answer", "last", '{"size": "large"}')
    assert shell("resume", "last").stdout == "True large\n"
