"""The source of a run: a Python file, and the node in it that is meant."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from agentrt.agent import Agent
from agentrt.cli.exits import UsageError, shown_path
from agentrt.edge import Marker
from agentrt.errors import AgentrtError
from agentrt.function import as_node
from agentrt.graph import Graph
from agentrt.guardrail import unguarded
from agentrt.node import Node
from agentrt.parts import nodes_below

_USUAL_NAMES: Final = ("main", "graph", "agent")


@dataclass(frozen=True, slots=True)
class Source:
    """Hold what `FILE[:NAME]` led to: the node, every node its file defines, by name, and whether it knows `Agent`.

    `address` leads there from any folder.
    """

    label: str
    address: str
    node: Node[Any, Any]
    defined: Mapping[str, Node[Any, Any]]
    uses_agents: bool


def load(target: str) -> Source:
    """Import the file of `FILE[:NAME]` and pick its node; raises `UsageError` saying what to do."""
    sources = load_all(target)
    if len(sources) > 1:
        path, _ = _split(target)
        shown = {source.address.rpartition(":")[2]: source.node for source in sources}
        raise UsageError(f"{path.name} defines several{_choices(path, shown)}")
    return sources[0]


def load_all(target: str, names: Sequence[str] = ()) -> list[Source]:
    """Import the file of `FILE[:NAME]` and pick the nodes that are named, or all that it is about."""
    path, name = _split(target)
    module = _import(path)
    defined = _defined(module, path)
    wanted = [name, *names] if name else list(names)
    nodes = [_named(module, n, path, defined) for n in wanted] or _chosen(path, defined, module)
    wanted = wanted or [next(n for n, value in defined.items() if value is node) for node in nodes]
    uses_agents = any(value is Agent for value in vars(module).values())
    return [
        Source(target, f"{path}:{n}", node, defined, uses_agents=uses_agents)
        for n, node in zip(wanted, nodes, strict=True)
    ]


def _split(target: str) -> tuple[Path, str]:
    file, colon, name = target.rpartition(":")
    if not colon or Path(target).exists():
        file, name = target, ""
    path = Path(file).expanduser()
    if path.is_dir():
        files = sorted(p.name for p in path.glob("*.py"))
        raise UsageError(f"{file} is a folder: name a file in it" + (f", like {path / files[0]}" if files else ""))
    if not path.exists():
        near = path.with_name(path.name + ".py")
        raise UsageError(f"no file {file!r}" + (f": did you mean {near}?" if near.exists() else ": check the path"))
    return path.resolve(), name


def _import(path: Path) -> ModuleType:
    """Run the file as a module, with its folder on the path, as `python FILE` has it."""
    name = (
        path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"agentrt_script_{abs(hash(path))}"
    )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{shown_path(str(path))} is not a Python file: give the .py file that defines the graph")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(_import_failure(path, error)) from error
    return module


def _import_failure(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown_path(error.filename)} line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    place = f"{shown_path(str(path))} line {frames[-1].lineno}" if frames else shown_path(str(path))
    code = f"  [{frames[-1].line}]" if frames and frames[-1].line else ""
    if isinstance(error, SystemExit):
        return f"{place}: it ends the program while it is imported; put that under `if __name__ == '__main__':`{code}"
    label = "" if isinstance(error, AgentrtError) else f"{type(error).__name__}: "
    return f"{place}: {label}{error}{code}"


def _defined(module: ModuleType, path: Path) -> dict[str, Node[Any, Any]]:
    """Return the nodes a file makes itself, each under its first name; what it imports does not count."""
    imported = _imported_names(path)
    nodes: dict[str, Node[Any, Any]] = {}
    for name, value in vars(module).items():
        if (
            isinstance(value, Node)
            and not isinstance(value, Marker)
            and name not in imported
            and value not in nodes.values()
        ):
            nodes[name] = value
    return nodes


def _imported_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_bytes())
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names = {alias.asname or alias.name for n in froms for alias in n.names}
    starred = (sys.modules.get(n.module or "") for n in froms if any(a.name == "*" for a in n.names))
    return names.union(*(vars(module) for module in starred if module is not None))


def _named(module: ModuleType, name: str, path: Path, defined: Mapping[str, Node[Any, Any]]) -> Node[Any, Any]:
    value = getattr(module, name, None)
    if isinstance(value, Node) and not isinstance(value, Marker):
        return value
    if isinstance(value, FunctionType):
        return as_node(value)
    what = f"{name!r} in {path.name} is a {type(value).__name__}, not a node" if hasattr(module, name) else (
        f"no {name!r} in {path.name}"
    )  # fmt: skip
    raise UsageError(f"{what}{_choices(path, _names(defined, module))}")


def _chosen(path: Path, defined: Mapping[str, Node[Any, Any]], module: ModuleType) -> list[Node[Any, Any]]:
    """Pick the nodes a file is about, or raise `UsageError` listing what there is."""
    for name in _USUAL_NAMES:
        if name in defined:
            return [defined[name]]
    for kind in (Graph, Agent, Node):
        if found := _outermost(kind, defined.values()):
            return found
    raise UsageError(f"no graph in {path.name}{_choices(path, _names(defined, module))}")


def _outermost(kind: type[Node[Any, Any]], defined: Iterable[Node[Any, Any]]) -> list[Node[Any, Any]]:
    """Return the nodes of a kind, guarded or not, that no other of them is made of."""
    nodes = [n for n in defined if isinstance(unguarded(n), kind)]
    inner = nodes_below(part for n in nodes for part in n.parts)
    return [n for n in nodes if n not in inner]


def _choices(path: Path, names: Collection[str]) -> str:
    if not names:
        return ": define one with Graph(…) or Agent(…) at the top level of the file"
    return f": pick one, like {path.name}:{next(iter(names))} (there are {', '.join(names)})"


def _names(defined: Mapping[str, Node[Any, Any]], module: ModuleType) -> list[str]:
    return list(defined) or [n for n, v in vars(module).items() if _is_own_function(v, module)]


def _is_own_function(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, FunctionType) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
    )
