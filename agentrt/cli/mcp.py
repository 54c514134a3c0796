"""`agentrt mcp`: serve what a file defines to other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import anyio
import typer

from agentrt.cli import options
from agentrt.cli.console import note
from agentrt.cli.exits import UsageError, told
from agentrt.cli.models import fetch_missing
from agentrt.cli.order import Order, check
from agentrt.cli.output import stdout_kept
from agentrt.cli.perform import traced
from agentrt.cli.source import Source, load_all
from agentrt.options import Options
from agentrt.scheduler import DEFAULT_CONCURRENCY

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", show_default=False, help="More of the same file."),
]
Http = Annotated[
    str | None,
    typer.Option(metavar="[HOST:]PORT", help="Serve over HTTP, on this machine alone if no HOST is given."),
]


def mcp(
    target: options.RequiredTarget,
    names: Names = None,
    http: Http = None,
    model: options.ModelName = None,
    budget: options.CallLimits = None,
    allow: options.Allow = None,
    policy: options.PolicyName = None,
    store: options.Store = None,
    no_store: options.NoStore = False,
    concurrency: options.Concurrency = DEFAULT_CONCURRENCY,
    debug: options.Debug = False,
) -> None:
    """Serve a graph, an agent or tools of a Python file to programs that speak the Model Context Protocol.

    Each is a tool there, and each call a run of its own, under the budget. It is served over stdin and stdout, to the
    program that starts this command, or over HTTP.

    \b
    Examples:
      agentrt mcp brief.py
      agentrt mcp tools.py:search fetch --budget seconds=30
      agentrt mcp brief.py --allow search,calculator
      agentrt mcp brief.py --http 8000
    """
    order = Order(
        target=target,
        model=model or None,
        budget=budget,
        allow=allow,
        policy=policy,
        store=store,
        record=not no_store,
        concurrency=concurrency,
    )
    with told(debug=debug):
        address = _address(http) if http is not None else None
        with stdout_kept():
            sources = _read(order, names or ())
        with traced(quiet=True):
            anyio.run(_serve, sources, order.options(order.limits()), address)


def _read(order: Order, names: Sequence[str]) -> list[Source]:
    sources = load_all(order.target, names)
    for source in sources:
        check(source)
        fetch_missing(source, order.model)
    return sources


async def _serve(sources: Sequence[Source], how: Options, address: tuple[str, int] | None) -> None:
    from agentrt.serve.mcp import mcp_server
    from agentrt.serve.transport import serve_http, serve_stdio

    names = ", ".join(source.node.name for source in sources)
    try:
        server = mcp_server([s.node for s in sources], targets=[s.address for s in sources], **how)
        if address is None:
            note(f"serving {names} over stdin and stdout")
            await serve_stdio(server)
        else:
            with stdout_kept():
                await serve_http(server, *address, listening=lambda url: note(f"serving {names} at {url}"))
    except OSError as error:
        raise UsageError(f"{error.strerror or error}: give another --http") from error
    finally:
        if (journal := how.get("journal")) is not None:
            with anyio.CancelScope(shield=True):
                await journal.aclose()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"--http {text}: write a port, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
