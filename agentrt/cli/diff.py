"""`agentrt diff`: where two runs part, and what each cost."""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from agentrt.cli import options
from agentrt.cli.console import dollars, note, one_line, plural, print_json, print_table, tokens_of
from agentrt.cli.exits import told
from agentrt.cli.output import usage_document
from agentrt.cli.runs import read_run
from agentrt.events import StepFailed, StepFinished
from agentrt.recorded import Recorded, RecordedStep
from agentrt.value import Value

_LONGEST = 60


class Difference(Value):
    """Hold how a step of one path differs in two runs: by its input, its output, or that only one has such a step."""

    path: str
    what: str
    first: object
    second: object


def diff(
    first: options.FirstRun,
    second: options.SecondRun,
    json: options.Json = False,
    store: options.Store = None,
    debug: options.Debug = False,
) -> None:
    """Show where two runs part, step by step, and what each cost.

    \b
    Examples:
      agentrt diff 20261127-0934 last
    """
    with told(debug=debug, json=json):
        one, other = (Recorded(anyio.run(read_run, named, store)[1]) for named in (first, second))
        found = list(differences(one, other))
        if json:
            print_json(
                {
                    "differences": found,
                    "usage": [usage_document(r.total) for r in (one, other)],
                }
            )
            return
        if found:
            rows = [(d.path, d.what, _short(d.first), _short(d.second)) for d in found]
            print_table(("STEP", "WHAT", _name(one), _name(other)), rows)
        else:
            note("every step is the same", "green")
        for run in (one, other):
            usage = run.total
            tokens = tokens_of(usage.tokens, usage.uncertain)
            note(f"{_name(run)}: {tokens}, {plural(usage.steps, 'step')}, {dollars(usage.cost)}")


def differences(one: Recorded, other: Recorded) -> Iterator[Difference]:
    """Yield where two runs differ, step by step; of what is below a step with another input, nothing."""
    parted: list[str] = []
    for path in dict.fromkeys([*one.steps, *other.steps]):
        if any(path.startswith(f"{p}/") for p in parted):
            continue
        a, b = one.steps.get(path), other.steps.get(path)
        found = _differs(path, a, b)
        if found is not None:
            yield found
            if found.what != "output":
                parted.append(path)


def _differs(path: str, a: RecordedStep | None, b: RecordedStep | None) -> Difference | None:
    first, second = (None if step is None else step.started for step in (a, b))
    if a is None or first is None:
        return None if second is None else Difference(path, "only in the second", None, second.input)
    if b is None or second is None:
        return Difference(path, "only in the first", first.input, None)
    if (first.name, first.input) != (second.name, second.input):
        return Difference(path, "input", first.input, second.input)
    ends = [_end(a), _end(b)]
    return None if ends[0] == ends[1] else Difference(path, "output", *ends)


def _end(step: RecordedStep) -> object:
    if isinstance(step.ended, StepFinished):
        return _decided(step.ended.output) if step.started and step.started.kind == "question" else step.ended.output
    return f"{step.ended.error.type}: {step.ended.error.message}" if isinstance(step.ended, StepFailed) else "(no end)"


def _decided(output: object) -> object:
    """Return what was decided of an approval, without who did and when."""
    if not isinstance(output, dict) or "verdict" not in output:
        return output
    return {name: output.get(name) for name in ("verdict", "value", "because")}


def _name(run: Recorded) -> str:
    return run.run.run_id if run.run is not None else "?"


def _short(value: object) -> str:
    return "" if value is None else one_line(value, _LONGEST)
