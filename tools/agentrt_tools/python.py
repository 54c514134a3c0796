"""Python: a tool that runs code in a sandbox, and lets it call what it was given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from keyword import iskeyword
from typing import Any, Final

import anyio
from pydantic_core import PydanticSerializationError, from_json, to_json

from agentrt import AgentrtError, Context, DefinitionError, InvalidArguments, Node, Tool
from agentrt.budget import Budget
from agentrt.interval import Interval, Outlook
from agentrt.messages import tool_name
from agentrt.parts import walk
from agentrt.tool import Approval, ToolUse, as_tool
from agentrt_tools.excerpt import MOST_CHARACTERS
from agentrt_tools.printed import shown
from agentrt_tools.sandbox import LOST, MODULES, Call, SandboxError, open_sandbox
from agentrt_tools.signature import notes, parameters, signature

MOST_CODE: Final = 20_000
"""Characters of code in one call."""
MOST_ARGUMENTS: Final = 100_000
"""Characters of JSON that code may hand to a function in one call."""
_MOST_CHANCE: Final = 2**20
_DESCRIPTION: Final = (
    "Run Python code and return what it prints and the value of its last expression, which is kept as `_`. "
    f"Variables are kept for the next call. There are no files, no network and no packages; {MODULES} can be imported."
)
_FUNCTIONS: Final = "These functions can be called without import, and return JSON values; an object is a dict:"


class Python(Tool[..., str]):
    """Let an agent compute: code runs in a process of its own, without files, network or packages.

    functions: what the code may call: any node, tool or typed function. Each call is a step below this one, so that
        it is budgeted, traced, approved and denied like every other. Calls that the code awaits together, as in
        `await asyncio.gather(f(1), f(2))`, are made side by side.
    seconds: how long each piece of code may compute; waiting for functions does not count.
    memory_mb: what it may hold, with all variables of earlier calls.
    calls: how many functions each piece of code may call.
    most_output: how many characters are returned, of what is printed and of the value together. Of what is printed
        up to a million are kept, so that code can read on.

    Each agent has variables of its own, until it has answered. The clock stands still while code runs, and `sleep`
    returns at once; time and chance come out the same when a run goes on. The effect is "read" where every function's
    is, else "idempotent": what the functions do is done in their own steps, and answered from the record.
    """

    def __init__(
        self,
        functions: Sequence[Node[Any, Any] | Callable[..., Any]] = (),
        *,
        name: str = "python",
        description: str = _DESCRIPTION,
        seconds: float = 5.0,
        memory_mb: int = 128,
        calls: int = 100,
        most_output: int = MOST_CHARACTERS,
        timeout: float | None = None,
        budget: Budget | None = None,
        approval: Approval = False,
    ) -> None:
        if isinstance(functions, Node | str) or callable(functions):
            raise DefinitionError(f"{name!r} takes a list of functions: write Python([{_label(functions)}])")
        nodes = [as_tool(f) for f in functions]
        self._functions = _named(name, nodes)
        super().__init__(
            self._run,
            name=name,
            description="\n".join([description, *_described(self._functions)]),
            timeout=timeout,
            budget=budget,
            effect="read" if all(n.effect == "read" for n in nodes) else "idempotent",
            approval=approval,
            untrusted=any(_may_meet_untrusted(n) for n in nodes),  # variables keep what an earlier call has read
        )
        self.parts = nodes
        self._calls = calls
        self._most = most_output
        self._open = partial(open_sandbox, seconds=seconds, memory_mb=memory_mb, most=most_output)

    def interval(self, outlook: Outlook) -> Interval:
        """Return nothing more than its own start where there is nothing to call, and nobody to ask."""
        return super().interval(outlook) if self._functions or self.approval is not False else Interval()

    async def _run(self, code: str, ctx: Context) -> str:
        """Run code.

        Args:
            code: Python code. End with an expression, or print, to see a result.
        """
        if len(code) > MOST_CODE:
            raise InvalidArguments(f"the code is longer than {MOST_CODE:,} characters; run it in parts")
        sandbox = await ctx.resource(self, self._open, scope="agent")
        if sandbox.user and ctx.path.startswith(f"{sandbox.user}/"):
            raise SandboxError(f"{self.name} is already running the code that called this; let it return first")
        await _acquire(ctx, sandbox.lock)
        try:
            sandbox.user = ctx.path
            ctx.mark_untrusted(*sandbox.met)  # its variables may hold what earlier callers had met
            outcome = await sandbox.run(code, _Host(ctx, self._functions, self._calls))
            return shown(outcome.printed, outcome.value, self._most)
        finally:
            sandbox.met |= ctx.untrusted
            sandbox.user = ""
            sandbox.lock.release()


async def _acquire(ctx: Context, lock: anyio.Lock) -> None:
    """Wait for a lock, lending the step's slot; whoever is cancelled as he takes that back lets go of the lock."""
    has_it = False

    async def acquire() -> None:
        nonlocal has_it
        await lock.acquire()
        has_it = True

    try:
        await ctx.wait(acquire)
    except BaseException:
        if has_it:
            lock.release()
        raise


