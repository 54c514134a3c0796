"""The sandbox: a Python interpreter of its own process, in which code of models runs and calls what it was given.

The interpreter is Monty, which knows neither files nor the network; what code may reach is what its `Host` answers.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from agentrt import AgentrtError, DefinitionError, InvalidArguments
from agentrt.text import shortened
from agentrt_tools.cell import Cell
from agentrt_tools.interpreter import quiet_interpreter
from agentrt_tools.printed import KEPT, Printed, Written

if TYPE_CHECKING:
    from pydantic_monty import (
        ExternalExceptionData,
        ExternalResult,
        ExternalReturnValue,
        FunctionSnapshot,
        FutureSnapshot,
        Monty,
        MontyRuntimeError,
        MontySession,
        MontySyntaxError,
        NameLookupSnapshot,
        OSPolicy,
        ResourceLimits,
        SyncSnapshot,
    )

    Settled: TypeAlias = ExternalReturnValue | ExternalExceptionData

T = TypeVar("T")

_MOST_FRAMES: Final = 8
_MOST_LINE: Final = 200
_POLICY: Final[OSPolicy] = {"datetime": "call_host", "random_start": "call_host", "sleep": "zero"}
_MOST_QUESTIONS: Final = 1_000
"""So often one piece of code may ask its host anything, the time or a function; that costs no computing time."""
MODULES: Final = (
    "asyncio, base64, bisect, collections, copy, csv, dataclasses, datetime, decimal, functools, hashlib, itertools, "
    "json, math, random, re, time, typing and unicodedata"
)
"""What can be imported, and is of use."""
_RAISED: Final = frozenset({
    ArithmeticError, AssertionError, AttributeError, FileExistsError, FileNotFoundError, IndexError, KeyError,
    LookupError, NotImplementedError, OSError, OverflowError, PermissionError, RuntimeError, TypeError, ValueError,
    ZeroDivisionError,
})  # fmt: skip
"""What functions may raise in the sandbox, as what it is; of time and memory it speaks itself."""
_ADVICE: Final = (
    (
        re.compile(r"external function '(\w+)' cannot suspend in this synchronous context"),
        r"\1 cannot be called from within map, sorted, max or a key=: write a comprehension, [\1(x) for x in …]",
    ),
    (
        re.compile(r"Exceeds the limit \(4300 digits\).*"),
        "a number of more than 4,300 digits cannot be written: show a part of it, like x % 10**9",
    ),
    (
        re.compile(r"An asyncio\.Future, a coroutine or an awaitable is required"),
        "functions that are called before return their value at once: "
        "to call them side by side write await asyncio.gather(*[f(x) for x in …])",
    ),
    (
        re.compile(r"('\w+' object can't be awaited)"),
        r"\1: functions return their value at once, so leave out await, or write await f(…)",
    ),
)
"""What to write instead, for errors that do not say so."""
LOST: Final = "All variables are gone: define again what you need."


class SandboxError(AgentrtError):
    """Say how code failed, with its lines, and what it had printed until then."""


@dataclass(frozen=True, slots=True)
class Call:
    """Hold a call that code in the sandbox makes."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Host(Protocol):
    """Be what code in the sandbox can reach."""

    @property
    def names(self) -> Collection[str]:
        """Return the names of the functions that code may call."""
        ...

    async def call(self, calls: Sequence[Call]) -> Sequence[object]:
        """Make calls side by side and return of each its value or its error; what this raises ends the code."""
        ...

    def system(self, call: Call) -> object:
        """Return what the system answers about time and chance; raises `LookupError` for everything else."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what code has printed, and its value, written as Python would; None where it has none."""

    printed: Printed
    value: Written | None


