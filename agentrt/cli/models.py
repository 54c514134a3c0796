"""`agentrt models`: the embedded models, and getting them."""

from __future__ import annotations

import importlib.util
from typing import Final

import typer

from agentrt.agent import Agent
from agentrt.cli import options
from agentrt.cli.console import note, print_json, print_table
from agentrt.cli.exits import told
from agentrt.cli.source import Source
from agentrt.model import EMBEDDED_MODEL, default_model, resolve_model
from agentrt.parts import nodes_below

_ACCEPTED: Final = """
--model takes
  local/NAME           an embedded model of this list, run in this process: pip install 'agentrt[local]'
  local/PATH.gguf      any other GGUF file, run in this process
  PROVIDER/MODEL       any model litellm knows, with the provider's key in the environment:
                       openai/gpt-5-mini, anthropic/claude-sonnet-4-5, ollama/llama3.2"""

app = typer.Typer(invoke_without_command=True)


@app.callback()
def models(context: typer.Context, json: options.Json = False) -> None:
    """List the embedded models, or fetch one.

    \b
    Examples:
      agentrt models
      agentrt models pull smollm2-135m
    """
    if context.invoked_subcommand is None:
        list_models(json)


@app.command("list")
def list_models(json: options.Json = False) -> None:
    """List the embedded models, with what --model takes."""
    with told():
        from agentrt.models import weights

        installed = weights.installed()
        rows = [(f"local/{w.name}", w in installed, w.size, w.license, str(w.path)) for w in weights.known()]
        if json:
            names = ("name", "installed", "size", "license", "path")
            print_json([dict(zip(names, row, strict=True)) for row in rows])
            return
        print_table(
            ("MODEL", "INSTALLED", "SIZE", "LICENSE"),
            [(name, _installed(name, there), f"{size / 1e6:.0f} MB", lic) for name, there, size, lic, _ in rows],
        )
        typer.echo(_ACCEPTED)
        typer.echo(f"\nWithout --model: the graph's own, then AGENTRT_MODEL, then {EMBEDDED_MODEL}.")


def _installed(name: str, there: bool) -> str:
    return "yes" if there else f"no: agentrt models pull {name.removeprefix('local/')}"


@app.command()
def pull(
    name: options.Embedded,
    debug: options.Debug = False,
) -> None:
    """Fetch the weights of an embedded model into the cache."""
    with told(debug=debug):
        from agentrt.models import weights

        name = name.removeprefix("local/")
        there = weights.find(name) in weights.installed()
        path = weights.pull(name)
        note("it was there already" if there else f"fetched local/{name}")
        typer.echo(path)


def fetch_missing(source: Source, model: str | None) -> None:
    """Fetch the weights a run is going to need before it starts, so that its clock and its display do not wait.

    Raises `UnknownModel` for a `model` that leads nowhere, and what `weights.pull` raises.
    """
    from agentrt.models import weights

    if model is not None and (model.startswith("local/") or "/" not in model):
        resolve_model(model)
    if importlib.util.find_spec("xllamacpp") is None:  # whoever needs it is told so by the model
        return
    wanted = {model} if model is not None else _models_of(source)
    for known in weights.known():
        if f"local/{known.name}" in wanted:
            weights.pull(known.name)


def _models_of(source: Source) -> set[str]:
    """Return the models that a file will ask for; what it makes while it runs is taken to ask for the default."""
    nodes = nodes_below([source.node, *source.defined.values()])
    named = [n.model for n in nodes if isinstance(n, Agent)]
    if not named and source.uses_agents:
        named = [None]
    return {default_model() if m is None else m for m in named if m is None or isinstance(m, str)}