class _Host:
    """Let one piece of code call the functions of a tool, as steps below the tool's own."""

    def __init__(self, ctx: Context, functions: Mapping[str, Node[Any, Any]], most: int) -> None:
        self._ctx = ctx
        self._functions = functions
        self._most = most
        self._made = 0
        self._now: datetime | None = None

    @property
    def names(self) -> Collection[str]:
        return self._functions.keys()

    async def call(self, calls: Sequence[Call]) -> Sequence[object]:
        """Make calls side by side; raises `SandboxError` for one too many, and a denial by a budget around the step."""
        read = [self._read(call, self._made + n) for n, call in enumerate(calls, 1)]
        asked = [use for use in read if not isinstance(use, AgentrtError)]
        self._made += len(asked)
        if self._made > self._most:
            raise SandboxError(f"one run of code may call functions {self._most} times; call fewer. {LOST}")
        outcomes = iter(await self._ctx.gather(asked))
        told = [use if isinstance(use, AgentrtError) else _plain(next(outcomes).outcome) for use in read]
        if (mistake := next((o for o in told if isinstance(o, DefinitionError)), None)) is not None:
            raise mistake
        return told

    def system(self, call: Call) -> object:
        """Tell the time at which the code asked first, and draw bytes that come out the same when the run goes on."""
        match call:
            case Call("os.urandom", (int(size),)) if 0 <= size <= _MOST_CHANCE:
                return self._ctx.random.randbytes(size)
            case Call("time.time"):
                return self._time().timestamp()
            case Call("date.today"):
                return self._time().date()
            case Call("datetime.now", (zone,)):
                return self._time().astimezone(zone) if zone else self._time().replace(tzinfo=None)
            case _:
                raise LookupError(call.name)

    def _time(self) -> datetime:
        self._now = self._now or self._ctx.now().astimezone(UTC)
        return self._now

    def _read(self, call: Call, number: int) -> tuple[ToolUse, str] | AgentrtError:
        """Return the step that a call is, with its arguments by name, or what is wrong with it."""
        node = self._functions[call.name]
        names = list(node.arguments.schema.get("properties", {}))
        given = dict(zip(names, call.args, strict=False))
        if len(call.args) > len(names):
            return InvalidArguments(_called(call, node, f"{len(call.args)} arguments were given"))
        if twice := given.keys() & call.kwargs.keys():
            return InvalidArguments(_called(call, node, f"{', '.join(sorted(twice))} was given twice"))
        text = to_json({**given, **call.kwargs}, fallback=str, serialize_unknown=True, bytes_mode="base64").decode()
        if len(text) > MOST_ARGUMENTS:
            return InvalidArguments(f"{call.name}: hand over less than {MOST_ARGUMENTS:,} characters in one call")
        return ToolUse(node, f"{self._ctx.path}/{number}"), text


def _called(call: Call, node: Node[Any, Any], mistake: str) -> str:
    return f"{mistake}: it is {call.name}({parameters(node)})"


def _label(function: object) -> str:
    return str(getattr(function, "name", "") or getattr(function, "__name__", function))


def _plain(outcome: object) -> object:
    """Return a value as JSON knows it, which is what code in the sandbox gets; an error as it is."""
    if isinstance(outcome, Exception):
        return outcome
    try:
        return from_json(to_json(outcome, fallback=str, serialize_unknown=True, bytes_mode="base64"))
    except (PydanticSerializationError, ValueError) as error:
        return SandboxError(f"what it returned cannot be handed to code: {error}")


def _named(tool: str, nodes: Sequence[Node[Any, Any]]) -> dict[str, Node[Any, Any]]:
    """Return the functions by the names under which code calls them."""
    named = {tool_name(n.name).replace("-", "_"): n for n in nodes}
    if len(named) < len(nodes):
        raise DefinitionError(f"{tool!r} has two functions of one name; rename one")
    if wrong := [n for n in named if not n.isidentifier() or iskeyword(n)]:
        raise DefinitionError(f"{tool!r}: {', '.join(wrong)} cannot be called in Python; rename it")
    return named


def _may_meet_untrusted(node: Node[Any, Any]) -> bool:
    return any(n.untrusted for n, _ in walk(node, lambda n: () if n.is_trusted else n.parts))


def _described(functions: Mapping[str, Node[Any, Any]]) -> list[str]:
    lines = [_FUNCTIONS] if functions else []
    for name, node in functions.items():
        lines.append(f"- {signature(name, node)}: {node.description}".rstrip(": "))
        lines += [f"    {parameter}: {note}" for parameter, note in notes(node).items()]
    return lines


python: Final = Python()