class Sandbox:
    """Run one piece of code after the other in one interpreter, which keeps their variables.

    An interpreter that ran out of time or memory, has crashed, or was left in the middle is replaced by a fresh one.
    """

    def __init__(self, pool: Monty, seconds: float, memory_mb: int, most: int) -> None:
        self.lock = anyio.Lock()
        self.user = ""
        """The step that runs code at the moment."""
        self.met: frozenset[str] = frozenset()
        """The untrusted nodes whose results its variables may hold."""
        self._pool = pool
        self._seconds = seconds
        self._limits: ResourceLimits = {
            "max_feed_duration_secs": seconds,
            "max_memory": memory_mb * 2**20,
            "max_suspensions": 10**9,  # the host counts the calls of each piece of code
        }
        self._most = most
        self._session: MontySession | None = None
        self._worker: int | None = None
        self._computes = False
        self._cells: dict[str, Cell] = {}

    async def run(self, code: str, host: Host) -> Outcome:
        """Run code; raises `SandboxError`, and what the host raises."""
        from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

        session = await self._opened()
        cell, printed = Cell(code), Printed()
        self._register(cell)
        try:
            await self._drive(partial(session.feed_start, cell.text, print_callback=printed), host)
            value = await self._value(session) if cell.has_value else None
            await self._keep(session, printed)
        except (MontySyntaxError, MontyRuntimeError) as error:
            if spent := _spent(error):
                await self.close()
                text = self._over if spent == "TimeoutError" else self._told(error, Printed())
                raise SandboxError(f"{text}\n{LOST}") from None
            text = self._told(error, printed)
            await self._keep(session, printed)
            raise SandboxError(text) from None
        except MontyCrashedError as error:
            await self.close()
            raise SandboxError(f"the interpreter broke: {error}\n{LOST}") from error
        except BaseException:
            await self.close()
            raise
        return Outcome(printed, value)

    async def close(self) -> None:
        """Give the interpreter up, if there is one: the next code finds a fresh one."""
        session, self._session, self._cells = self._session, None, {}
        if session is not None:
            if self._computes and self._worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._worker, signal.SIGTERM)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(session.__exit__, None, None, None)

    async def _opened(self) -> MontySession:
        if self._session is None:
            session = self._pool.checkout(limits=self._limits, os_policy=_POLICY)
            await anyio.to_thread.run_sync(session.__enter__)
            self._session, self._worker = session, session.worker_pid
        return self._session

    def _register(self, cell: Cell) -> None:
        self._cells[f"<python-input-{len(self._cells)}>"] = cell

    async def _drive(self, start: Callable[[], SyncSnapshot], host: Host) -> None:
        """Run code from one question to its host to the next, until it ends."""
        from pydantic_monty import FunctionSnapshot, MontyComplete, NameLookupSnapshot

        later: dict[int, Call] = {}
        snapshot = await self._turn(start)
        for _ in range(_MOST_QUESTIONS):
            if isinstance(snapshot, MontyComplete):
                return
            if isinstance(snapshot, NameLookupSnapshot):
                go_on = partial(_look_up, snapshot, host.names)
            elif isinstance(snapshot, FunctionSnapshot):
                go_on = partial(snapshot.resume, await self._answer(snapshot, host, later))
            else:
                go_on = partial(snapshot.resume, await _answers(snapshot, host, later))
            snapshot = await self._turn(go_on)
        raise SandboxError(f"the code has asked for functions or the time {_MOST_QUESTIONS:,} times; do less. {LOST}")

    async def _turn(self, go_on: Callable[[], T]) -> T:
        """Let code run in its process; if this is cancelled, `close` ends that, so that no thread waits for it."""
        return await anyio.to_thread.run_sync(self._computed, go_on, abandon_on_cancel=True)

    def _computed(self, go_on: Callable[[], T]) -> T:
        self._computes = True
        try:
            return go_on()
        finally:
            self._computes = False

    async def _answer(self, snapshot: FunctionSnapshot, host: Host, later: dict[int, Call]) -> ExternalResult:
        """Answer a call: now, or where code awaits it together with all that it awaits."""
        call = Call(str(snapshot.function_name), snapshot.args, snapshot.kwargs)
        if snapshot.is_os_function:
            return _system(call, host)
        if call.name not in host.names:
            return {"exc_type": "NameError", "message": f"name '{call.name}' is not defined"}
        where = snapshot.position
        cell = self._cells.get(where.filename)
        if cell is not None and (where.start, where.end) in cell.awaited:
            later[snapshot.call_id] = call
            return {"future": ...}
        (outcome,) = await host.call([call])
        return _settled(outcome)

    async def _value(self, session: MontySession) -> Written | None:
        """Write the last value where it is: only a text of bounded length leaves the process."""
        self._register(Cell(""))
        code = f"None if _ is None else (lambda text: [text[:{self._most}], len(text)])(repr(_))"
        match await self._turn(partial(session.feed_run, code)):
            case [str(text), int(length)]:
                return Written(text, length)
            case _:
                return None

    async def _keep(self, session: MontySession, printed: Printed) -> None:
        """Give the next code what may have been too long to be shown."""
        if printed.length > self._most // 2:
            self._register(Cell(""))
            await self._turn(partial(session.feed_run, "None", inputs={KEPT: printed.text}))

    @property
    def _over(self) -> str:
        """Say that time is over, and not where: gone through again, the code would have come to another place."""
        return f"TimeoutError: the code computed for more than {self._seconds:g} seconds"

    def _told(self, error: MontySyntaxError | MontyRuntimeError, printed: Printed) -> str:
        """Say how code failed: the error first, then its lines, then what had been printed."""
        frames = error.traceback()
        shown = [*frames[: _MOST_FRAMES // 2], *frames[-_MOST_FRAMES // 2 :]] if len(frames) > _MOST_FRAMES else frames
        current = f"<python-input-{len(self._cells) - 1}>"
        lines = [shortened(_advised(error.display("type-msg")), self._most // 4)]
        for frame in shown:
            cell = self._cells.get(frame.filename)
            place = f"line {frame.line}" + (
                "" if frame.function_name in (None, "<module>") else f", in {frame.function_name}"
            )
            earlier = "" if frame.filename == current or cell is None else " of an earlier call"
            line = shortened(cell.line(frame.line), _MOST_LINE) if cell else ""
            lines.append(f"{place}{earlier}: {line}".rstrip(": "))
        if printed.text:
            lines.append(f"Printed before that:\n{printed.shown(self._most // 2)}")
        return "\n".join(lines)


def _spent(error: MontySyntaxError | MontyRuntimeError) -> str:
    """Return the error after which an interpreter is in no state to go on: it has no memory left, or was stopped."""
    kind, _, text = error.display("type-msg").partition(": ")
    return kind if kind in ("TimeoutError", "MemoryError") and "limit" in text else ""


def _advised(told: str) -> str:
    for pattern, advice in _ADVICE:
        told = pattern.sub(advice, told)
    return told


def _look_up(snapshot: NameLookupSnapshot, names: Collection[str]) -> SyncSnapshot:
    if snapshot.variable_name not in names or snapshot.object_id is not None:
        return snapshot.resume()
    return snapshot.resume(value=FunctionType((lambda: None).__code__, {}, snapshot.variable_name))


def _system(call: Call, host: Host) -> Settled:
    try:
        return {"return_value": host.system(call)}
    except LookupError:
        if call.name == "import":
            missing = ", ".join(map(str, call.args))
            told = f"there is no module {missing} in here, and none can be installed; there are {MODULES}"
            return {"exc_type": "ModuleNotFoundError", "message": told}
        return {"exc_type": "PermissionError", "message": f"{call.name}: there are no files and no system in here"}


async def _answers(snapshot: FutureSnapshot, host: Host, later: dict[int, Call]) -> dict[int, Any]:
    """Make the calls that code awaits, side by side."""
    ids = sorted(snapshot.pending_call_ids)
    outcomes = await host.call([later.pop(i) for i in ids])
    return {i: _settled(o) for i, o in zip(ids, outcomes, strict=True)}


def _settled(outcome: object) -> Settled:
    if isinstance(outcome, Exception):
        return _raised(outcome)
    return {"return_value": outcome}


def _raised(error: Exception) -> ExternalExceptionData:
    """Return an error as code can catch it: as the nearest of its classes that the interpreter knows."""
    own = type(error)
    known = TypeError if own is InvalidArguments else next((c for c in own.__mro__ if c in _RAISED), RuntimeError)
    text = str(error.args[0]) if own is KeyError and len(error.args) == 1 else str(error)  # which is quoted there
    message = text if own in (known, InvalidArguments) else f"{own.__name__}: {text}"
    kind: Any = known.__name__
    return {"exc_type": kind, "message": message.encode(errors="replace").decode()}


@asynccontextmanager
async def open_sandbox(*, seconds: float, memory_mb: int, most: int) -> AsyncIterator[Sandbox]:
    """Open a sandbox of one process, in which each piece of code may compute for so long, with so much memory.

    `most`: how many characters of what is printed and of a value a model reads at once.

    Raises `DefinitionError` without the extra `sandbox`.
    """
    try:
        from pydantic_monty import Monty
    except ImportError as error:
        raise DefinitionError("Python code runs in a sandbox: pip install 'agentrt[sandbox]'") from error
    with TemporaryDirectory(prefix="agentrt-", ignore_cleanup_errors=True) as folder:
        pool = Monty(binary_path=quiet_interpreter(Path(folder)), min_processes=1, max_processes=1)
        await anyio.to_thread.run_sync(pool.__enter__)
        sandbox = Sandbox(pool, seconds, memory_mb, most)
        try:
            yield sandbox
        finally:
            with anyio.CancelScope(shield=True):
                await sandbox.close()
                await anyio.to_thread.run_sync(pool.__exit__, None, None, None)
