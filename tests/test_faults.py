"""The properties have teeth: each of these faults, put into a copy of the package, makes one of their tests fail.

A property test that no fault can fail proves nothing. Run by `python -m pytest -m slow tests/test_faults.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEDGER = "tests/test_ledger.py"
PLAN = "tests/test_plan.py"
RESUMED = "tests/test_resume_in_process.py"
POLICIES = "tests/test_exhaustion.py"
PROMISES = "tests/test_resume_promises.py"
LIMITS = "tests/test_limits.py"
TURNS = "tests/test_turns.py"
QUEUE = "tests/test_scheduler.py"
BUFFER = "tests/test_stream.py"
BOUNDS = "tests/test_walks.py"

LEVEL = "        level = _outermost(account, _matters) or (account if raised else None)\n"
TURNED_AWAY = """\
        if leaving is not None:
            self.leave(leaving)
        decided = self._turn_away(account)
"""

FAULTS = [
    ("ledger", "if n > most[d]:", "if n > most[d] + 1:", LEDGER),
    ("ledger", "_uncount(account, dimensions)\n                raise", "raise", LEDGER),
    ("ledger", "_add(ticket.account, held, -1)\n", "pass\n", LEDGER),
    ("ledger", "return self.full if self in asking.wraps else self.bounded", "return self.full", LEDGER),
    ("ledger", "return self.full if self in asking.wraps", "return self.full if asking.wraps", LEDGER),
    ("ledger", "return self.closed and self not in asking.wraps", "return False", LEDGER),
    (
        "ledger",
        "if scope.spent[d] + least[d] > limit:",
        "if scope.spent[d] + scope.reserved[d] + least[d] > limit:",
        LEDGER,
    ),
    ("ledger", "enough = max(request.floor, min(", "enough = min(request.floor, min(", LEDGER),
    ("ledger", "if any(used):", "if False:", LEDGER),
    ("ledger", "return bool(over)", "return False", LEDGER),
    ("ledger", "if ticket.refused_by or any(scope.claims for scope in asking.chain):", "if ticket.refused_by:", LEDGER),
    ("turns", "if (wider := _outermost(ticket.account, short)) is not None:", "if (wider := level) is None:", TURNS),
    ("turns", "level = _outermost(ticket.account, short) if self.waiting else None", "level = None", TURNS),
    ("turns", "not _hopeless(scope, line):", "line.tickets:", TURNS),
    ("turns", LEVEL + TURNED_AWAY, TURNED_AWAY + LEVEL, TURNS),
    ("plan", "if taken >= route.times", "if taken > route.times", PLAN),
    ("plan", "values = [fork.values[i] for i in sorted(fork.values)]", "values = list(fork.values.values())", PLAN),
    ("plan", "len(fork.values) >= route.join.first:", "len(fork.values) > route.join.first:", PLAN),
    ("plan", "if branch.inner is not None:\n                self._cancel(branch.inner)", "pass", PLAN),
    ("plan", "branch.visits.get(node, 1) + 1", "branch.visits.get(node, 0) + 1", PLAN),
    ("plan", "branch.rounds.get(closer, 0) + 1", "1", PLAN),
    ("plan", "branch = branch.parent\n        raise", "break\n        raise", PLAN),
    ("progress", "return self._outcomes.get(path, (None, MISSING))[0]", "return None", POLICIES),
    ("progress", "self.outcomes += below.outcomes", "pass", RESUMED),
    ("progress", "self.not_started += below.not_started", "pass", POLICIES),
    ("progress", "self.limits |= below.limits", "pass", PROMISES),
    ("progress", "self.branches |= below.branches", "pass", PROMISES),
    ("progress", "self.memories |= below.memories", "pass", PROMISES),
    ("progress", "if counted:", "if False:", RESUMED),
    ("scheduler", "caller.recall(activation, budget, outcome)", "pass", RESUMED),
    ("drive", "plan.refused(activation, outcome)", "ready = plan.failed(activation, outcome)", POLICIES),
    ("drive", "max(1, len(fork.branches))", "1", LIMITS),
    (
        "scheduler",
        "            if not activation.given_up:\n                return drive",
        "            return drive",
        QUEUE,
    ),
    (
        "scheduler",
        "if self._active < self._limit:\n            self._active += 1",
        "if True:\n            self._active += 1",
        QUEUE,
    ),
    (
        "scheduler",
        "self._queue.append(drive)\n            if not",
        "self._queue.appendleft(drive)\n            if not",
        QUEUE,
    ),
    ("scheduler", "self.record(StepCancelled(path=path, at=self.clock()))", "pass", QUEUE),
    ("stream", "self._missing += count", "self._missing += 1", BUFFER),
    ("stream", "last.first.path == event.path and", "", BUFFER),
    ("stream", "if number < self._gap:", "if True:", BUFFER),
    ("walks", "arc.route.times or 0)", "(arc.route.times or 1) - 1)", BOUNDS),
    ("walks", "else cheapest[-1])", "else sum(cheapest, NOTHING))", BOUNDS),
    ("walks", "most = repeated(most, widest)", "pass", BOUNDS),
    ("execution", "self._context.begin_attempt(self._node.counts)", "pass", LIMITS),
]


@pytest.mark.parametrize(("module", "right", "wrong", "tests"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_has_a_place(module: str, right: str, wrong: str, tests: str) -> None:
    """Where the code has moved on, the line of this fault must be named again."""
    assert (ROOT / "agentrt" / f"{module}.py").read_text(encoding="utf-8").count(right) == 1
    assert right != wrong
    assert (ROOT / tests).is_file()


def run_copy(tests: str, folder: Path, module: str, right: str, wrong: str) -> subprocess.CompletedProcess[str]:
    """Run tests against a copy of the package in which one line of a module is another."""
    for name in ("agentrt", "tests", "tools", "graphs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = folder / "agentrt" / f"{module}.py"
    file.write_text(file.read_text(encoding="utf-8").replace(right, wrong), encoding="utf-8")
    paths = os.pathsep.join(str(folder / name) for name in (".", "tools", "graphs"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "HYPOTHESIS_PROFILE": "faults"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("tests", sorted({tests for *_, tests in FAULTS}))
def test_without_a_fault_nothing_is_noticed(tests: str, tmp_path: Path) -> None:
    """Else the faults below would prove nothing."""
    done = run_copy(tests, tmp_path, "__init__", "", "")
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "right", "wrong", "tests"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_is_noticed(module: str, right: str, wrong: str, tests: str, tmp_path: Path) -> None:
    """A test fails, and is not just broken off."""
    done = run_copy(tests, tmp_path, module, right, wrong)
    assert done.returncode == 1, done.stdout[-2000:]
