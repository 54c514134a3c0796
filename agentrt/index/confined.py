"""Parsers in a process of their own: what takes too long or too much memory ends it, and nothing else."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, cast

from agentrt.errors import AgentrtError, DefinitionError
from agentrt.index.worker import read_frame, write_frame

_WORKER: Final = str(Path(__file__).with_name("worker.py"))
_EXTRAS: Final = {"selectolax": "web", "pypdf": "pdf"}


class Unreadable(AgentrtError):
    """Say why a document could not be read."""


class Parsers:
    """Parse bytes in a process of its own, started when it is first needed and again after it had to be ended.

    seconds: how long one document may take. memory: what the process may take, in bytes (not on Windows).
    """

    def __init__(self, *, seconds: float = 20.0, memory: int = 1_500_000_000) -> None:
        self.seconds = seconds
        self.memory = memory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Parsers:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def parse(self, parser: str, data: bytes, **options: object) -> Any:
        """Return what the parser makes of `data`.

        Raises `Unreadable` saying why it cannot, and `DefinitionError` where its library is missing.
        """
        request = {"parser": parser, "data": base64.b64encode(data).decode(), "options": options}
        reply = self._ask(request)
        if "missing" in reply:
            missing = str(reply["missing"])
            extra = _EXTRAS.get(missing, missing)
            raise DefinitionError(f"{parser} files need {missing}: pip install 'agentrt[{extra}]'")
        if "error" in reply:
            self._end()  # a parser that failed may have left anything behind, such as the memory it took
            raise Unreadable(str(reply["error"]))
        return reply["result"]

    def _ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        process = self._process = self._process or self._start()
        with _killed_after(self.seconds, process) as late:
            try:
                write_frame(cast(IO[bytes], process.stdin), request)  # type: ignore[arg-type]
                reply = read_frame(cast(IO[bytes], process.stdout))  # type: ignore[arg-type]
            except (OSError, ValueError):  # it has ended in the midst of a frame
                reply = None
        if reply is None or late.is_set():
            self._end()
            why = (
                f"it takes more than {self.seconds:g} s" if late.is_set() else "its parser ran out of memory or crashed"
            )
            raise Unreadable(why)
        return cast(Mapping[str, object], reply)

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: a folder with modules named like those of the standard library is not looked into.
        command = [sys.executable, "-P", _WORKER, str(self.memory)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):  # what it was never sent is lost with it
                    stream.close()
        process.wait()


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill a process that has not replied in time; the event yielded says that it was so."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
