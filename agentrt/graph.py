"""Graphs: nodes composed by one verb, `edge`; validated on networkx and compiled to the plan's routes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, Unpack, cast, overload

from agentrt.bounds import Bounds
from agentrt.budget import Budget
from agentrt.drawing import mermaid
from agentrt.edge import END, START, Edge, Marker
from agentrt.errors import DefinitionError, GraphError
from agentrt.forecast import Assumptions, foresee, wrapping_interval
from agentrt.function import FunctionNode, as_node
from agentrt.guardrail import unguarded
from agentrt.handoff import with_handoffs
from agentrt.interval import Interval, Outlook
from agentrt.join import Join
from agentrt.node import Context, Node
from agentrt.partial import Partial
from agentrt.parts import walk
from agentrt.plan import GraphPlan, Route
from agentrt.retry import Retry
from agentrt.validation import problems, routes, to_networkx
from agentrt.walks import routes_interval

if TYPE_CHECKING:
    import networkx

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S")


Source: TypeAlias = Node[Any, T] | Callable[..., Awaitable[T]] | Callable[..., T]
Target: TypeAlias = Node[T, Any] | Callable[[T], Any] | Callable[[T, Context], Any]
Sources: TypeAlias = Source[T] | Sequence[Source[T]]
Targets: TypeAlias = Target[T] | Sequence[Target[T]]
Reducer: TypeAlias = Callable[[list[T]], U] | Join[T, U]
When: TypeAlias = Callable[[T], bool] | None


class Options(TypedDict, total=False):
    """Name what every graph may be given besides its types: see `Graph`."""

    description: str
    budget: Budget | None
    wrap_up: Source[Any] | None
    retry: Retry | None
    timeout: float | None


class Graph(Node[In, Out], Generic[In, Out]):
    """Compose nodes into a directed graph, which is a node itself.

    input, output: the types of what runs in and out.
    budget: caps every activation.
    wrap_up: a node that makes the output of a `Partial`, for budgets that say `on_exhausted="wrap_up"`.
    retry, timeout: for every activation as a whole; `timeout` in seconds.

    Edges are tried in the order they were added.
    """

    kind = "graph"

    @overload
    def __init__(self: Graph[Any, Any], name: str, **options: Unpack[Options]) -> None: ...
    @overload
    def __init__(self: Graph[T, Any], name: str, *, input: type[T], **options: Unpack[Options]) -> None: ...
    @overload
    def __init__(self: Graph[Any, U], name: str, *, output: type[U], **options: Unpack[Options]) -> None: ...
    @overload
    def __init__(self, name: str, *, input: type[In], output: type[Out], **options: Unpack[Options]) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        input: Any = object,
        output: Any = object,
        description: str = "",
        budget: Budget | None = None,
        wrap_up: Source[Any] | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(
            name, input=input, output=output, description=description, budget=budget, retry=retry, timeout=timeout
        )
        self.last = None if wrap_up is None else as_node(wrap_up)
        self.wraps_up = wrap_up is not None
        self._edges: list[Edge] = []
        self._known = _Known([], None)
        self._routes: dict[Node[Any, Any], list[Route]] | None = None

    @overload
    def edge(
        self,
        source: Sources[T],
        target: Targets[T],
        *,
        when: When[T] = None,
        times: int | None = None,
        budget: Budget | None = None,
    ) -> None: ...
    @overload
    def edge(
        self,
        source: Sources[Sequence[T]],
        target: Targets[T],
        *,
        each: Literal[True],
        when: When[Sequence[T]] = None,
        times: int | None = None,
        budget: Budget | None = None,
    ) -> None: ...
    @overload
    def edge(
        self,
        source: Sources[T],
        target: Targets[U],
        *,
        each: Callable[[T], Sequence[U]],
        when: When[T] = None,
        times: int | None = None,
        budget: Budget | None = None,
    ) -> None: ...
    @overload
    def edge(
        self,
        source: Sources[T],
        target: Target[U],
        *,
        join: Reducer[T, U],
        when: When[T] = None,
        times: int | None = None,
    ) -> None: ...
    @overload
    def edge(
        self,
        source: Sources[S],
        target: Targets[T],
        *,
        send: Source[T],
        when: When[S] = None,
        times: int | None = None,
        budget: Budget | None = None,
    ) -> None: ...
    @overload
    def edge(
        self,
        source: Sources[S],
        target: Targets[T],
        *,
        send: Source[Sequence[T]],
        each: Literal[True],
        when: When[S] = None,
        times: int | None = None,
        budget: Budget | None = None,
    ) -> None: ...
    @overload
    def edge(
        self,
        source: Sources[S],
        target: Target[U],
        *,
        send: Source[T],
        join: Reducer[T, U],
        when: When[S] = None,
        times: int | None = None,
    ) -> None: ...
    def edge(
        self,
        source: Any,
        target: Any,
        *,
        when: Callable[[Any], bool] | None = None,
        each: bool | Callable[[Any], Sequence[Any]] = False,
        join: Reducer[Any, Any] | None = None,
        times: int | None = None,
        send: Any = None,
        budget: Budget | None = None,
    ) -> None:
        """Connect `source` to `target`, after the edges it already has: the first that holds is taken.

        when: the edge holds only if this is true of the source's output.
        each: fork, one branch an item of the value (True), or of what the function makes of it.
        join: end the branch here and close the innermost fork: the target gets the reduced list, once.
        times: one branch takes the edge at most so often.
        send: pass on this node's latest output instead of the source's.
        budget: caps each branch of a fork, up to the join; `Budget(share="equal")` splits what is left among them.

        Several targets fork, one branch each; several sources get an edge each. Raises `DefinitionError` for
        anything that is not a node, and `validate` tells the rest.
        """
        joined = None if join is None else join if isinstance(join, Join) else Join(join)
        for name, function in (("when", when), ("each", each), ("join", joined and joined.reduce)):
            _check_function(name, function)
        if times is not None and not isinstance(times, int):
            raise DefinitionError(f"edge(times={times!r}): say how often as a whole number")
        sent = None if send is None else as_node(send)
        for one in _nodes(source):
            self._edges.append(Edge(one, tuple(_nodes(target)), when, each, joined, times, sent, budget))
        self._routes = None

    def chain(self, *nodes: Any) -> None:
        """Connect nodes one after another: `chain(a, b, c)` is `edge(a, b)` and `edge(b, c)`."""
        for source, target in pairwise(nodes):
            self.edge(source, target)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Return the edges in the order they are tried, handoffs of agents in front of their others."""
        return self._seen.edges

    @property
    def nodes(self) -> tuple[Node[Any, Any], ...]:
        """Return the nodes in the order edges first named them, without START and END."""
        return self._seen.nodes

    @property
    def parts(self) -> tuple[Node[Any, Any], ...]:  # type: ignore[override]
        return self._seen.parts

    @property
    def notable_parts(self) -> tuple[Node[Any, Any], ...]:
        return self._seen.notable

    @property
    def forks(self) -> Sequence[str]:  # type: ignore[override]
        return self._seen.forks

    @property
    def branch_budgets(self) -> Mapping[Node[Any, Any], Sequence[Budget]]:
        """Return the budgets of edges that fork into a node, for the few nodes that have any."""
        return self._seen.budgets

    @property
    def _seen(self) -> _Known:
        if self._known.count != len(self._edges):
            self._known = _Known(self._edges, self.last)
        return self._known

    def validate(self) -> None:
        """Raise `GraphError` listing every problem (rules V1-V4, types that do not fit), here and in sub-graphs."""
        found: list[str] = []
        for graph, around in walk(self, Graph._graphs):
            if wrong := graph._problems(around):  # noqa: SLF001
                path = "".join(f"{g.name}: " for g in around if g is not self)
                found += [path + problem for problem in wrong]
        if found:
            raise GraphError(self.name, found)

    def _graphs(self) -> Sequence[Graph[Any, Any]]:
        return [node for node in map(unguarded, self.notable_parts) if isinstance(node, Graph)]

    def _problems(self, around: Container[Graph[Any, Any]]) -> list[str]:
        edges, unknown = with_handoffs(self._edges)
        found = [*unknown, *problems(edges, self.input, self.output)]
        inside = [g.name for g in self._graphs() if g in around]
        return found + [f"{name} contains itself; write the recursion as code with ctx.run" for name in inside]

    def to_networkx(self) -> networkx.MultiDiGraph[Node[Any, Any]]:
        """Return the graph for networkx: the nodes as they are, each edge with `edge=` its `Edge`."""
        return to_networkx(self.edges)

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart; sub-graphs are drawn as subroutines."""
        return mermaid(self.edges)

    def bounds(self, input: In, budget: Budget | None = None, **assumed: Unpack[Assumptions]) -> Bounds:
        """Return what a run on `input` would take at least and at most, in each dimension, without running anything.

        The least is that of a run that succeeds; it counts the words of prompts that are known, and of answers
        nothing. The greatest is made of `times`, `max_turns`, `max_tokens`, the models' windows and prices, and the
        limits of nodes and of `budget`. Raises `GraphError`, and `DefinitionError` for `widths` that are no numbers or
        of nodes no `each` fork leads to.
        """
        return foresee(self, input, budget, **assumed)

    def interval(self, outlook: Outlook) -> Interval:
        return routes_interval(self.compile(), outlook) + wrapping_interval(self.last, outlook)

    def invoke(self, ctx: Context, value: In, /) -> Coroutine[Any, Any, Out]:
        """Return the drive of the graph's plan; a graph has no layer of its own around it."""
        return ctx.drive(GraphPlan(ctx.path, self.compile(), START, END, value))

    async def wrap_up(self, ctx: Context, value: Any, partial: Partial, /) -> Out:
        if self.last is None:
            return await super().wrap_up(ctx, value, partial)
        clash = any(n.name == self.last.name for n in self.nodes)  # else two steps would share a path
        result: Out = await ctx.run(self.last, partial, key="wrap_up" if clash else None)
        return result

    def compile(self) -> dict[Node[Any, Any], list[Route]]:
        """Return the plan's routes, by source; validates first and raises `GraphError`."""
        if self._routes is None:
            self.validate()
            self._route()
        return self._routes or {}

    def _route(self) -> None:
        """Compile with the sub-graphs, which are valid if this is: each is validated once, however deep it lies."""
        for graph, _ in walk(self, Graph._graphs):
            graph._routes = graph._routes or routes(graph.edges)  # noqa: SLF001


