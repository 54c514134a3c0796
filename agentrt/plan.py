"""Plans: pure state machines that say what runs next. An outcome goes in, activations that are ready come out.

`GraphPlan` follows the routes of a graph by rules G1-G11 of docs/design.md; `BatchPlan` runs calls side by side. A
plan never waits, calls no clock and starts nothing: the scheduler drives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import msgspec

from agentrt.budget import Budget
from agentrt.errors import AgentrtError, DeadEnd
from agentrt.join import Join
from agentrt.ledger import Account
from agentrt.node import Node
from agentrt.value import Value

NOTHING: Final[frozenset[str]] = frozenset()
MOST_LINKS = 128
"""How many predecessors an activation names: what OpenTelemetry keeps of a span's links by default."""


@final
class Failure(Value):
    """Hold the error of a step, with the path and input of the step that raised it first; no output is one."""

    path: str
    input: object
    error: Exception


@final
class Parked(BaseException):
    """Be the outcome of a step that waits for people, and the way out of the code around it.

    It is no `Exception`, so that code which handles errors lets it pass. `until` is when the question at `path` is
    answered by itself.
    """

    def __init__(self, path: str, until: float | None = None) -> None:
        self.path = path
        self.until = until
        super().__init__(f"{path} waits for people")


class Activation(msgspec.Struct, eq=False):
    """Hold one visit of a branch to a node: what to run, on what, under which path.

    `given_up` is set by the driver once the plan is no longer interested in its outcome. `given` names the untrusted
    nodes whose results its branch has met before, `read`, once it has ended, those that its own outcome comes from.
    """

    node: Node[Any, Any]
    value: object
    path: str
    branch: Branch | None = None
    after: tuple[str, ...] = ()
    join: tuple[int, int] | None = None
    given_up: bool = False
    given: frozenset[str] = NOTHING
    read: frozenset[str] = NOTHING

    def __repr__(self) -> str:
        return f"<Activation {self.path}>"


class Plan(ABC):
    """Decide what runs next.

    The driver calls `start` once and then one of `succeeded`, `failed` and `refused` for every activation it was
    given, except those that appear in `cancelling`, which run, wait for people or are about to start, and whose late
    outcomes are ignored. It stops when `finished`.
    `exhausted` is set when a budget around the plan refuses: then nothing more becomes ready, what runs may end, and
    errors wait for their step to be run again under a higher limit (rules E2, E5).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.finished = False
        self.output: Any = None
        self.failure: Failure | None = None
        self.exhausted: Failure | None = None
        self.parked: Parked | None = None
        self.cancelling: list[Activation] = []
        self.died: list[tuple[str, Exception | None]] = []
        self.sharing: list[Fork] = []
        self.seen = NOTHING

    @property
    def read(self) -> frozenset[str]:
        """Name the untrusted nodes that what the plan came to comes from; of one that did not finish, all it met."""
        return self.seen

    def meet(self, activation: Activation) -> None:
        """Note which untrusted nodes an outcome comes from, before the plan is told of it."""
        self.seen |= activation.read

    @abstractmethod
    def start(self) -> Sequence[Activation]:
        """Return what is ready at first."""

    @abstractmethod
    def succeeded(self, activation: Activation, value: object) -> Sequence[Activation]:
        """Take an activation's output and return what has become ready."""

    @abstractmethod
    def failed(self, activation: Activation, failure: Failure) -> Sequence[Activation]:
        """Take an activation's error and return what has become ready."""

    @abstractmethod
    def refused(self, activation: Activation, failure: Failure) -> None:
        """Take a denial by a budget around the plan: nothing more becomes ready (rule E2)."""

    @abstractmethod
    def waits(self, activation: Activation, parked: Parked) -> Sequence[Activation]:
        """Take note that an activation waits for people, and return what has become ready; the rest goes on."""

    @property
    def waiting(self) -> Sequence[Activation]:
        """Return what the plan has not yet given out."""
        return ()


