"""Soak: run a million steps in one process, and see that memory stays flat.

    python tests/benchmarks/soak.py [STEPS]

Each round of runs is a chain, a fan-out and agents, so that each way of running a step is in it. Prints the resident
memory after every tenth, and fails if the last tenth holds more than the second by over 5 MiB. Linux only.
"""

from __future__ import annotations

import gc
import math
import resource
import sys
import time
from pathlib import Path

import anyio
import subject

ALLOWED = 5.0
"""MiB by which memory may differ between the second tenth and the last."""
CHAIN, FANOUT, AGENTS = 1_000, 1_000, 50
STEPS_A_ROUND = CHAIN + FANOUT + 4 * AGENTS
"""An agent is a step, its two model calls and its tool call are three; the few of the graphs around are not counted."""
TENTHS = 10


def resident() -> float:
    """Return this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def soak(steps: int) -> list[float]:
    """Run at least so many steps; return the memory after each tenth, in MiB."""
    works = [subject.chain(CHAIN), subject.fanout(FANOUT), subject.agents(AGENTS)]
    rounds = math.ceil(steps / STEPS_A_ROUND / TENTHS)
    seen: list[float] = []
    for tenth in range(1, TENTHS + 1):
        for _ in range(rounds):
            for work in works:
                await work()
        gc.collect()
        seen.append(resident())
        done = tenth * rounds * STEPS_A_ROUND
        print(f"{done:>9,} steps  {seen[-1]:6.1f} MiB  {time.process_time():5.0f} s of CPU", flush=True)
    return seen


def growth(seen: list[float]) -> float:
    """Return by how much memory grew after the first tenth, which warms caches, in MiB."""
    return seen[-1] - seen[1]


if __name__ == "__main__":
    seen = anyio.run(soak, int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    if growth(seen) > ALLOWED:
        raise SystemExit(f"memory grew by {growth(seen):.1f} MiB")
