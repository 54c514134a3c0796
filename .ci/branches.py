"""Print which share of the branches of agentrt/ the tests took, file by file, and fail where it is too small.

Takes the JSON report of coverage. Statements stand beside the branches, for comparison: they are no measure, since a
line with an `if` is run whichever way it goes.
"""

import json
import sys
from pathlib import Path
from typing import Any

LEAST = 95.0
"""Percent of all branches together."""


def row(name: str, summary: dict[str, Any]) -> str:
    taken, branches = summary["covered_branches"], summary["num_branches"]
    run, statements = summary["covered_lines"], summary["num_statements"]
    share = f"{taken}/{branches}"
    return f"{percent(summary):8.2f} {share:>10} {100 * run / statements:11.2f}  {name}\n"


def percent(summary: dict[str, Any]) -> float:
    share: float = 100 * summary["covered_branches"] / summary["num_branches"]
    return share


def main(report: str) -> int:
    measured = json.loads(Path(report).read_text(encoding="utf-8"))
    files = {name: file["summary"] for name, file in measured["files"].items() if file["summary"]["num_branches"]}
    sys.stdout.write("branches      taken  statements  file\n")
    for name in sorted(files, key=lambda name: (percent(files[name]), name)):
        sys.stdout.write(row(name, files[name]))
    sys.stdout.write(row("all", measured["totals"]))
    return 0 if percent(measured["totals"]) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
