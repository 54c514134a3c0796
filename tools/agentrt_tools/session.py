"""Sessions of processes: a process that was started as the first of one, and all that it has started since."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

LONGEST_END: Final = 5.0
"""Seconds that killed processes may take to be gone."""


def kill_session(leader: int) -> None:
    """Kill a session, in whatever groups its processes are, and wait for their end; without /proc its first group."""
    left = _session(leader)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    ends = time.monotonic() + LONGEST_END
    while left and time.monotonic() < ends:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        left = _session(leader)  # they may have started others meanwhile


def _session(leader: int) -> set[int]:
    """Return the processes of a session, in whatever groups, and all that those have started; none without /proc."""
    found = {pid: status for entry in Path("/proc").glob("[0-9]*") if (status := _status_of(pid := int(entry.name)))}
    members = {leader}
    while more := {p for p, s in found.items() if p not in members and (s.session == leader or s.parent in members)}:
        members |= more
    return members & {pid for pid, status in found.items() if status.is_alive}


class _Status(NamedTuple):
    """Hold what the system says of a process."""

    is_alive: bool
    parent: int
    session: int


def _status_of(pid: int) -> _Status | None:
    try:
        state, parent, _, session = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[:4]
    except OSError:  # it has gone
        return None
    return _Status(state not in "ZX", int(parent), int(session))