class _Known:
    """Hold what a graph's edges say, put together once: every run asks, and a thousand nodes should not be felt."""

    __slots__ = ("budgets", "count", "edges", "forks", "nodes", "notable", "parts")

    def __init__(self, edges: Sequence[Edge], last: Node[Any, Any] | None) -> None:
        self.count = len(edges)
        self.edges = tuple(with_handoffs(edges)[0])
        named = (n for e in edges for n in (e.source, *e.targets))
        self.nodes = tuple(n for n in dict.fromkeys(named) if not isinstance(n, Marker))
        self.parts = self.nodes if last is None else (*self.nodes, last)
        self.notable = tuple(n for n in self.parts if not isinstance(n, FunctionNode) or n.needs is not None)
        self.forks = tuple(t.name for e in edges if e.each is not False for t in e.targets)
        self.budgets: dict[Node[Any, Any], list[Budget]] = {}
        for edge in edges:
            if edge.budget is not None:
                for target in edge.targets:
                    self.budgets.setdefault(target, []).append(edge.budget)


def _check_function(name: str, function: Any) -> None:
    """Raise `DefinitionError` unless a plan can call this at once: it decides, it never waits."""
    if function is None or (name == "each" and isinstance(function, bool)):
        return
    if not callable(function):
        raise DefinitionError(f"edge({name}={function!r}): pass a function")
    if inspect.iscoroutinefunction(function):
        label = getattr(function, "__name__", name)
        raise DefinitionError(f"edge({name}={label}): an edge cannot await; do the work in a node and test its output")


def _nodes(value: Any) -> list[Node[Any, Any]]:
    if isinstance(value, (list, tuple)):
        return [as_node(v) for v in cast("Iterable[Any]", value)]
    return [as_node(value)]