class BatchPlan(Plan):
    """Run activations side by side, at most `limit` at once; the output is the list of theirs in order.

    With `keep_errors` a failed activation contributes its `Failure`; otherwise the first error cancels the others.
    """

    def __init__(
        self, path: str, activations: Sequence[Activation], *, limit: int | None = None, keep_errors: bool = False
    ) -> None:
        super().__init__(path)
        self._index = {a: i for i, a in enumerate(activations)}
        self._waiting = iter(activations)
        self._limit = limit or len(activations)
        self._keep_errors = keep_errors
        self._values: list[Any] = [None] * len(activations)
        self._running: dict[Activation, None] = {}
        self._parked: list[Activation] = []
        self._left = len(activations)

    def start(self) -> Sequence[Activation]:
        self._finish_if_done()
        return self._more(self._limit)

    def succeeded(self, activation: Activation, value: object) -> Sequence[Activation]:
        if activation not in self._running:
            return ()
        del self._running[activation]
        self._values[self._index[activation]] = value
        self._left -= 1
        self._finish_if_done()
        return self._more(1)

    def failed(self, activation: Activation, failure: Failure) -> Sequence[Activation]:
        if activation not in self._running:
            return ()
        if self._keep_errors:
            return self.succeeded(activation, failure)
        del self._running[activation]
        if self.exhausted:
            return ()
        self.failure = failure
        self.finished = True
        self.cancelling += (*self._running, *self._parked)
        self._running.clear()
        return ()

    def refused(self, activation: Activation, failure: Failure) -> None:
        if activation in self._running:
            del self._running[activation]
            self.exhausted = self.exhausted or failure

    def waits(self, activation: Activation, parked: Parked) -> Sequence[Activation]:
        if activation not in self._running:
            return ()
        del self._running[activation]
        self._parked.append(activation)
        self.parked = self.parked or parked
        return self._more(1)

    @property
    def waiting(self) -> Sequence[Activation]:
        return list(self._waiting)

    def _more(self, n: int) -> Sequence[Activation]:
        if self.exhausted or self.finished:
            return ()
        ready = [a for _, a in zip(range(n), self._waiting, strict=False)]
        self._running.update(dict.fromkeys(ready))
        return ready

    def _finish_if_done(self) -> None:
        if self._left == 0:
            self.output = self._values
            self.finished = True


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Hold one edge, as the plan needs it; `closer` is the join route that closes the fork this one opens."""

    targets: tuple[Node[Any, Any], ...]
    when: Callable[[Any], bool] | None = None
    each: Callable[[Any], Any] | bool = False
    join: Join[Any, Any] | None = None
    times: int | None = None
    send: Node[Any, Any] | None = None
    closer: Route | None = None
    budget: Budget | None = None
    is_plain: bool = field(init=False)
    """It leads to one node, and neither forks nor joins."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_plain", self.join is None and self.each is False and len(self.targets) == 1)

    @property
    def target(self) -> Node[Any, Any]:
        """Return the one target of a route that does not fork into several."""
        return self.targets[0]


class Branch:
    """Hold one thread of control: at one activation, suspended in one fork, or ended (rule G1).

    `account` is what everything on the branch spends from, where its fork has a budget; the driver opens it.
    """

    __slots__ = (
        "account",
        "current",
        "ended",
        "fork",
        "index",
        "inner",
        "label",
        "last",
        "latest",
        "memory",
        "parent",
        "read",
        "rounds",
        "routes",
        "taken",
        "visits",
    )

    def __init__(self, label: str, fork: Fork | None = None, index: int = 0) -> None:
        self.label = label
        self.fork = fork
        self.index = index
        self.parent: Branch | None = fork.branch if fork else None
        self.account: Account | None = fork.branch.account if fork else None
        self.read: frozenset[str] = fork.branch.read if fork else NOTHING
        self.current: Activation | None = None
        self.inner: Fork | None = None
        self.ended = False
        self.last = ""
        # Most branches end after one step: what they may never need is made when it is written.
        self.latest: dict[Node[Any, Any], Any] | None = None
        self.memory: dict[Node[Any, Any], Any] | None = None
        self.visits: dict[Node[Any, Any], int] | None = None
        self.taken: dict[Route, int] | None = None
        self.rounds: dict[Route, int] | None = None
        self.routes: Mapping[Node[Any, Any], Sequence[Route]]  # set on the branch a run starts with

    def lookup(self, node: Node[Any, Any]) -> Any:
        """Return the latest output of a node on this branch or an enclosing one; raises `LookupError` (rule G11)."""
        branch: Branch | None = self
        while branch is not None:
            if branch.latest is not None and node in branch.latest:
                return branch.latest[node]
            branch = branch.parent
        raise LookupError(f"{node.name!r} has no output on this branch yet")

    def targets(self, node: Node[Any, Any]) -> Sequence[Node[Any, Any]]:
        """Return the nodes that routes lead to from this one."""
        branch = self
        while branch.parent is not None:
            branch = branch.parent
        return [t for route in branch.routes.get(node, ()) for t in route.targets]


