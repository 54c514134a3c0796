"""`agentrt run`: run a graph from a file."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from agentrt.cli import options
from agentrt.cli.console import clean
from agentrt.cli.dryrun import bounds_of_run, foretell
from agentrt.cli.exits import ExitStatus, told
from agentrt.cli.inputs import entry, fields, type_name
from agentrt.cli.models import fetch_missing
from agentrt.cli.order import Order
from agentrt.cli.output import stdout_kept
from agentrt.cli.perform import Work, execute
from agentrt.cli.source import Source, load
from agentrt.cli.tally import Tally
from agentrt.options import Observer, Options
from agentrt.result import Result
from agentrt.runs import new_run_id
from agentrt.runtime import run as run_node
from agentrt.scheduler import DEFAULT_CONCURRENCY


class RunCommand(TyperCommand):
    """Say the usage of `agentrt run` as it is typed: what follows FILE is told apart by the input's type."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["FILE[:NAME]", "[INPUT]", "[--FIELD VALUE]...", "[OPTIONS]"]


def run(
    context: typer.Context,
    target: options.Target = None,
    words: options.Words = None,
    model: options.ModelName = None,
    budget: options.Limits = None,
    allow: options.Allow = None,
    policy: options.PolicyName = None,
    store: options.Store = None,
    no_store: options.NoStore = False,
    json: options.RunJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    concurrency: options.Concurrency = DEFAULT_CONCURRENCY,
    dry_run: options.DryRun = False,
    widths: options.Widths = None,
    help: options.RunHelp = False,
) -> None:
    """Run a graph, an agent or a function from a Python file.

    The output goes to stdout; progress, and whatever the file prints, to stderr.

    \b
    Examples:
      agentrt run examples/handbook.py
      agentrt run examples/handbook.py "What do 9 nights at the Zura Inn cost?"
      agentrt run brief.py:graph "Why?" --budget usd=0.5,seconds=120
      agentrt run brief.py:graph "Why?" --budget tokens=20k,on_exhausted=partial
      agentrt run brief.py --model ollama/llama3.2 --json - < question.txt
      agentrt run brief.py "Why?" --budget usd=0.5 --dry-run
      agentrt run brief.py "Why?" --allow files.read,calculator --policy approve_untrusted_writes
      agentrt run brief.py --help

    \b
    Exit status:
      0  done, or wrapped up       3    a budget was exceeded or is too small, or the result is partial
      1  the run failed            130  interrupted
      2  wrong usage, or a graph that cannot be what it says      4    it waits for people
    """
    if target is None or help:
        raise typer.Exit(_help(context, target))
    order = Order(
        target=target,
        arguments=list(words or ()),
        model=model or None,
        budget=budget,
        allow=allow,
        policy=policy,
        store=store,
        record=not no_store,
        json=json,
        quiet=quiet,
        debug=debug,
        concurrency=concurrency,
        dry_run=dry_run,
        widths=widths,
    )
    raise typer.Exit(foretell(order) if dry_run else execute(order, _prepare))


def _help(context: typer.Context, target: str | None) -> ExitStatus:
    if target is None:
        typer.echo(context.get_help())
        return ExitStatus.DONE if context.params["help"] else ExitStatus.USAGE
    with told():
        with stdout_kept():
            source = load(target)
        typer.echo("\n".join(_described(source)))
    return ExitStatus.DONE


def _described(source: Source) -> Iterator[str]:
    """Say what a file's graph takes, line by line."""
    known = fields(source.node)
    yield f"Usage: agentrt run {source.label} [INPUT] {'[--FIELD VALUE]... ' if known else ''}[OPTIONS]\n"
    about = f": {source.node.description}" if source.node.description else ""
    yield f"{source.label} is the {source.node.kind} {source.node.name!r}{about}"
    yield (
        "Its input has fields; INPUT is the first of them, or a JSON object of all:"
        if known
        else (f"Its input: {type_name(entry(source.node).input)}")
    )
    width = max((len(f"{f.option} {f.type_name}") for f in known), default=0)
    for f in known:
        default = "(required)" if f.default is None else f"(default: {f.default})"
        yield "  " + "  ".join(filter(None, [f"{f.option} {f.type_name}".ljust(width), f.description, default]))
    yield "\nagentrt run --help lists the options."


def _prepare(order: Order, tally: Tally) -> Work:
    source, value, budget = order.read()
    node = source.node
    if budget is not None:
        bounds_of_run(order, source, value, budget).check()
    for limits in (node.budget, budget):
        for name, limit in (limits.limits() if limits else {}).items():
            tally.limits[name] = min(limit, tally.limits.get(name, limit))
    fetch_missing(source, order.model)
    how: Options = {**order.options(budget), "run_id": new_run_id(), "target": source.address}
    opening = _opening(order, node.name, how)

    def begin(observers: Sequence[Observer]) -> Awaitable[Result[Any]]:
        observed: Options = {**how, "observers": observers}
        return run_node(node, value, **observed)

    return Work(opening, how.get("journal"), begin)


def _opening(order: Order, name: str, how: Options) -> str:
    model = f" · model {order.model}" if order.model else ""
    budget = f" · budget {order.budget}" if order.budget else ""
    record = "" if order.record else " · not recorded"
    return clean(f"run {how.get('run_id')} · {name}{model}{budget}{record}")
