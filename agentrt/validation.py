"""Validation: everything that is wrong with a graph's edges, found on networkx; then their routes for the plan.

Rules V1-V4 of docs/design.md. A problem is one line that names its nodes and says what to do.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, Union, get_args, get_origin, is_typeddict

from agentrt.edge import END, START, Edge
from agentrt.handoff import Handoff, HandoffEdge
from agentrt.join import Join
from agentrt.node import Node
from agentrt.partial import Partial
from agentrt.plan import Route

if TYPE_CHECKING:
    import networkx

AnyNode: TypeAlias = Node[Any, Any]
Closer: TypeAlias = tuple[AnyNode, Join[Any, Any]]


def to_networkx(edges: Sequence[Edge]) -> networkx.MultiDiGraph[AnyNode]:
    """Return the edges as a networkx graph, each with `edge=` its `Edge`."""
    import networkx

    graph: networkx.MultiDiGraph[AnyNode] = networkx.MultiDiGraph()
    graph.add_nodes_from([START, END])
    for edge in edges:
        for target in edge.targets:
            graph.add_edge(edge.source, target, edge=edge)
    return graph


def problems(edges: Sequence[Edge], input: Any = object, output: Any = object) -> list[str]:
    """Return every problem of a graph's edges; none means it can be compiled to `routes`."""
    if not edges:
        return ["it has no edges; begin with edge(START, node)"]
    graph = to_networkx(edges)
    found = [
        *_bad_names(graph),
        *_bad_edges(edges),
        *_bad_budgets(edges),
        *_never_taken(edges),
        *_unreachable(graph),
        *_misfits(edges, input, output),
        *_policies(graph, edges, output),
    ]
    wrong = _depth_problems(edges)
    found += wrong
    if not wrong:
        closers, unclosed = _closers(edges)
        found += unclosed
        if not unclosed:
            found += _illegal_sends(edges, closers)
    return found


def routes(edges: Sequence[Edge]) -> dict[AnyNode, list[Route]]:
    """Compile valid edges to the plan's routes, by source in declared order."""
    closers, _ = _closers(edges)
    closing: dict[Closer, Route] = {}
    table: dict[AnyNode, list[Route]] = {START: []}
    for edge in edges:
        for target in edge.targets:
            if edge.join is not None:
                closing.setdefault((target, edge.join), Route((target,), join=edge.join))
    for edge in edges:
        closer = closing[closers[edge]] if edge.forks else None
        each = edge.each if callable(edge.each) else bool(edge.each)
        route = Route(edge.targets, edge.when, each, edge.join, edge.times, edge.send, closer, edge.budget)
        table.setdefault(edge.source, []).append(route)
        for target in edge.targets:
            table.setdefault(target, [])
    return table


def _bad_names(graph: networkx.MultiDiGraph[AnyNode]) -> Iterator[str]:
    seen: dict[str, AnyNode] = {}
    for node in graph.nodes:
        if seen.setdefault(node.name, node) is not node:
            yield f"two different nodes are named {node.name!r}; give each a name of its own"


def _bad_edges(edges: Sequence[Edge]) -> Iterator[str]:
    for edge in edges:
        if START in edge.targets:
            yield f"{edge}: nothing may lead into START"
        if edge.source is END:
            yield f"{edge}: nothing may lead out of END"
        if edge.forks and edge.join is not None:
            yield f"{edge}: one edge cannot both fork and join; put a node between"
        if edge.forks and END in edge.targets:
            yield f"{edge}: a fork cannot lead to END; join its branches first"
        if not edge.targets:
            yield f"{edge}: it has no target"
        if edge.times is not None and edge.times < 1:
            yield f"{edge}: times={edge.times} means it is never taken"


def _bad_budgets(edges: Sequence[Edge]) -> Iterator[str]:
    for edge in edges:
        if (budget := edge.budget) is None:
            continue
        if not edge.forks:
            yield f"{edge}: budget= caps the branches of a fork; set a node's own with {edge.source.name}.limit(…)"
        if budget.on_exhausted != "raise" or budget.calls is not None:
            yield f"{edge}: a branch has no policy and no callers; leave on_exhausted= and calls= to its nodes"
        if budget.seconds is not None:
            yield f"{edge}: a branch has no deadline; leave seconds= to its nodes"


