"""Permissions: which tools a run may use, and for which of their calls people are asked first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from agentrt.errors import CallDenied, DefinitionError
from agentrt.node import Effect, Node

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


class Permissions:
    """Decide which calls of tools a run may make: those of `allow`, by name, and then as `policy` says.

    A name allows the tool of that name, and those it is the family of: `files` allows `files.read`.
    Raises `DefinitionError` for what is no list of names and no function.
    """

    def __init__(self, allow: Sequence[str] | None = None, policy: Policy | None = None) -> None:
        if isinstance(allow, str) or not all(isinstance(name, str) for name in allow or ()):
            raise DefinitionError(f"allow={allow!r}: give a list of the names of tools")
        if policy is not None and not callable(policy):
            raise DefinitionError(
                f"policy={policy!r}: give a function of a ProposedCall, like approve_untrusted_writes"
            )
        self.allow = None if allow is None else tuple(allow)
        self.policy = policy

    def allows(self, tool: str) -> bool:
        """Say whether a tool of this name may be used at all."""
        return self.allow is None or any(tool == name or tool.startswith(f"{name}.") for name in self.allow)

    def must_be_approved(self, call: ProposedCall) -> bool:
        """Say whether people have to approve a call; raises `CallDenied` for one that may not be made."""
        if not self.allows(call.tool):
            raise CallDenied(f"{call.tool} is not among the tools that this run allows: {', '.join(self.allow or ())}")
        verdict: Verdict = "allow" if self.policy is None else self.policy(call)
        if verdict not in get_args(Verdict):
            known = ", ".join(get_args(Verdict))
            raise DefinitionError(f"policy {policy_name(self.policy)} returned {verdict!r}: it may return {known}")
        if verdict == "deny":
            raise CallDenied(f"the policy {policy_name(self.policy)} denies this call of {call.tool}")
        return verdict == "approve"


def policy_name(policy: Policy | None) -> str:
    """Return what a record calls a policy: by it the policy is found again when the run goes on."""
    name = str(getattr(policy, "__qualname__", type(policy).__qualname__))
    return name if _READY.get(name) is policy else f"{getattr(policy, '__module__', '')}:{name}"


def policy_named(name: str) -> Policy:
    """Return the policy of a name: a ready one, or `MODULE:FUNCTION` of a module that is loaded.

    Raises `DefinitionError` for one that is not there.
    """
    if name in _READY:
        return _READY[name]
    module, _, function = name.partition(":")
    policy: object = sys.modules.get(module)
    for part in function.split("."):
        policy = getattr(policy, part, None)
    if not callable(policy):
        ready = ", ".join(_READY)
        raise DefinitionError(f"no policy {name!r}: name a function as MODULE:FUNCTION, or one of {ready}")
    return cast("Policy", policy)


def proposed(node: Node[Any, Any], path: str, arguments: Mapping[str, Any], untrusted: frozenset[str]) -> ProposedCall:
    """Return a call as a policy sees it; what says of itself nothing else is taken to do harm."""
    effect = node.effect or "unsafe"
    return ProposedCall(path=path, tool=node.name, arguments=arguments, effect=effect, untrusted=untrusted)
