"""SQLite: files that are asked in a process of its own for each question, which can be ended whatever it does."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryFile
from typing import Any, Final

from agentrt_tools.database import Database, SqlError, late
from agentrt_tools.rows import Rows, Wanted
from agentrt_tools.thread import run_stoppable

_PAUSE: Final = 0.02
_GRACE: Final = 1.0
_ENDING: Final = 0.5
_SAID: Final = 500
# The package without its `__init__`, which imports more than a question should wait for.
_START: Final = f"""
import sys, types
package = sys.modules["agentrt_tools"] = types.ModuleType("agentrt_tools")
package.__path__ = [{str(Path(__file__).parent)!r}]
from agentrt_tools.sqlite_worker import main
main()
"""


class SqliteDatabase(Database):
    """Ask an SQLite file; `write` makes no file that is missing, either."""

    def __init__(self, file: str | Path, *, write: bool, seconds: float) -> None:
        super().__init__(write=write, seconds=seconds)
        self._file = Path(file).absolute().as_uri()

    async def rows(self, statement: str, wanted: Wanted) -> Rows:
        return Rows(**await self._asked(statement, wanted))

    async def tables(self) -> list[list[str]]:
        tables: list[list[str]] = (await self._asked(None, None))["tables"]
        return tables

    async def _asked(self, statement: str | None, wanted: Wanted | None) -> Mapping[str, Any]:
        write = self.write and wanted is not None and not wanted.offset
        question = {
            "location": f"{self._file}?mode={'rw' if write else 'ro'}",
            "write": write,
            "seconds": self.seconds,
            "statement": statement,
            "wanted": wanted and asdict(wanted),
        }
        reply = await run_stoppable(partial(self._reply, json.dumps(question).encode()))
        if "error" in reply:
            raise SqlError(self._told(str(reply["error"])[:_SAID], write=write))
        return reply

    def _reply(self, question: bytes, unwanted: threading.Event) -> Mapping[str, Any]:
        """Ask a process, and end it where it takes too long or nobody wants its answer any more."""
        ends = time.monotonic() + self.seconds + _GRACE
        # -I and -S: neither the folder one is in nor what is installed changes what is imported.
        command = [sys.executable, "-I", "-S", "-c", _START]
        with TemporaryFile() as asked:  # in a pipe it could wait for a process that reads no more
            asked.write(question)
            asked.seek(0)
            with Popen(command, stdin=asked, stdout=PIPE, stderr=DEVNULL) as process:
                try:
                    while not unwanted.is_set() and time.monotonic() < ends:
                        with suppress(TimeoutExpired):
                            return self._read(process.communicate(timeout=_PAUSE)[0])
                finally:
                    self._end(process)
        raise SqlError(late(self.seconds))

    def _read(self, answer: bytes) -> Mapping[str, Any]:
        try:
            reply: Mapping[str, Any] = json.loads(answer)
        except ValueError as error:  # the system has ended it
            raise SqlError("the statement took too much time or memory: ask for less") from error
        return reply

    def _end(self, process: Popen[bytes]) -> None:
        """End the process; one that writes gets a moment to undo what it has begun."""
        if process.poll() is not None:
            return
        if self.write:
            process.terminate()
            with suppress(TimeoutExpired):
                process.wait(_ENDING)
        process.kill()

    def _told(self, reason: str, *, write: bool) -> str:
        if reason == "interrupted":
            return late(self.seconds)
        if reason == "no such function: REGEXP":
            return f"{reason}: use LIKE or GLOB"
        if reason.startswith("cannot VACUUM"):
            return "VACUUM is not run: each statement is a transaction of its own"
        if reason.startswith(("not authorized", "authorization denied", "attempt to write")):
            return f"{reason}: {'it would leave the database or its transaction' if write else self.refusal}"
        if reason.startswith(("no such module", "vtable constructor failed")):
            return f"{reason}: this virtual table cannot be opened here; ask the other tables"
        return reason