def _never_taken(edges: Sequence[Edge]) -> Iterator[str]:
    always: dict[AnyNode, Edge] = {}
    for edge in edges:
        if edge.source in always:
            yield f"{edge}: never taken, since {always[edge.source]} before it always holds; add when= to that one"
        elif edge.when is None and edge.times is None:
            always[edge.source] = edge


def _unreachable(graph: networkx.MultiDiGraph[AnyNode]) -> Iterator[str]:
    import networkx

    reached = networkx.descendants(graph, START) | {START}
    leading = networkx.ancestors(graph, END) | {END}
    if END not in reached:
        yield "END cannot be reached from START"
    for node in graph.nodes:
        if node not in reached and node is not END:
            yield f"{node.name}: cannot be reached from START"
        if node not in leading and node is not START:
            yield f"{node.name}: no way leads from it to END"


def _depth_problems(edges: Sequence[Edge]) -> list[str]:
    """Check that each node has one fork depth: START 0, a fork +1, a join -1, END 0 (rule V2)."""
    outgoing = _outgoing(edges)
    depths: dict[AnyNode, int] = {START: 0}
    ways: dict[AnyNode, str] = {START: "START"}
    wrong: dict[str, None] = {}
    queue: deque[AnyNode] = deque([START])
    while queue:
        source = queue.popleft()
        for edge in outgoing.get(source, ()):
            depth = depths[source] + (1 if edge.forks else -1 if edge.join is not None else 0)
            for target in edge.targets:
                way = f"{ways[source]} {_arrow(edge)} {target.name}"
                if depth < 0:
                    wrong[f"{edge}: joins where no fork is open, by way of {way}"] = None
                elif target not in depths:
                    depths[target], ways[target] = depth, way
                    queue.append(target)
                elif depths[target] != depth:
                    wrong[
                        f"{target.name}: reached inside {depths[target]} forks by way of {ways[target]}, "
                        f"and inside {depth} by way of {way}; every way there must fork and join alike"
                    ] = None
    if depths.get(END, 0) != 0:
        wrong[f"END is reached inside a fork by way of {ways[END]}; join the branches first"] = None
    return list(wrong)


def _arrow(edge: Edge) -> str:
    return "=fork=>" if edge.forks else "=join=>" if edge.join is not None else "->"


def _closers(edges: Sequence[Edge]) -> tuple[dict[Edge, Closer], list[str]]:
    """Find for each fork the one (target, reducer) that closes it (rule V3)."""
    outgoing = _outgoing(edges)
    closers: dict[Edge, Closer] = {}
    wrong: list[str] = []
    for fork in edges:
        if not fork.forks:
            continue
        found = list(dict.fromkeys(_closers_of(fork, outgoing)))
        if len(found) == 1:
            closers[fork] = found[0]
        elif not found:
            wrong.append(f"{fork}: its branches never join; add an edge with join=")
        else:
            names = ", ".join(f"{t.name} ({_reducer_name(j)})" for t, j in found)
            wrong.append(f"{fork}: its branches join in more than one way: {names}; use one target and one reducer")
    return closers, wrong


def _closers_of(fork: Edge, outgoing: dict[AnyNode, list[Edge]]) -> Iterator[Closer]:
    queue = deque((t, 0) for t in fork.targets)
    seen = set(queue)
    while queue:
        node, level = queue.popleft()
        for edge in outgoing.get(node, ()):
            if edge.join is not None and level == 0:
                yield from ((t, edge.join) for t in edge.targets)
                continue
            deeper = level + (1 if edge.forks else -1 if edge.join is not None else 0)
            for state in ((t, deeper) for t in edge.targets):
                # No node is deeper than there are sources, except in unreachable cycles, whose depth V2 does not check.
                if state not in seen and deeper <= len(outgoing):
                    seen.add(state)
                    queue.append(state)


def _reducer_name(join: Join[Any, Any]) -> str:
    name = getattr(join.reduce, "__name__", type(join.reduce).__name__)
    return name if join.first is None else f"first({join.first})"


