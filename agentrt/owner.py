"""Who drives a run: somebody in a process, named so that others on its machine can see whether it is still there."""

from __future__ import annotations

import os
import re
import socket
import sys
from itertools import count
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

_OWNER: Final = re.compile(r"(?P<host>.*):(?P<pid>[0-9]+):(?P<started>[0-9]+)(?P<number>#[0-9]+)?", re.DOTALL)
_FIRST_NAMESPACE: Final = "pid:[4026531836]"
"""Linux's name for the process ids of the machine itself; containers have others."""
_ENDED: Final = "ZX"
"""The states of a process that has ended and is still listed."""


class Owner:
    """Be somebody who drives a run in this process, until that ends or nobody holds the object any more.

    name: `host:pid:start-time#number`, which nobody else is ever called.
    """

    def __init__(self) -> None:
        self.name = f"{this_process()}#{next(_NUMBERS)}"
        _LIVING[self.name] = self

    def end(self) -> None:
        """Be over: whatever this one had claimed is free."""
        _LIVING.pop(self.name, None)


_NUMBERS: Final = count(1)
_LIVING: Final = WeakValueDictionary[str, Owner]()


def this_process() -> str:
    """Return `host:pid:start-time`, which no other process is called, not even a later one of the same id."""
    _, started = _state(os.getpid()) or ("", 0)
    return f"{_host()}:{os.getpid()}:{started}"


def has_died(owner: str) -> bool:
    """Say whether an owner, or its process, has ended; of those on other machines nobody here knows."""
    match = _OWNER.fullmatch(owner)
    if match is None or match["host"] != _host():
        return False
    pid, started = int(match["pid"]), int(match["started"])
    if pid == os.getpid() and match["number"] is not None:
        return owner not in _LIVING
    if not _exists(pid):
        return True
    found = _state(pid)
    return found is not None and (found[0] in _ENDED or found[1] != started)


def _host() -> str:
    """Return the machine's name; in a container also that of its process ids, which mean nothing outside."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return socket.gethostname()
    return socket.gethostname() if namespace == _FIRST_NAMESPACE else f"{socket.gethostname()}/{namespace[5:-1]}"


def _state(pid: int) -> tuple[str, int] | None:
    """Return a process's state and when it started, in the kernel's ticks; None where that cannot be told."""
    try:
        # After the command's name, which may hold anything, come the state and 18 numbers, then the start.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # not Linux, or hidden from this user
        return None
    return fields[0], int(fields[19])


def _exists(pid: int) -> bool:
    if sys.platform == "win32":  # there signal 0 would reach the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
