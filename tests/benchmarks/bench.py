"""Measure what the runtime itself costs, beside bare anyio in the same run.

    python tests/benchmarks/bench.py                every work, then a table of ratios
    python tests/benchmarks/bench.py WORK PEER N    one measurement in this process, one JSON line

Works, without model latency or network, so that what is left is the runtime:
    chain     N visits of a no-op async node, one after another
    fanout    one node yields N items, N no-op async nodes run concurrently, one join collects N results
    sleepers  like fanout, each node sleeps 1.0 s
    agents    N concurrent agents: a fake model asks for one tool call, the tool adds two ints, the model answers
    import    import the public entry point (N ignored)

agentrt runs with budgets (three nested accounts), events and step paths on. Figures are the best of three runs after
a warm-up: CPU in microseconds and peak memory growth in KiB, per node or agent. Compare ratios, not figures: only
what ran in the same minute on the same machine is comparable.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

Work = Callable[[], Awaitable[None]]

SIZES = [
    ("chain", 1_000),
    ("fanout", 1_000),
    ("fanout", 10_000),
    ("fanout", 100_000),
    ("sleepers", 2_000),
    ("agents", 200),
    ("import", 1),
]
IMPORTS = {
    "anyio": "import anyio, pydantic; pydantic.BaseModel; import opentelemetry.trace",
    "agentrt": "import agentrt; agentrt.Agent, agentrt.Graph",
}


def anyio_chain(n: int) -> Work:
    async def node(i: int) -> int:
        await anyio.lowlevel.checkpoint()
        return i + 1

    async def work() -> None:
        i = 0
        while i < n:
            i = await node(i)

    return work


def anyio_fanout(n: int, delay: float = 0) -> Work:
    async def work() -> None:
        outputs: list[int] = []

        async def node(i: int) -> None:
            await anyio.sleep(delay)
            outputs.append(i)

        async with anyio.create_task_group() as tasks:
            for i in range(n):
                tasks.start_soon(node, i)
        assert len(outputs) == n

    return work


def anyio_sleepers(n: int) -> Work:
    return anyio_fanout(n, 1.0)


def agentrt_chain(n: int) -> Work:
    from agentrt import END, START, Budget, Graph, run

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


def agentrt_fanout(n: int, delay: float = 0, concurrency: int = 1_000) -> Work:
    from agentrt import END, START, Budget, Graph, collect, run

    async def items(n: int) -> list[int]:
        return list(range(n))

    async def node(i: int) -> int:
        await anyio.sleep(delay)
        return i

    inner = Graph("inner", input=int, output=list[int], budget=Budget(steps=n + 100))
    inner.edge(START, items)
    inner.edge(items, node, each=True)
    inner.edge(node, END, join=collect)
    outer = Graph("outer", input=int, output=list[int], budget=Budget(steps=n + 100))
    outer.chain(START, inner, END)

    async def work() -> None:
        result = await run(outer, n, budget=Budget(steps=n + 100, tokens=1_000), concurrency=concurrency)
        assert len(result.output) == n

    return work


def agentrt_sleepers(n: int) -> Work:
    return agentrt_fanout(n, 1.0, concurrency=n + 10)


def agentrt_agents(n: int) -> Work:
    from agentrt import END, START, Agent, Budget, Graph, ModelRequest, collect, run, tool
    from agentrt.messages import AssistantMessage, ToolMessage
    from agentrt.testing import FunctionModel, call

    @tool
    async def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    def reply(request: ModelRequest) -> AssistantMessage | str:
        return "5" if isinstance(request.messages[-1], ToolMessage) else call("add", a=2, b=3)

    async def items(n: int) -> list[str]:
        return ["2+3?"] * n

    agent = Agent("agent", model=FunctionModel(reply), tools=[add], budget=Budget(tokens=100_000))
    graph = Graph("graph", input=int, output=list[str])
    graph.edge(START, items)
    graph.edge(items, agent, each=True)
    graph.edge(agent, END, join=collect)

    async def work() -> None:
        result = await run(graph, n, budget=Budget(tokens=100_000_000, steps=100 * n))
        assert result.output == ["5"] * n

    return work


def measure(work: str, peer: str, n: int) -> dict[str, Any]:
    """Return one measurement, the best of three runs after a warm-up."""
    if work == "import":
        return measure_import(peer)
    task: Work = globals()[f"{peer}_{work}"](n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def timed() -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        await task()
        return time.process_time() - cpu, time.perf_counter() - wall

    rows = [anyio.run(timed) for _ in range(4)][1:]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "work": work,
        "peer": peer,
        "n": n,
        "cpu_us_per_node": round(min(r[0] for r in rows) / n * 1e6, 1),
        "wall_s": round(min(r[1] for r in rows), 3),
        "rss_kib_per_node": round(grown / n, 2),
    }


def measure_import(peer: str) -> dict[str, Any]:
    code = (
        "import sys, time; w = time.perf_counter(); c = time.process_time(); "
        f"exec({IMPORTS[peer]!r}); print(time.perf_counter() - w, time.process_time() - c, len(sys.modules))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(6)]
    wall, cpu, modules = min((r.stdout.split() for r in runs[1:]), key=lambda row: float(row[1]))
    return {
        "work": "import",
        "peer": peer,
        "wall_s": round(float(wall), 3),
        "cpu_s": round(float(cpu), 3),
        "modules": int(modules),
    }


def measure_apart(work: str, peer: str, n: int) -> dict[str, Any]:
    """Return one measurement made in a process of its own."""
    command = [sys.executable, __file__, work, peer, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        return {"work": work, "peer": peer, "n": n, "failed": done.stderr.strip().splitlines()[-1:]}
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return the measurements beside their floor, with the ratio of CPU time, as a Markdown table."""
    lines = ["| work | n | floor | agentrt | ratio | memory, KiB a node |", "|---|---|---|---|---|---|"]
    floors = {(r["work"], r.get("n")): r for r in rows if r["peer"] == "anyio"}
    for row in (r for r in rows if r["peer"] == "agentrt" and "failed" not in r):
        key = "cpu_s" if row["work"] == "import" else "cpu_us_per_node"
        unit = "s" if row["work"] == "import" else "µs"
        floor = floors.get((row["work"], row.get("n")))
        beside = f"{floor[key]} {unit}" if floor else "–"
        ratio = f"{row[key] / floor[key]:.2f}×" if floor else "–"
        memory = row.get("rss_kib_per_node", "–")
        lines.append(f"| {row['work']} | {row.get('n', '')} | {beside} | {row[key]} {unit} | {ratio} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) == 4:
        work, peer, n = sys.argv[1:]
        print(json.dumps(measure(work, peer, int(n))))
        return
    rows: list[dict[str, Any]] = []
    for work, n in SIZES:
        for peer in IMPORTS:
            if work == "import" or f"{peer}_{work}" in globals():
                rows.append(measure_apart(work, peer, n))
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