class Fork:
    """Hold the branches that one activation forked into, and the values that arrived at the join."""

    __slots__ = ("branch", "branches", "budget", "closer", "left", "source", "values")

    def __init__(self, branch: Branch, closer: Route, source: str, budget: Budget | None = None) -> None:
        self.branch = branch
        self.closer = closer
        self.budget = budget
        self.source = source
        self.branches: list[Branch] = []
        self.left = 0
        self.values: dict[int, Any] = {}


class GraphPlan(Plan):
    """Follow a graph's routes from START to END."""

    def __init__(
        self,
        path: str,
        routes: Mapping[Node[Any, Any], Sequence[Route]],
        start: Node[Any, Any],
        end: Node[Any, Any],
        value: object,
    ) -> None:
        super().__init__(path)
        self._routes = routes
        self._start = start
        self._end = end
        self._value = value
        self.dropped: list[Failure] = []
        self._ready: list[Activation] = []
        self._root = Branch("")

    @property
    def read(self) -> frozenset[str]:
        return self._root.read if self.finished and self.failure is None else self.seen

    def meet(self, activation: Activation) -> None:
        """Mark the branch, too: whatever comes later on it may hold what they returned."""
        super().meet(activation)
        if activation.branch is not None:
            activation.branch.read |= activation.read

    def start(self) -> Sequence[Activation]:
        self._ready = []
        root = self._root
        root.latest = {self._start: self._value}
        root.routes = self._routes
        self._leave(root, self._start, self._value, self.path)
        return self._ready

    def succeeded(self, activation: Activation, value: object) -> Sequence[Activation]:
        branch = activation.branch
        assert branch is not None
        if branch.ended:
            return ()
        self._ready = []
        branch.current = None
        branch.last = activation.path
        if branch.latest is None:
            branch.latest = {activation.node: value}
        else:
            branch.latest[activation.node] = value
        if self.exhausted is None:
            self._leave(branch, activation.node, value, activation.path)
        return self._ready

    def failed(self, activation: Activation, failure: Failure) -> Sequence[Activation]:
        branch = activation.branch
        assert branch is not None
        if branch.ended:
            return ()
        self._ready = []
        branch.current = None
        branch.last = activation.path
        if self.exhausted is None:
            self._fail(branch, failure)
        return self._ready

    def refused(self, activation: Activation, failure: Failure) -> None:
        branch = activation.branch
        assert branch is not None
        if not branch.ended:
            branch.current = None
            self.exhausted = self.exhausted or failure

    def waits(self, activation: Activation, parked: Parked) -> Sequence[Activation]:
        branch = activation.branch
        assert branch is not None
        if not branch.ended:
            self.parked = self.parked or parked
        return ()

    def _leave(self, branch: Branch, node: Node[Any, Any], value: Any, path: str) -> None:
        """Take the first outgoing route that holds (rule G2)."""
        try:
            route = self._choose(branch, node, value)
            payload = value if route is None or route.send is None else branch.lookup(route.send)
            items = route.each(payload) if route is not None and callable(route.each) else payload
        except Exception as error:  # noqa: BLE001 - user code decides edges; its errors are the step's
            self._fail(branch, Failure(path, value, error))
            return
        if route is None:
            self._die(branch, path, value)
        elif route.is_plain:
            self._follow(branch, route.targets[0], payload, (path,) if node is not self._start else ())
        elif route.join is not None:
            self._arrive(branch, route, payload)
        elif route.each is not False:
            self._fork_each(branch, route, items, path)
        else:
            self._fork(branch, route, [(target, payload) for target in route.targets], path)

    def _follow(self, branch: Branch, target: Node[Any, Any], payload: Any, after: tuple[str, ...]) -> None:
        if target is self._end:
            self.output = payload
            self.finished = True
        else:
            self._activate(branch, target, payload, after)

    def _choose(self, branch: Branch, node: Node[Any, Any], value: Any) -> Route | None:
        for route in self._routes[node]:
            if route.times is not None:
                taken = (branch.taken or {}).get(route, 0)
                if taken >= route.times or (route.when is not None and not route.when(value)):
                    continue
                branch.taken = {**(branch.taken or {}), route: taken + 1}
                return route
            if route.when is None or route.when(value):
                return route
        return None

    def _activate(
        self,
        branch: Branch,
        node: Node[Any, Any],
        value: object,
        after: tuple[str, ...],
        join: tuple[int, int] | None = None,
    ) -> None:
        visit = ""
        if branch.latest is not None and node in branch.latest:
            branch.visits = branch.visits or {}
            branch.visits[node] = n = branch.visits.get(node, 1) + 1
            visit = f"#{n}"
        path = f"{self.path}/{node.name}{branch.label}{visit}"
        activation = Activation(node, value, path, branch, after, join, given=branch.read)
        branch.current = activation
        self._ready.append(activation)

    def _fork_each(self, branch: Branch, route: Route, items: Any, path: str) -> None:
        if not isinstance(items, (list, tuple)):
            message = f"each= needs a list or a tuple to fork over, not {type(items).__name__}"
            self._fail(branch, Failure(path, items, AgentrtError(message)))
            return
        self._fork(branch, route, [(target, item) for item in items for target in route.targets], path)

    def _fork(self, branch: Branch, route: Route, starts: list[tuple[Node[Any, Any], Any]], path: str) -> None:
        closer = route.closer
        assert closer is not None, "validation gives every fork its closer"
        branch.rounds = branch.rounds or {}
        branch.rounds[closer] = turn = branch.rounds.get(closer, 0) + 1
        prefix = f"{branch.label}#{turn}[" if turn > 1 else f"{branch.label}["
        fork = branch.inner = Fork(branch, closer, path, route.budget)
        if route.budget is not None:
            self.sharing.append(fork)
        fork.left = len(starts)
        after = (path,)
        for i, (target, value) in enumerate(starts):
            child = Branch(f"{prefix}{i}]", fork, i)
            fork.branches.append(child)
            self._activate(child, target, value, after)
        if not starts:
            self._close(fork)

    def _arrive(self, branch: Branch, route: Route, value: Any) -> None:
        fork = branch.fork
        assert fork is not None, "validation lets no join stand outside a fork"
        assert route.join is not None
        branch.ended = True
        branch.latest = branch.memory = None
        if branch.read:
            fork.branch.read |= branch.read
        fork.left -= 1
        fork.values[branch.index] = value
        if route.join.first is not None and len(fork.values) >= route.join.first:
            self._cancel(fork)
        if fork.left == 0:
            self._close(fork)

    def _die(self, branch: Branch, path: str, value: object, error: Exception | None = None) -> None:
        fork = branch.fork
        if fork is None:
            reason = DeadEnd(f"no edge out of this step holds for its output; add an edge without `when` to {path!r}")
            self._fail(branch, Failure(path, value, reason))
            return
        branch.ended = True
        self.died.append((path, error))
        fork.left -= 1
        if fork.left == 0:
            self._close(fork)

    def _close(self, fork: Fork) -> None:
        """Start the join's target once, in the branch that waited (rule G7)."""
        branch, join = fork.branch, fork.closer.join
        assert join is not None
        branch.inner = None
        values = [fork.values[i] for i in sorted(fork.values)]
        target = fork.closer.target
        try:
            value = join.reduce(values)
        except Exception as error:  # noqa: BLE001 - a reducer is user code; the step it feeds could not start
            self._fail(branch, Failure(f"{self.path}/{target.name}{branch.label}", values, error))
            return
        arrived = [fork.branches[i].last for i in sorted(fork.values)[:MOST_LINKS]]
        join_size = (len(fork.values), len(fork.branches))
        if target is self._end:
            self.output = value
            self.finished = True
        else:
            self._activate(branch, target, value, tuple(arrived) or (fork.source,), join_size)

    def _fail(self, branch: Branch, failure: Failure) -> None:
        """Let an error travel outward, cancelling the forks it leaves, until a join drops it (rule G9)."""
        while (fork := branch.fork) is not None:
            if fork.closer.join is not None and fork.closer.join.errors == "drop":
                self.dropped.append(failure)
                self._die(branch, branch.last or failure.path, failure.input, failure.error)
                return
            branch.ended = True
            self._cancel(fork)
            branch = fork.branch
            branch.inner = None
        branch.ended = True
        self.failure = failure
        self.finished = True

    def _cancel(self, fork: Fork) -> None:
        """End every open branch of a fork, and of the forks inside, and name what runs there to be cancelled."""
        for branch in fork.branches:
            if branch.ended:
                continue
            branch.ended = True
            if branch.current is not None:
                self.cancelling.append(branch.current)
            if branch.inner is not None:
                self._cancel(branch.inner)
        fork.left = 0
