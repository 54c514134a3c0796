"""`agentrt run --dry-run`: what a run would take, without running it."""

from __future__ import annotations

import math
import sys
from typing import Any

from rich.text import Text

from agentrt.bounds import Bound, Bounds
from agentrt.budget import Budget
from agentrt.cli.console import clean, console, dollars, print_json, print_table
from agentrt.cli.exits import ExitStatus, UsageError, told
from agentrt.cli.order import Order
from agentrt.cli.output import stdout_kept
from agentrt.cli.source import Source
from agentrt.errors import BudgetTooSmall
from agentrt.forecast import foresee
from agentrt.usage import PICO

_COLUMNS = ("", "LEAST", "GREATEST", "BUDGET", "DOMINATED BY")


def foretell(order: Order) -> ExitStatus:
    """Print what a run would take, and return whether it may fit its budget."""
    with told(debug=order.debug):
        with stdout_kept():
            bounds = bounds_of_run(order, *order.read())
        if order.json:
            print_json(bounds_document(bounds))
        else:
            print_bounds(bounds)
    return ExitStatus.DONE if bounds.fits else ExitStatus.BUDGET_EXCEEDED


def bounds_of_run(order: Order, source: Source, value: Any, budget: Budget | None) -> Bounds:
    """Return the bounds of the run that was typed."""
    return foresee(source.node, value, budget, model=order.model, widths=parse_widths(order.widths))


def parse_widths(text: str | None) -> dict[str, int | tuple[int, int]]:
    """Read `researcher=32,solver=2-5`; raises `UsageError` naming the part that is wrong."""
    widths: dict[str, int | tuple[int, int]] = {}
    for part in filter(None, (p.strip() for p in (text or "").split(","))):
        name, _, value = part.partition("=")
        least, dash, most = value.partition("-")
        if not least.isdigit() or (dash and not most.isdigit()):
            raise UsageError(f"--widths {part!r}: write the node a fork leads to and its items, like researcher=32")
        widths[name.strip()] = (int(least), int(most)) if dash else int(least)
    return widths


def print_bounds(bounds: Bounds) -> None:
    """Write the bounds as a table, and below it what has no bound and whether the run may fit its budget."""
    print_table(_COLUMNS, [_row(name, bound) for name, bound in bounds.items()])
    out = console()
    for (path, why), names in _unbounded(bounds).items():
        line = f"unbounded in {', '.join(names)}: {path} {why}"
        out.print(Text(clean(line), style="yellow"), soft_wrap=True)
    text, style = _verdict(bounds)
    out.print(Text(clean(text), style=style), soft_wrap=True)
    sys.stdout.flush()


def _row(name: str, bound: Bound) -> list[object]:
    capped = bound.greatest < bound.uncapped
    style = "red" if not bound.fits else "yellow" if capped or bound.greatest == math.inf else ""
    most = f"{_shown(name, bound.greatest)}, by budget" if capped else _shown(name, bound.greatest)
    limit = "" if bound.limit is None else _shown(name, bound.limit)
    cells: list[object] = [Text(t, justify="right") for t in (_shown(name, bound.least), most, limit)]
    return [Text(name, style=style), *cells, clean(bound.dominant)]


def _shown(name: str, value: float) -> str:
    if value == math.inf:
        return "∞"
    return dollars(round(value * PICO)) if name == "usd" else f"{value:,.0f}"


def _unbounded(bounds: Bounds) -> dict[tuple[str, str], list[str]]:
    """Return the dimensions that each node leaves without a bound, by its path and the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, bound in bounds.items():
        for path, why in bound.unbounded.items():
            found.setdefault((path, why), []).append(name)
    return found


def _verdict(bounds: Bounds) -> tuple[str, str]:
    try:
        bounds.check()
    except BudgetTooSmall as error:
        return f"does not fit: {error}", "bold red"
    limited = [(name, bound) for name, bound in bounds.items() if bound.limit is not None]
    over = [name for name, bound in limited if bound.uncapped > (bound.limit or 0)]
    if over:
        return f"may fit: its budget may run out of {', '.join(over)}", "yellow"
    return ("fits: no run takes more than its budget" if limited else "no budget is set"), "green"


def bounds_document(bounds: Bounds) -> dict[str, object]:
    """Return what `--dry-run --json` prints; a number that nothing bounds is null."""
    try:
        bounds.check()
        error = None
    except BudgetTooSmall as refusal:
        error = {"type": type(refusal).__name__, "message": str(refusal), "path": refusal.path}
    document: dict[str, object] = {"name": bounds.name, "fits": bounds.fits, "dominant": bounds.dominant}
    document["bounds"] = {name: _bound_document(bound) for name, bound in bounds.items()}
    return document if error is None else {**document, "error": error}


def _bound_document(bound: Bound) -> dict[str, object]:
    return {
        "least": bound.least,
        "greatest": bound.greatest,
        "uncapped": bound.uncapped,
        "limit": bound.limit,
        "dominant": bound.dominant,
        "unbounded": dict(bound.unbounded),
    }
