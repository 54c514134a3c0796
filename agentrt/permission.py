"""Permissions: which tools a run may use, and for which of their calls people are asked first."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from agentrt.budget import STEPS
from agentrt.errors import CallDenied, DefinitionError
from agentrt.interval import Outlook
from agentrt.messages import tool_name
from agentrt.node import Effect, Node
from agentrt.parts import nodes_below

Verdict: TypeAlias = Literal["allow", "approve", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedCall:
    """Hold what a policy may know of a call: `untrusted` names the nodes whose results its caller has met."""

    path: str
    tool: str
    arguments: Mapping[str, Any]
    effect: Effect
    untrusted: frozenset[str]

    @property
    def writes(self) -> bool:
        """Say whether the call may change anything."""
        return self.effect != "read"


Policy: TypeAlias = Callable[[ProposedCall], Verdict]
"""What decides on each call of a tool: a plain function. It may raise `CallDenied` with a reason instead of `deny`."""


def approve_untrusted_writes(call: ProposedCall) -> Verdict:
    """Have people approve what a step does to the world once it has met what comes from outside."""
    return "approve" if call.writes and call.untrusted else "allow"


def approve_writes(call: ProposedCall) -> Verdict:
    """Have people approve all that is done to the world."""
    return "approve" if call.writes else "allow"


_READY: Final[Mapping[str, Policy]] = {p.__name__: p for p in (approve_untrusted_writes, approve_writes)}


_NAMELESS: Final = " (which no name leads to)"
_logger = logging.getLogger("agentrt")


class Permissions:
    """Decide which calls of tools a run may make: those of `allow`, by name, and then as `policy` says.

    A name allows the tool of that name, as nodes have it or as models are told it, and those it is the family of:
    `files` allows `files.read`. Raises `DefinitionError` for what is no list of names and no function.
    """

    def __init__(self, allow: Sequence[str] | None = None, policy: Policy | None = None) -> None:
        if allow is not None and not _is_names(allow):
            raise DefinitionError(f"allow={allow!r}: give a list of the names of tools")
        if policy is not None and not callable(policy):
            raise DefinitionError(
                f"policy={policy!r}: give a function of a ProposedCall, like approve_untrusted_writes"
            )
        self.allow = None if allow is None else tuple(allow)
        self.policy = policy

    def allows(self, tool: str) -> bool:
        """Say whether a tool of this name may be used at all."""
        if self.allow is None:
            return True
        return any(name in (tool, tool_name(tool)) or tool.startswith(f"{name}.") for name in self.allow)

    def denial(self, tool: str) -> CallDenied:
        """Return what to raise for a tool that may not be used at all."""
        allowed = ", ".join(self.allow or ()) or "none"
        return CallDenied(f"{tool} is not among the tools that this run allows: {allowed}")

    def must_be_approved(self, call: ProposedCall) -> bool:
        """Say whether people have to approve a call; raises `CallDenied` for one that may not be made."""
        verdict = "allow" if self.policy is None else _verdict(self.policy, call)
        if verdict not in get_args(Verdict):
            known = ", ".join(get_args(Verdict))
            raise DefinitionError(f"policy {policy_name(self.policy)} returned {verdict!r}: it may return {known}")
        if verdict == "deny":
            raise CallDenied(f"the policy {policy_name(self.policy)} denies this call of {call.tool}")
        return verdict == "approve"


def _is_names(allow: object) -> bool:
    is_some = isinstance(allow, Collection) and not isinstance(allow, str)
    return is_some and all(isinstance(name, str) for name in cast("Collection[object]", allow))


def _verdict(policy: Policy, call: ProposedCall) -> object:
    """Ask a policy; an error of its own is no verdict, and nothing that a model could mend."""
    try:
        return policy(call)
    except CallDenied:
        raise
    except Exception as error:
        raise DefinitionError(f"policy {policy_name(policy)} failed on {call.tool}: {error!r}") from error


def policy_name(policy: Policy | None) -> str:
    """Return what a record calls a policy: by it the very same is found again when the run goes on, or none is."""
    name = str(getattr(policy, "__qualname__", f"{type(policy).__qualname__}()"))
    if _READY.get(name) is policy:
        return name
    module = str(getattr(policy, "__module__", ""))
    return f"{module}:{name}" if _found(sys.modules.get(module), name) is policy else f"{module}:{name}{_NAMELESS}"


def policy_named(name: str) -> Policy:
    """Return the policy of a name: a ready one, or `MODULE:FUNCTION`, whose module is imported.

    Raises `DefinitionError` for one that is not there.
    """
    if name in _READY:
        return _READY[name]
    if name.endswith(_NAMELESS):
        raise DefinitionError(f"the run began under the policy {name}: give it again, resume(…, policy=…)")
    module, colon, function = name.partition(":")
    why = ""
    try:
        policy = _found(import_module(module), function) if colon else None
    except Exception as error:  # noqa: BLE001 - told: a module may fail in any way
        policy, why = None, f" ({type(error).__name__}: {error})"
    if not callable(policy):
        ready = ", ".join(_READY)
        raise DefinitionError(
            f"no policy {name!r}{why}: name a function of a module as MODULE:FUNCTION, or one of {ready}; in Python "
            "give the function itself, run(…, policy=…) or resume(…, policy=…)"
        )
    return cast("Policy", policy)


def _found(module: object, name: str) -> object:
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def check_allow(allow: Sequence[str] | None, *nodes: Node[Any, Any]) -> None:
    """Raise `DefinitionError` for names that no tool has, of these nodes and all that they are made of.

    Where code among them may call nodes that are not its parts, the names may be right: there the logger warns.
    """
    names = Permissions(allow).allow or ()
    below = nodes_below(nodes) if names else set()
    tools = sorted({node.name for node in below if node.tool_effect is not None})
    unknown = [name for name in names if not any(Permissions([name]).allows(tool) for tool in tools)]
    if not unknown:
        return
    label = ", ".join(node.name for node in nodes)
    told = f"allow={unknown}: {label} has no such tool (there are {', '.join(tools) or 'none'})"
    if not any(_calls_others(node) for node in below):
        raise DefinitionError(told)
    _logger.warning("%s, unless its code calls one", told)


def _calls_others(node: Node[Any, Any]) -> bool:
    """Say whether a node has no parts, and yet may call others: the bounds of its steps tell."""
    if node.parts or node.kind in ("agent", "graph"):
        return False
    interval = node.interval(Outlook(path=node.name, models=lambda _: None))
    return math.isinf(interval.most[STEPS].value)


def proposed(node: Node[Any, Any], path: str, arguments: Mapping[str, Any], untrusted: frozenset[str]) -> ProposedCall:
    """Return a call as a policy sees it; what says of itself nothing else is taken to do harm."""
    effect = node.effect or "unsafe"
    return ProposedCall(path=path, tool=node.name, arguments=arguments, effect=effect, untrusted=untrusted)
