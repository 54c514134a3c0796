"""The pytest plugin: markers and fixtures, and nothing for those who use none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentrt.cli import app

PLUGIN = ("-p", "agentrt.testing.plugin", "-p", "anyio", "-p", "no:cacheprovider")

VIRTUAL = """
import anyio, pytest, time

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

@pytest.fixture
async def slow_fixture():
    began = anyio.current_time()
    await anyio.sleep(1000)
    yield anyio.current_time() - began

async def test_sleeps(slow_fixture):
    assert slow_fixture == 1000
    await anyio.sleep(1000)
    assert anyio.current_time() == 2000

def test_without_a_loop():
    pass
"""

REAL = """
import anyio, pytest, time

@pytest.mark.anyio
async def test_real():
    began = time.monotonic()
    await anyio.sleep(0.02)
    assert time.monotonic() - began > 0.01
"""

ORDERS = """
import anyio, anyio.lowlevel, pytest

seen = set()

@pytest.mark.anyio
@pytest.mark.interleavings(12)
async def test_orders():
    order = []
    async def task(name):
        await anyio.lowlevel.checkpoint()
        order.append(name)
    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(task, name)
    seen.add("".join(order))

def test_both_were_seen():
    assert seen == {"ab", "ba"}
"""

MODELS = """
import pytest
from agentrt import Agent, run
from agentrt.testing import FunctionModel

pytestmark = [pytest.mark.anyio, pytest.mark.interleavings(2)]

async def test_script(scripted_model):
    model = scripted_model("hello", "again")
    assert (await run(Agent("a"), "hi", model=model)).output == "hello"

asked = []

def teardown_module():
    print(f"asked {len(asked)} times")

async def test_tape(cassette):
    model = cassette(FunctionModel(lambda r: asked.append(r) or "SAID"))
    other = cassette(FunctionModel(lambda r: "other"), name="critic")
    assert (await run(Agent("a"), "hi", model=model)).output == "SAID"
    assert (await run(Agent("a"), "QUESTION", model=other)).output == "other"
"""

FLOW = """
from agentrt import END, START, Graph

def add(n: int) -> int:
    return n + 1

graph = Graph("sum", input=int, output=int)
graph.chain(START, add, END)
"""

REPLAYS = """
import pytest
from flow import graph

@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_async(replay_run):
    assert (await replay_run(graph, "runs/sum.jsonl")).output == 2

def test_sync(replay_run_sync):
    events = []
    assert replay_run_sync(graph, "runs/sum.jsonl", observers=[events.append]).output == 2
    assert events

def test_missing(replay_run_sync):
    replay_run_sync(graph, "runs/other.jsonl")
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTRT_RECORD", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others that are installed may change order and output


def test_marked_tests_run_in_virtual_time_with_their_fixtures(pytester: pytest.Pytester) -> None:
    """Whatever `anyio_backend` says; plain tests of the same module run as always."""
    pytester.makepyfile(VIRTUAL)
    result = pytester.runpytest_inprocess(*PLUGIN, "-v", "--strict-markers")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_sleeps[[]virtual[]]*", "*::test_without_a_loop PASSED*"])


def test_others_are_left_alone(pytester: pytest.Pytester) -> None:
    """In real time, under their own names."""
    pytester.makepyfile(REAL)
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n")
    result = pytester.runpytest_inprocess(*PLUGIN, "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_real PASSED*"])


def test_interleavings(pytester: pytest.Pytester) -> None:
    """Each order is a test, named by its seed."""
    pytester.makepyfile(ORDERS)
    result = pytester.runpytest_inprocess(*PLUGIN, "-v")
    result.assert_outcomes(passed=13)
    result.stdout.fnmatch_lines(["*test_orders[[]order11[]] PASSED*"])


