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
CONTINUED = "tests/test_continuation.py"
PEOPLE = "tests/test_people.py"
REPLAYED = "tests/test_replay.py"
FORKED = "tests/test_fork.py"
RECORD = "tests/test_recorded.py"
FENCED = "tests/test_fencing.py"
WRITER = "tests/test_journal.py"
STORES = "tests/stores/test_conformance.py"
GOING_ON = "tests/test_going_on.py"
MARKS = "tests/test_untrusted.py"
PERMITTED = "tests/test_permission.py"
CITED = "tests/test_citation.py"
RESOURCES = "tests/test_resources.py"
FETCHED = "tests/tools/test_fetch.py"
FILES = "tests/tools/test_files.py"
COMMANDS = "tests/tools/test_shell.py"
QUERIES = "tests/tools/test_sql.py"
CHUNKS = "tests/index/test_chunking.py"

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
    ("scheduler", "self.record(StepCancelled(path=path, at=self.clock(), given_up=given_up))", "pass", QUEUE),
    ("stream", "self._missing += count", "self._missing += 1", BUFFER),
    ("stream", "last.first.path == event.path and", "", BUFFER),
    ("stream", "if number < self._gap:", "if True:", BUFFER),
    ("walks", "arc.route.times or 0)", "(arc.route.times or 1) - 1)", BOUNDS),
    ("walks", "else cheapest[-1])", "else sum(cheapest, NOTHING))", BOUNDS),
    ("walks", "most = repeated(most, widest)", "pass", BOUNDS),
    ("execution", "self._context.begin_attempt(self._node.counts)", "pass", LIMITS),
    ("recorded", "step.lost, step.drawn = [], []", "pass", CONTINUED),
    ("recorded", "self._forget_attempt(event.path)", "pass", CONTINUED),
    (
        "recorded",
        "step.attempts, step.began, step.spends = step.attempts + 1, 0, 0",
        "step.began = step.spends = 0",
        CONTINUED,
    ),
    ("recorded", "self.steps[path].is_given_up = True", "pass", CONTINUED),
    ("recorded", "self.steps[below].is_given_up = False", "pass", CONTINUED),
    ("recorded", "caller.is_concurrent or caller.running > 0", "False", GOING_ON),
    ("recorded", "step.is_void, step.running = self._is_void, 0", "step.is_void, step.running = False, 0", GOING_ON),
    ("recorded", "self.options = {**self.options, **event.options}", "pass", GOING_ON),
    ("recorded", "self.replaced[event.path] = event.input", "self.replaced = {event.path: event.input}", GOING_ON),
    ("recorded", "step.ended.of", "()", CONTINUED),
    ("runs", "return self._is_over or", "return False and", GOING_ON),
    ("replay", "_check_form(output, ended.form)\n    except", "pass\n    except", GOING_ON),
    ("context", "if self.scheduler.withdraw(activation.path):", "if False:", GOING_ON),
    ("scheduler", "if parked is not None and rest is not None:", "if False:", GOING_ON),
    ("scheduler", "if self._is_aborted:  # code", "if False:  # code", GOING_ON),
    ("scheduler", "activation.given_up or self.is_ending(error) or", "activation.given_up or", GOING_ON),
    ("scheduler", "or self.parks(caller.path))", ")", GOING_ON),
    ("scheduler", "given_up and anyio.current_time() < context.deadline", "given_up", GOING_ON),
    ("recorded", "self._step(event.path).began += 1", "pass", PEOPLE),
    ("recorded", "step.spends += 1", "pass", CONTINUED),
    ("recorded", "self._step(event.path).awaits_attempt = False", "pass", CONTINUED),
    (
        "recorded",
        "yield UsageRecorded(path=path, at=at, usage=usage)",
        "yield UsageRecorded(path=path, at=at, usage=Usage())",
        CONTINUED,
    ),
    ("recorded", "self._step(event.path).remembers = True", "pass", CONTINUED),
    ("recorded", "self._spent.pop(path, None)", "pass", RECORD),
    ("recorded", 'step.question.kind == "ask" or', "False or", PEOPLE),
    ("recorded", 'return step.question.kind == "ask" or (', "return True or (", PEOPLE),
    ("recorded", "step.is_counted = step.is_counted or bool(event.counts)", "step.is_counted = True", CONTINUED),
    (
        "replay",
        "if self._is_same(activation, step) and self._answers(step):",
        "if self._answers(step):",
        REPLAYED,
    ),
    (
        "replay",
        "if self._again and self._is_new(activation, step) and not self.is_given_up(path):",
        "if False:",
        REPLAYED,
    ),
    ("replay", "step is not None and step.awaits_attempt and not self._again", "False", CONTINUED),
    ("replay", "activation.value = input_of(activation.node, replaced[path], path)", "pass", FORKED),
    ("replay", "if missed := self.unasked(path, step):", "if False:", REPLAYED),
    ("replay", "plain_output(output) != step.ended.output", "False", REPLAYED),
    ("replay", "return () if self._again else self.recorded.spent(path)", "return ()", CONTINUED),
    ("replay", "return 0 if step is None or self._again else step.attempts", "return 0", CONTINUED),
    ("replay", "return self.recorded.spent_on(p for p", "return () and self.recorded.spent_on(p for p", CONTINUED),
    (
        "replay",
        "return self if self._again else AnsweredPast(self.recorded, path)",
        "return self if self._again else None",
        PEOPLE,
    ),
    ("question", "if answer is None and asked.until is not None and ctx.clock() >= asked.until:", "if False:", PEOPLE),
    ("question", "if asked is None or not self._is_same(asked):", "if asked is None:", PEOPLE),
    ("question", "for n in range(ctx.doubts):", "for n in range(1):", PEOPLE),
    ("question", "self._parse(answer.value)", "pass", PEOPLE),
    ("question", "None if refused is not None and refused.by == TIME_OUT else self.seconds", "self.seconds", PEOPLE),
    (
        "question",
        "return tool.arguments.parse(answer.value) if isinstance(answer.value, Mapping) else arguments",
        "return arguments",
        PEOPLE,
    ),
    ("people", "if mistakes := sorted(", "if mistakes := False and sorted(", PEOPLE),
    ("people", "if len(fitting) == 1:", "if fitting:", PEOPLE),
    ("tool", "await ctx.begin_effect()", "pass", PEOPLE),
    ("tool", 'if ctx.doubts and self.effect == "unsafe" and', "if ctx.doubts and", PEOPLE),
    ("calls", "while self._parked < len(self._busy):", "while False:", PEOPLE),
    ("draws", "if known.name != name:", "if False:", REPLAYED),
    ("guidance", 'return _BRANCH_OR_VISIT.sub("", path)', "return path", PEOPLE),
    ("context", "self.spends <= self.past.spends(self.path)", "False", CONTINUED),
    ("context", "await self.scheduler.flush()", "pass", FENCED),
    ("reservation", "await scheduler.flush()", "pass", FENCED),
    ("journal", "self.on_failure()", "pass", WRITER),
    (
        "scheduler",
        "self.record(StepCancelled(path=end.path, at=end.at) if self._is_aborted else end)",
        "self.record(end)",
        REPLAYED,
    ),
    ("scheduler", "elif caller.past.is_given_up(activation.path):", "elif False:", CONTINUED),
    ("runs", 'self.ledger.restore(recorded.spent(""), recorded.usage)', "pass", CONTINUED),
    ("runs", "for event in self._cut_off:\n            recorded.add(event)", "pass", CONTINUED),
    ("stores/operations", "if run.epoch != epoch:", "if False:", STORES),
    ("stores/operations", "elif question.closed is not None:", "elif False:", STORES),
    ("stores/operations", "run.epoch += 1", "run.epoch = run.epoch or 1", STORES),
    ("stores/record", "if event.keep:", "if True:", STORES),
    ("stores/record", "0.0 if is_answered else event.due", "event.due", STORES),
    ("stores/record", "run.kept.clear()", "pass", STORES),
    ("recorded", "yield from _failed_at(below, recorded)", "pass", CONTINUED),
    ("plan", "activation.branch.read |= activation.read", "pass", MARKS),
    ("plan", "fork.branch.read |= branch.read", "pass", MARKS),
    ("plan", "self.read: frozenset[str] = fork.branch.read if fork else NOTHING", "self.read = NOTHING", MARKS),
    (
        "plan",
        "return self._root.read if self.finished and self.failure is None else self.seen",
        "return self.seen",
        MARKS,
    ),
    ("drive", "self.context.meet(plan.read)", "pass", MARKS),
    ("step", "activation.read = self.past.read(activation.path)", "pass", MARKS),
    ("step", "NOTHING if vouched else self.read | own", "self.read | own", MARKS),
    ("messages", 'closed = _MARK.sub(r"<\\\\\\1untrusted", text)', "closed = text", MARKS),
    ("agent", "messages = tuple(map(marked, messages))", "messages = tuple(messages)", MARKS),
    ("permission", 'tool.startswith(f"{name}.")', "tool.startswith(name)", PERMITTED),
    ("permission", 'return self.effect != "read"', "return True", PERMITTED),
    ("continuation", 'known["allow"] = allow', "pass", PERMITTED),
    ("continuation", 'known["policy"] = policy_named(policy)', "pass", PERMITTED),
    ("execution", "self._value = await self._permitted()", "pass", PERMITTED),
    ("toolbox", "and (not is_guarded or ctx.allows(t))", "", PERMITTED),
    ("citation", "if len(named) == 1:", "if named:", CITED),
    ("agent", "conversation.passages.add(task, by=_GIVEN)", "pass", CITED),
    ("agent", "conversation.passages = said.passages.copy()", "pass", CITED),
    ("runs", 'tasks.start_soon(scheduler.resources.aclose, name="agentrt close")', "pass", RESOURCES),
    ("context", "            self._remember()\n        agent =", "            pass\n        agent =", RESOURCES),
    ("resources", "if resource is None or resource.is_over:", "if resource is None:", RESOURCES),
    ("tools/agentrt_tools/reach", "not found or not all(is_public(a) for a in found)", "not found", FETCHED),
    ("tools/agentrt_tools/fetch", "if len(body) > most or read > most:", "if False:", FETCHED),
    (
        "tools/agentrt_tools/session",
        "left = _session(leader)\n    with",
        "left = set[int]()\n    with",
        COMMANDS,
    ),
    ("tools/agentrt_tools/sqlite_worker", 'connection.execute("PRAGMA query_only = ON")', "pass", QUERIES),
    ("tools/agentrt_tools/sqlite", "time.monotonic() < ends", "True", QUERIES),
    ("tools/agentrt_tools/folder", 'parts.anchor or ".." in names', "False", FILES),
    (
        "index/chunking",
        "        if self._fresh:\n            yield self._close()\n\n    def _close",
        "        return\n        yield\n\n    def _close",
        CHUNKS,
    ),
    ("index/chunking", "size <= self.size:\n                yield _Atom", "True:\n                yield _Atom", CHUNKS),
    ("index/chunking", "yield begin, begin + len(stripped)", "yield start, start + len(stripped)", CHUNKS),
    ("index/chunking", "elif path and block.level <= path[-1].level:", "elif False:", CHUNKS),
    ("index/chunking", "        self._make_room(atom.size)\n            self._atoms", "        self._atoms", CHUNKS),
    ("index/structure", "        yield from self._close()\n\n    def _marked", "\n    def _marked", CHUNKS),
]


def file_of(root: Path, module: str) -> Path:
    return root / (f"{module}.py" if module.startswith("tools/") else f"agentrt/{module}.py")


@pytest.mark.parametrize(("module", "right", "wrong", "tests"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_has_a_place(module: str, right: str, wrong: str, tests: str) -> None:
    """Where the code has moved on, the line of this fault must be named again."""
    assert file_of(ROOT, module).read_text(encoding="utf-8").count(right) == 1
    assert right != wrong
    assert (ROOT / tests).is_file()


def run_copy(tests: str, folder: Path, module: str, right: str, wrong: str) -> subprocess.CompletedProcess[str]:
    """Run tests against a copy of the package in which one line of a module is another."""
    for name in ("agentrt", "tests", "tools", "graphs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = file_of(folder, module)
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
