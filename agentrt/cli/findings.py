"""What people see of an index: what was read into it and what was not, and the passages that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from agentrt.cli.console import clean, console, note, one_line, plural, print_table

if TYPE_CHECKING:
    from agentrt.passage import Passage

_NAMED: Final = 3
_MOST_LINES: Final = 10
_SNIPPET: Final = 300


def print_report(report: Mapping[str, Any], *, short: bool) -> None:
    """Write what was read, what was left out and why, and the first problems."""
    changes = report["changes"]
    parts = [f"{changes[name]:,} {name}" for name in ("added", "changed", "removed", "unchanged") if changes[name]]
    read = f"{plural(report['files'], 'file')} read; documents: {', '.join(parts) or 'none'}"
    note(f"{read}; {plural(changes['embedded'], 'passage')} embedded", "green")
    if report["curation"] is not None:
        from agentrt.index.curation import Report

        rows = Report.read(report["curation"]).rows(_MOST_LINES if short else None)
        print_table(("DOCUMENTS", "COUNT", "EXAMPLES"), rows)
    _print_problems(report["problems"], short=short)
    if short and len(report["problems"]) > _NAMED:
        note(f"each of them: agentrt index report {report['index']}", "yellow")


def _print_problems(problems: Sequence[Mapping[str, Any]], *, short: bool) -> None:
    """Write problems, those of one reason on a line; or each on its own."""
    if not short:
        for problem in problems:
            note(clean(problem["told"]), "yellow" if problem["lost"] else "dim")
        return
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for problem in problems:
        alike.setdefault(problem["why"], []).append(problem)
    for why, ones in alike.items():
        named = ", ".join(problem["told"].removesuffix(f": {why}") for problem in ones[:_NAMED])
        more = f" and {len(ones) - _NAMED:,} more" if len(ones) > _NAMED else ""
        note(clean(f"{named}{more}: {why}"), "yellow" if any(problem["lost"] for problem in ones) else "dim")


def print_passages(found: Sequence[Passage]) -> None:
    """Write passages, the best first, with where they are from and how they begin."""
    out = console()
    for number, passage in enumerate(found, 1):
        title = f"  {one_line(passage.title, 100)}" if passage.title else ""
        page = f"  page {passage.metadata['page']}" if "page" in passage.metadata else ""
        head = ((f"{number}. ", "dim"), (clean(passage.id), "bold"), title, page, (f"  {passage.score:.4f}", "dim"))
        out.print(Text.assemble(*head), soft_wrap=True)
        out.print(Text(f"   {one_line(passage.text, _SNIPPET)}"), soft_wrap=True)
    if not found:
        note("nothing fits")