def _illegal_sends(edges: Sequence[Edge], closers: dict[Edge, Closer]) -> Iterator[str]:
    """Name each `send` whose node need not have run on the branch: it must dominate the source (rule V4)."""
    import networkx

    graph: networkx.DiGraph[AnyNode] = networkx.DiGraph()
    graph.add_node(START)
    for edge in edges:
        if edge.join is None:
            graph.add_edges_from((edge.source, t) for t in edge.targets)
        if edge.forks:
            graph.add_edge(edge.source, closers[edge][0])
    above = networkx.immediate_dominators(graph, START)
    for edge in edges:
        if edge.send is None or edge.source not in above:
            continue
        node: AnyNode | None = edge.source
        while node is not None and node is not edge.send:
            parent = above.get(node)
            node = None if parent is node else parent
        if node is None:
            yield (
                f"{edge}: send={edge.send.name} is not sure to have run on this branch before {edge.source.name}; "
                "send a node that lies on every way there"
            )


def _misfits(edges: Sequence[Edge], input: Any, output: Any) -> Iterator[str]:
    """Name each edge whose value, as far as plain classes tell, cannot be the next node's input."""
    for edge in edges:
        if edge.join is not None or callable(edge.each):
            continue
        source = edge.send or edge.source
        sent = input if source is START else source.output
        if isinstance(edge, HandoffEdge):
            if edge.targets[0].kind in ("agent", "graph"):
                continue  # an agent goes on with the conversation, whatever input it is otherwise given
            sent = Handoff
        for target in edge.targets:
            taken = output if target is END else target.input
            if edge.each is True:
                if inspect.isclass(sent) and sent not in (object, list, tuple) and not issubclass(sent, (list, tuple)):
                    yield f"{edge}: each=True needs a list or a tuple, and {source.name} gives {sent.__name__}"
            elif not fits(sent, taken):
                yield f"{edge}: gives {type_name(sent)}, but {target.name} takes {type_name(taken)}"


def _policies(graph: networkx.MultiDiGraph[AnyNode], edges: Sequence[Edge], output: Any) -> Iterator[str]:
    """Name each node whose budget says at exhaustion what cannot be done there (rule E4)."""
    policies = {n: n.budget.on_exhausted for n in graph.nodes if n.budget is not None}
    for node, policy in policies.items():
        if policy == "wrap_up" and not node.wraps_up:
            yield f"{node.name}: cannot wrap up; only agents can, and graphs with Graph(…, wrap_up=node)"
    for edge in edges:
        if policies.get(edge.send or edge.source) != "partial" or edge.join is not None or edge.each is not False:
            continue
        for target in edge.targets:
            taken = output if target is END else target.input
            if not _takes_partial(taken):
                yield (
                    f"{edge}: may give a Partial when its budget is exhausted, but {target.name} takes "
                    f"{type_name(taken)}; let it take {type_name(taken)} | Partial"
                )


def _takes_partial(taken: Any) -> bool:
    if get_origin(taken) in (Union, UnionType):
        return any(_takes_partial(part) for part in get_args(taken))
    return taken is Any or not inspect.isclass(taken) or issubclass(Partial, taken)


def fits(given: Any, taken: Any) -> bool:
    """Say whether a value of one type may go where the other is taken, as far as plain classes tell."""
    if not (inspect.isclass(given) and inspect.isclass(taken)) or {object, Any} & {given, taken}:
        return True  # unions, generics and untyped nodes are for the type checker
    if getattr(taken, "_is_protocol", False) or is_typeddict(taken) or inspect.isabstract(taken):
        return True  # told by structure or registration, not by inheritance
    return issubclass(given, taken) or (given is int and taken is float)


def type_name(annotation: Any) -> str:
    """Return how messages name a type."""
    return getattr(annotation, "__name__", str(annotation))


def _outgoing(edges: Sequence[Edge]) -> dict[AnyNode, list[Edge]]:
    table: dict[AnyNode, list[Edge]] = {}
    for edge in edges:
        table.setdefault(edge.source, []).append(edge)
    return table
