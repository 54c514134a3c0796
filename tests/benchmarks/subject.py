"""The subject: the work on agentrt, with three nested budgets, events and step paths on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

from agentrt import END, START, Agent, Budget, Graph, ModelRequest, ModelResponse, Usage, collect, run, tool
from agentrt.messages import AssistantMessage, ToolCall, ToolMessage
from agentrt.usage import FREE

Work = Callable[[], Awaitable[None]]


def chain(n: int) -> Work:
    async def node(i: int) -> int:
        await anyio.lowlevel.checkpoint()
        return i + 1

    inner = Graph("inner", input=int, output=int, budget=Budget(steps=10 * n + 100))
    inner.edge(START, node)
    inner.edge(node, END, when=lambda i: i >= n)
    inner.edge(node, node)
    outer = Graph("outer", input=int, output=int, budget=Budget(steps=10 * n + 100))
    outer.chain(START, inner, END)

    async def work() -> None:
        result = await run(outer, 0, budget=Budget(steps=10 * n + 100, tokens=1_000))
        assert result.output == n

    return work


def fanout(n: int, delay: float = 0, concurrency: int = 1_000) -> Work:
    async def node(i: int) -> int:
        await anyio.sleep(delay)
        return i

    return _fan(n, node, concurrency)


def sleepers(n: int) -> Work:
    return fanout(n, 1.0, concurrency=n + 10)


def cancelled(n: int) -> Work:
    """Start n nodes that wait for ever, and cancel the run once all wait."""

    async def work() -> None:
        waiting = 0

        async def node(i: int) -> int:
            nonlocal waiting
            waiting += 1
            if waiting == n:
                scope.cancel()
            await anyio.sleep_forever()
            return i

        with anyio.CancelScope() as scope:
            await _fan(n, node, n + 10)()
        assert waiting == n

    return work


def nested(n: int) -> Work:
    """Run n graphs side by side, each a graph around a graph around the node."""

    async def node(i: int) -> int:
        await anyio.lowlevel.checkpoint()
        return i

    inner = Graph("innermost", input=int, output=int)
    inner.chain(START, node, END)
    middle = Graph("middle", input=int, output=int)
    middle.chain(START, inner, END)
    return _fan(n, middle, 1_000)


def agents(n: int) -> Work:
    """Run n agents side by side; each asks its model twice and calls one tool."""

    @tool
    async def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    agent = Agent("agent", model=LeanModel(), tools=[add], budget=Budget(tokens=100_000))

    async def items(n: int) -> list[str]:
        return ["2+3?"] * n

    graph = Graph("graph", input=int, output=list[str], budget=Budget(steps=100 * n + 100))
    graph.edge(START, items)
    graph.edge(items, agent, each=True)
    graph.edge(agent, END, join=collect)

    async def work() -> None:
        result = await run(graph, n, budget=Budget(tokens=100_000_000, steps=100 * n + 100))
        assert result.output == ["5"] * n

    return work


def _fan(n: int, node: Any, concurrency: int) -> Work:
    async def items(n: int) -> list[int]:
        return list(range(n))

    inner = Graph("inner", input=int, output=list[int], budget=Budget(steps=4 * n + 100))
    inner.edge(START, items)
    inner.edge(items, node, each=True)
    inner.edge(node, END, join=collect)
    outer = Graph("outer", input=int, output=list[int], budget=Budget(steps=4 * n + 100))
    outer.chain(START, inner, END)

    async def work() -> None:
        budget = Budget(steps=4 * n + 100, tokens=1_000)
        result = await run(outer, n, budget=budget, concurrency=concurrency)
        assert len(result.output) == n

    return work


_ASKS = AssistantMessage("", (ToolCall("1", "add", '{"a": 2, "b": 3}'),))
_SAYS = AssistantMessage("5")
_USAGE = Usage(input_tokens=10, output_tokens=5)


class LeanModel:
    """Answer at no cost of its own: `testing.FunctionModel` counts words, which takes longer than the runtime."""

    name = "test/lean"
    price = FREE

    async def count_tokens(self, request: ModelRequest) -> int:
        return 10

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        return 100_000

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        message = _SAYS if isinstance(request.messages[-1], ToolMessage) else _ASKS
        return ModelResponse(message=message, usage=_USAGE)

    async def aclose(self) -> None:
        """Release nothing."""
