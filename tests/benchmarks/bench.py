"""Measure what the runtime itself costs, beside bare anyio in the same run, and print Markdown tables of ratios.

    python tests/benchmarks/bench.py [--only WORK] [--json] [--peers PYTHON --peer-bench FILE]

Works, without model latency or network, so that what is left is the runtime:
    chain     n visits of a no-op async node, one after another
    fanout    one node yields n items, n no-op async nodes run side by side, one join collects n results
    sleepers  like fanout, each node sleeps 1.0 s, all at once
    cancelled like sleepers, but the nodes wait for ever and all are cancelled once they do
    nested    n graphs side by side, each a graph around a graph around a no-op node
    agents    n agents side by side: a fake model asks for one tool call, the tool adds two ints, the model answers
    import    import the public names

agentrt runs with three nested budgets, events and step paths on; "traced" with the OpenTelemetry SDK recording every
span besides. Figures are CPU in microseconds a node (an agent, a graph), the best of alternating runs of floor and
subject in one process, and peak memory growth in KiB. Compare ratios, not figures: only what ran in the same minute
on the same machine is comparable. `--peers` names an interpreter that has other runtimes, `--peer-bench` the script
that measures them (see `peers.py`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from peers import Peers

HERE = Path(__file__).parent
SIZES = {
    "chain": (1_000,),
    "fanout": (1_000, 10_000, 100_000),
    "sleepers": (2_000, 10_000),
    "cancelled": (1_000, 10_000, 100_000),
    "nested": (2_000,),
    "agents": (200,),
}
PEER_SIZES = {"chain": 1_000, "fanout": 2_000, "sleepers": 2_000, "agents": 200}
MEMORY = (("sleepers", 2_000), ("sleepers", 10_000), ("fanout", 100_000))
IMPORTS = 5


def measured(*arguments: object) -> dict[str, float]:
    """Return one measurement, made in a process of its own."""
    command = [sys.executable, str(HERE / "measure.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    row: dict[str, float] = json.loads(done.stdout)
    return row


def json_rows(wanted: list[str]) -> Iterator[str]:
    """Yield each measurement as the peers' script prints its own: one JSON object a line."""
    peers = {"floor": "anyio", "subject": "agentrt"}
    for work, sizes in SIZES.items():
        for n in sizes if work in wanted else ():
            for side, us in measured("pair", work, n).items():
                yield json.dumps({"work": work, "peer": peers[side], "n": n, "cpu_us_per_node": round(us, 1)})
    for work, n in MEMORY if "memory" in wanted else ():
        for side, peer in peers.items():
            kib = measured("memory", work, n, side)[side]
            yield json.dumps({"work": work, "peer": peer, "n": n, "rss_kib_per_node": round(kib, 2)})
    for side, peer in peers.items() if "import" in wanted else ():
        seconds = min(measured("import", side)[side] for _ in range(IMPORTS))
        yield json.dumps({"work": "import", "peer": peer, "cpu_s": round(seconds, 3)})


def cost_row(work: str, n: int) -> str:
    plain, traced = measured("pair", work, n), measured("pair", work, n, "traced")
    floor, subject = plain.get("floor"), plain["subject"]
    ratio = f"{subject / floor:.2f}×" if floor else "–"
    beside = f"{floor:.1f}" if floor else "–"
    return f"| {work} | {n:,} | {beside} | {subject:.1f} | {ratio} | {traced['subject']:.1f} |"


def memory_row(work: str, n: int) -> str:
    floor, subject = (measured("memory", work, n, side)[side] for side in ("floor", "subject"))
    return f"| {work} | {n:,} | {floor:.2f} | {subject:.2f} | {subject / floor:.2f}× |"


def import_row() -> str:
    """Return the best of some alternating imports, in seconds."""
    rounds = [{**measured("import", "floor"), **measured("import", "subject")} for _ in range(IMPORTS)]
    floor, subject = (min(r[side] for r in rounds) for side in ("floor", "subject"))
    return f"| import | – | {floor:.3f} s | {subject:.3f} s | {subject / floor:.2f}× | – |"


def peer_rows(peers: Peers, work: str) -> list[str]:
    n = PEER_SIZES[work]
    own = measured("pair", work, n)["subject"]
    figures = {name: peers.measure(work, name, n) for name in peers.named(work)}
    return [
        f"| {work} | {n:,} | {name} | {f'{us:,.0f} | {us / own:.1f}×' if us is not None else 'failed | –'} |"
        for name, us in figures.items()
    ] + [f"| {work} | {n:,} | agentrt | {own:,.1f} | 1× |"]


def machine() -> str:
    cpu = next((r.split(":")[1].strip() for r in _cpuinfo() if r.startswith("model name")), platform.processor())
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {os.cpu_count()} cores, {cpu}, {platform.system()}, Python {platform.python_version()}, load {load}"
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure agentrt beside bare anyio, and peers if named.")
    parser.add_argument("--only", choices=[*SIZES, "memory", "import"], help="one work instead of all")
    parser.add_argument("--json", action="store_true", help="a JSON object a measurement, in the peers' own form")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the peers")
    parser.add_argument("--peer-bench", metavar="FILE", type=Path, help="the script that measures the peers")
    given = parser.parse_args()
    if (given.peers is None) != (given.peer_bench is None):
        parser.error("--peers and --peer-bench go together")
    return given


def main() -> None:
    given = arguments()
    wanted = [given.only] if given.only else [*SIZES, "memory", "import"]
    if given.json:
        sys.stdout.writelines(f"{row}\n" for row in json_rows(wanted))
    else:
        print_tables(given, wanted)


def print_tables(given: argparse.Namespace, wanted: list[str]) -> None:
    print(f"`python {' '.join(sys.argv)}`: {machine()}.\n")
    print("| work | n | floor, µs | agentrt, µs | ratio | traced, µs |\n|---|---|---|---|---|---|", flush=True)
    for work, sizes in SIZES.items():
        for n in sizes if work in wanted else ():
            print(cost_row(work, n), flush=True)
    if "import" in wanted:
        print(import_row(), flush=True)
    if "memory" in wanted:
        print("\n| memory | n | floor, KiB a node | agentrt, KiB a node | ratio |\n|---|---|---|---|---|", flush=True)
        for work, n in MEMORY:
            print(memory_row(work, n), flush=True)
    if given.peers:
        print("\n| work | n | runtime | µs | beside agentrt |\n|---|---|---|---|---|", flush=True)
        peers = Peers(python=given.peers, script=given.peer_bench)
        for work in PEER_SIZES:
            if work in wanted:
                print(*peer_rows(peers, work), sep="\n", flush=True)


if __name__ == "__main__":
    main()
