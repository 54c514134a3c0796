"""Who drives a run, and whether that process is still there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agentrt import owner
from agentrt.owner import Owner, has_died, this_process


def test_a_living_process_has_not_died() -> None:
    """It is named by its machine, id and start."""
    host, pid, started = this_process().rsplit(":", 2)
    assert (host, pid) == (owner._host(), str(os.getpid()))
    assert int(started) > 0
    assert not has_died(this_process())


def test_of_those_who_drive_runs_here_each_has_a_name() -> None:
    """Which lives until it ends, or nobody holds it any more."""
    one, other = Owner(), Owner()
    assert one.name != other.name
    assert one.name.startswith(f"{this_process()}#")
    forgotten = Owner().name
    one.end()
    assert [has_died(name) for name in (one.name, other.name, forgotten)] == [True, False, True]
    one.end()  # twice is as good as once


def test_of_those_in_another_process_their_process_counts() -> None:
    """Nobody here knows more."""
    code = "from agentrt.owner import Owner; owner = Owner(); print(owner.name, flush=True); owner.end(); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert not has_died(name)
        process.kill()
        process.wait()
        assert has_died(name)


def test_a_later_process_of_its_id_is_another() -> None:
    """Whose start differs."""
    host, pid, started = this_process().rsplit(":", 2)
    assert has_died(f"{host}:{pid}:{int(started) - 1}")


def test_an_ended_process_has_died() -> None:
    """Even while its parent has not asked how it ended."""
    code = "from agentrt import owner; print(owner.this_process(), flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.read().strip()  # to its end: it is exiting
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_died(name)
    assert has_died(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "me",
        "a:b",
        "a:b:c",
        ":1:",
        "elsewhere:1:1",
        "{host}:x:1",
        "{host}:1:x",
        "{host}:-1:1",
        "{host}:1:1#",
        "{host}:1:1#x",
    ],
)
def test_of_others_nobody_here_knows(name: str) -> None:
    """Other machines, and names that are no processes."""
    assert not has_died(name.format(host=owner._host()))


def test_processes_nobody_has_are_dead() -> None:
    """However big their ids."""
    assert has_died(f"{owner._host()}:{2**31 - 1}:1")
    assert has_died(f"{owner._host()}:{2**70}:1")


def test_where_nothing_tells_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on Linux, or hidden: a process of that id counts as the one."""
    monkeypatch.setattr(owner, "_state", lambda pid: None)
    name = this_process()
    assert name.endswith(":0")
    assert not has_died(name)
    assert has_died(f"{owner._host()}:{2**31 - 1}:0")


def test_a_container_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even under the same name: its process ids are its own."""
    name = this_process()
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[5]")
    assert "/5:" in this_process()
    assert not has_died(name.replace(":", ":9", 1))
