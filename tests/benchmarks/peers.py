"""Peers: other runtimes on the same work, measured by a script of theirs in an environment of theirs.

The script is run as `PYTHON FILE WORK PEER N` and prints one JSON line with `cpu_us_per_node`, or for `import`
`cpu_s`. It defines what it can measure as functions named `PEER_WORK`.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Hold an interpreter that has the peers, and the script that measures them."""

    python: str
    script: Path

    def named(self, work: str) -> list[str]:
        """Return the peers that do this work, without the bare floor."""
        names = re.findall(rf"^def (\w+)_{work}\(", self.script.read_text(), re.MULTILINE)
        return [n for n in names if n not in ("anyio", "agentrt") and not n.startswith("_")]

    def measure(self, work: str, peer: str, n: int) -> float | None:
        """Return a peer's CPU in microseconds a node; None where it is not installed or fails."""
        command = [self.python, str(self.script), work, peer, str(n)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            return None
        figure: float = json.loads(done.stdout.splitlines()[-1])["cpu_us_per_node"]
        return figure