def test_interleavings_need_a_loop(pytester: pytest.Pytester) -> None:
    """A marker that would do nothing is refused."""
    pytester.makepyfile("import pytest\n@pytest.mark.interleavings\ndef test_it():\n    pass\n")
    result = pytester.runpytest_inprocess(*PLUGIN)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*in any other call run_virtual(function, seed=*"])


def test_scripts_and_cassettes_are_checked(pytester: pytest.Pytester) -> None:
    """A test that leaves a reply over fails; cassettes lie beside the test, one for all its interleavings."""
    pytester.makepyfile(test_models=MODELS)
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*ScriptMismatch: test/scripted: asked 1 times of 2; nobody asked for: 'again'*"])
    folder = pytester.path / "cassettes" / "test_models"
    assert sorted(p.name for p in folder.iterdir()) == ["test_tape.critic.jsonl", "test_tape.jsonl"]
    edit(folder / "test_tape.jsonl", "SAID", "REPLAYED")
    result = pytester.runpytest_inprocess(*PLUGIN, "-k", "tape")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*'REPLAYED' == 'SAID'*"])


def test_an_option_says_whether_to_record(pytester: pytest.Pytester) -> None:
    """`none` needs a recording of this very request, which `once` makes."""
    recording(pytester, "none").assert_outcomes(failed=2)
    recording(pytester, "once").assert_outcomes(passed=2)
    edit(pytester.path / "cassettes" / "test_models" / "test_tape.critic.jsonl", "QUESTION", "ANOTHER")
    result = recording(pytester, "none")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(['*"text": "ANOTHER"*', '*"text": "QUESTION"*'])


def test_all_is_recorded_anew(pytester: pytest.Pytester) -> None:
    """Once for all interleavings, whatever there is."""
    recording(pytester, "once").assert_outcomes(passed=2)
    result = recording(pytester, "all")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*asked 1 times*"])


def test_recorded_runs_are_replayed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files beside the test; of a change the test's line and the difference are shown, and nothing of what is
    between them."""
    monkeypatch.delitem(sys.modules, "flow", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    flow = pytester.makepyfile(flow=FLOW)
    pytester.makeini("[pytest]\npythonpath = .")
    folder = pytester.mkdir("tests")
    (folder / "test_flow.py").write_text(REPLAYS, encoding="utf-8")
    store = f"sqlite:///{pytester.path}/runs.db"
    for command in (["run", "flow.py", "1"], ["export", "last", "--to", str(folder / "runs" / "sum.jsonl")]):
        assert CliRunner().invoke(app, [*command, "--store", store]).exit_code == 0
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["E *FileNotFoundError: no record *runs/other.jsonl: agentrt export RUN --to *"])
    edit(flow, "n + 1", "n + 1 + 2")  # of another size: Python takes a file of the same second and size for the same
    result = pytester.runpytest_subprocess(*PLUGIN, "-k", "not missing")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*RecordMismatch: */runs/sum.jsonl: sum/add is not what was recorded", "E*-2", "E*+4"])
    result.stdout.no_fnmatch_line("*records.py*")


def recording(pytester: pytest.Pytester, mode: str) -> pytest.RunResult:
    pytester.makepyfile(test_models=MODELS)
    return pytester.runpytest_inprocess(*PLUGIN, "-s", "-k", "tape", f"--agentrt-record={mode}")


@pytest.mark.parametrize("options", [(), PLUGIN[:2]])
def test_the_entry_point_and_p_go_together(
    pytester: pytest.Pytester, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed and named as well, the plugin is registered once."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    info = pytester.mkdir("somewhere-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somewhere\nVersion: 1.0\n")
    name = entry_point()
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = agentrt.testing.plugin\n")
    pytester.syspathinsert(pytester.path)
    pytester.makepyfile(VIRTUAL)
    pytester.runpytest_inprocess(*options, "-p", "no:cacheprovider").assert_outcomes(passed=2)


def entry_point() -> str:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (name,) = project["entry-points"]["pytest11"]
    return str(name)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
