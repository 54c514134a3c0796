"""`agentrt show`: the steps of a run as a tree."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Final

import anyio
from rich.text import Text

from agentrt.cli import options
from agentrt.cli.console import (
    clean,
    console,
    dollars,
    moment,
    on_terminal,
    one_line,
    plural,
    print_json,
    seconds,
    tokens_of,
)
from agentrt.cli.exits import told
from agentrt.cli.runs import CUT_OFF, read_run, status_of_run, summary_document, worked
from agentrt.cli.steptree import Step, StepTree, said, walk
from agentrt.events import RunFailed
from agentrt.journal import RunSummary
from agentrt.usage import PICO

_SIBLINGS: Final = 12
_TROUBLED: Final = 5
_NOTES: Final = 5
_LONGEST: Final = 70
_WHOLE: Final = 100_000
_PAUSE: Final = 1.0
_STYLES: Final = {"done": "", "failed": "red", "running": "cyan", "waiting": "yellow", "abandoned": "yellow"}


def show(
    run: options.RunId = "last",
    json: options.Json = False,
    depth: options.Depth = None,
    full: options.Full = False,
    store: options.Store = None,
    debug: options.Debug = False,
) -> None:
    """Show a run's steps: time, tokens, cost, what went in and what came out.

    Time, tokens and cost of a step include the steps below it.

    Of a large fork only the first branches are shown, and some that did not end well; --full shows all.

    \b
    Examples:
      agentrt show
      agentrt show 20260412-1 --depth 2
      agentrt show last --json
    """
    with told(debug=debug, json=json):
        with console(sys.stderr).status("reading the run") if on_terminal(sys.stderr) else nullcontext():
            summary, events = anyio.run(read_run, run, store)
            tree = StepTree(events)
            if status_of_run(summary) == CUT_OFF:
                tree.cut_off()
        if json:
            print_json(_document(summary, tree))
        else:
            _print(summary, tree, View(depth=depth, full=full))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Say how much of a tree is shown: `depth` levels, and every sibling if `full`."""

    depth: int | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Hold one line of the tree: a step, a note below one, or steps left out."""

    time: str
    tokens: str
    cost: str
    branch: str
    text: Text


def lines(tree: StepTree, view: View) -> Iterator[Line]:
    """Yield the lines of the tree, top down."""
    waiting: list[tuple[Step | Sequence[Step], str, str, int]] = []  # what, its branch, the branch below, level

    def push(steps: Sequence[Step], indent: str, level: int) -> None:
        entries = list(steps) if view.full else _selected(steps)
        for i, entry in reversed(list(enumerate(entries))):
            last = i == len(entries) - 1
            corner, rail = ("└─ ", "   ") if last else ("├─ ", "│  ")
            top = level == 1 and len(entries) == 1
            waiting.append((entry, "" if top else indent + corner, "" if top else indent + rail, level))

    push(tree.roots, "", 1)
    while waiting:
        entry, branch, below, level = waiting.pop()
        if not isinstance(entry, Step):
            yield _left_out(entry, branch)
            continue
        deeper = view.depth is None or level < view.depth
        yield _step_line(entry, branch, 0 if deeper else entry.below, _WHOLE if view.full else _LONGEST)
        yield from _notes(entry, below + ("│  " if entry.children and deeper else "   "), view)
        if deeper:
            push(entry.children, below, level + 1)


def _selected(steps: Sequence[Step]) -> list[Step | list[Step]]:
    """Leave out siblings of large forks: of each node the first ones stay, and a few that did not end well."""
    total = Counter(s.node for s in steps)
    seen: Counter[str] = Counter()
    troubled: Counter[str] = Counter()
    left_out: dict[str, list[Step]] = {}
    entries: list[Step | list[Step]] = []
    for step in steps:
        node = step.node
        seen[node] += 1
        late = seen[node] > _SIBLINGS
        troubled[node] += late and step.outcome != "done"
        if not late or total[node] == _SIBLINGS + 1 or (step.outcome != "done" and troubled[node] <= _TROUBLED):
            entries.append(step)
        elif node in left_out:
            left_out[node].append(step)
        else:
            left_out[node] = [step]
            entries.append(left_out[node])
    return entries


def _left_out(steps: Sequence[Step], branch: str) -> Line:
    outcomes = Counter(s.outcome for s in steps)
    told = ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.most_common())
    below = sum(s.below for s in steps)
    inside = f", {plural(below, 'step')} below" if below else ""
    text = Text(f"… {len(steps):,} more of {clean(steps[0].node)} ({told}{inside}): --full shows them", style="dim")
    tokens, cost = sum(s.tokens for s in steps), sum(s.cost for s in steps)
    return Line("", f"{tokens:,}" if tokens else "", dollars(cost) if cost else "", branch, text)


def _step_line(step: Step, branch: str, hidden: int, longest: int) -> Line:
    text = Text(clean(step.label), style=f"bold {_STYLES.get(step.outcome, 'yellow')}")
    what = step.attributes.get("model") if step.kind == "chat" else step.kind
    if what and what not in ("node", "attempt"):
        text.append(f" {clean(str(what))}", "not bold dim")
    if step.outcome != "done":
        text.append(f" {step.outcome}", "not bold")
    if step.attempt > 1 and step.kind != "attempt":
        text.append(f" (attempt {step.attempt})", "not bold dim")
    if step.join:
        text.append(f" (join {step.join[0]:,} of {step.join[1]:,})", "not bold dim")
    if hidden:
        text.append(f" (+{plural(hidden, 'step')})", "not bold dim")
    given, answered = (one_line(v, longest) if v is not None else "" for v in said(step))
    if given or answered:
        text.append("  " + given, "not bold dim")
        text.append(" → " + answered if answered else "", "not bold")
    took = "" if step.seconds is None else seconds(step.seconds)
    return Line(took, f"{step.tokens:,}" if step.tokens else "", dollars(step.cost) if step.cost else "", branch, text)


def _notes(step: Step, indent: str, view: View) -> Iterator[Line]:
    notes = [(n, "dim") for n in step.notes]
    if step.error is not None and not any(c.error == step.error for c in step.children):
        notes.append((f"{step.error.type}: {step.error.message}", "red"))
    shown = notes if view.full or len(notes) <= _NOTES + 1 else notes[:_NOTES]
    for note, style in shown:
        text = note if view.full else one_line(note, 2 * _LONGEST)
        yield Line("", "", "", indent, Text("· " + clean(text), style=style))
    if len(shown) < len(notes):
        yield Line("", "", "", indent, Text(f"· {len(notes) - len(shown)} more: --full shows them", style="dim"))


def _print(summary: RunSummary, tree: StepTree, view: View) -> None:
    out = console()
    out.print(_headline(summary, tree), soft_wrap=True)
    priced = summary.cost > 0 or any(s.cost for s in tree.roots)
    header = Line("TIME", "TOKENS", "COST", "", Text("STEP"))
    for line in chain([header], lines(tree, view)):
        columns = f"{line.time:>11}  {line.tokens:>9}  " + (f"{line.cost:>9}  " if priced else "")
        text = Text.assemble((columns, "dim"), (line.branch, "dim"), line.text)
        if out.is_terminal and view.full:
            out.print(text, soft_wrap=True)
        elif out.is_terminal:
            out.print(text, no_wrap=True, overflow="ellipsis", crop=True)
        else:  # a hundred thousand lines take rich two minutes
            out.file.write(text.plain.rstrip() + "\n")
    if isinstance(tree.closing, RunFailed):
        out.print(Text(clean(_ending(tree.closing)), style="red"), soft_wrap=True)


def _ending(closing: RunFailed) -> str:
    error = closing.error
    return error.message if error.message.startswith(closing.path) else f"{closing.path}: {error.type}: {error.message}"


def _headline(summary: RunSummary, tree: StepTree) -> Text:
    status = status_of_run(summary)
    limits = tree.opening.limits if tree.opening else {}
    facts = [
        summary.name,
        moment(summary.started),
        _time(summary),
        plural(tree.total, "step"),
        tokens_of(summary.tokens, sum(s.uncertain for s in tree.roots)),
        dollars(summary.cost),
        *(["budget " + ", ".join(f"{k}={v:g}" for k, v in limits.items())] if limits else []),
    ]
    style = {"done": "green", "running": "cyan"}.get(status, "yellow")
    return Text.assemble((summary.run_id, "bold"), "  ", (status, style), "  ", clean(" · ".join(facts)))


def _time(summary: RunSummary) -> str:
    """Say how long a run was worked on, and from its start to its end where that is longer."""
    took = seconds(worked(summary))
    if summary.ended is None:
        return f"{took} so far"
    whole = summary.ended - summary.started
    return took if whole - worked(summary) < _PAUSE else f"{took} of work in {seconds(whole)}"


def _document(summary: RunSummary, tree: StepTree) -> dict[str, object]:
    closing = tree.closing
    return {
        **summary_document(summary),
        "uncertain_tokens": sum(s.uncertain for s in tree.roots),
        "input": tree.opening.input if tree.opening else None,
        "limits": tree.opening.limits if tree.opening else {},
        "output": getattr(closing, "output", None),
        "error": {"path": closing.path, "type": closing.error.type, "message": closing.error.message}
        if isinstance(closing, RunFailed)
        else None,
        "steps": [_step_document(s) for s in walk(tree.roots)],
    }


def _step_document(step: Step) -> dict[str, object]:
    return {
        "path": step.path,
        "name": step.name,
        "kind": step.kind,
        "outcome": step.outcome,
        "attempt": step.attempt,
        "started": step.started,
        "seconds": step.seconds,
        "waited": step.waited,
        "tokens": step.tokens,
        "uncertain_tokens": step.uncertain,
        "usd": step.cost / PICO,
        "after": step.after,
        "join": None if step.join is None else {"arrived": step.join[0], "expected": step.join[1]},
        "input": step.input,
        "output": step.output,
        "error": None if step.error is None else {"type": step.error.type, "message": step.error.message},
        "notes": step.notes,
    }
