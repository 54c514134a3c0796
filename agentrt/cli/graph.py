"""`agentrt graph`: draw a graph."""

from __future__ import annotations

import typer

from agentrt.cli import options
from agentrt.cli.exits import UsageError, told
from agentrt.cli.output import stdout_kept
from agentrt.cli.source import load
from agentrt.graph import Graph


def graph(target: options.RequiredTarget, debug: options.Debug = False) -> None:
    """Print a graph as a Mermaid flowchart, which GitHub and mermaid.live draw.

    A graph that does not validate is printed too, and its problems on stderr (exit status 2).

    \b
    Example:
      agentrt graph examples/handbook.py > handbook.mmd
    """
    with told(debug=debug):
        with stdout_kept():
            node = load(target).node
        if not isinstance(node, Graph):
            raise UsageError(f"{node.name!r} in {target} is of kind {node.kind}: only a graph can be drawn")
        typer.echo(node.to_mermaid())
        node.validate()
