"""How an MCP server is reached."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import urlsplit

from agentrt import AgentrtError, DefinitionError


class ServerFailed(AgentrtError):
    """Say which MCP server could not be reached, did not answer or broke off, and what it said last."""


class ToolFailed(AgentrtError):
    """Say, in the words of an MCP server, why a call failed."""


@dataclass(frozen=True, slots=True)
class Server:
    """Say how an MCP server is reached: by the command that starts it, or at its URL.

    `timeout`, in seconds, holds for connecting, for listing and for each call. What may be secret is not shown.
    """

    command: tuple[str, ...] = field(default=(), repr=False)
    url: str = field(default="", repr=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = 30.0
    label: str = ""
    """What errors call it."""

    @classmethod
    def of(
        cls,
        server: str | Sequence[str],
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Server:
        """Read a command line, or a URL; raises `DefinitionError` for what is neither."""
        if timeout <= 0:
            raise DefinitionError(f"timeout={timeout!r}: a time-out is a number of seconds above 0")
        variables, fields = tuple(sorted((env or {}).items())), tuple(sorted((headers or {}).items()))
        if isinstance(server, str) and server.lower().startswith(("http://", "https://")):
            _refuse(env, "env", "a command", server)
            return cls(url=server, headers=fields, timeout=timeout, label=name or _place(server))
        command = tuple(_words(server) if isinstance(server, str) else map(str, server))
        if not command or not command[0]:
            raise DefinitionError("an MCP server is a command line that starts it, or an http(s) URL: got nothing")
        _refuse(headers, "headers", "a URL", command[0])
        return cls(command=command, env=variables, timeout=timeout, label=name or PurePath(command[0]).name)


def _refuse(given: object, option: str, what: str, server: str) -> None:
    if given:
        raise DefinitionError(f"{option}= is for an MCP server that is {what}, not for {server}")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise DefinitionError(f"the command line of an MCP server cannot be read: {error}: {line!r}") from error


def _place(url: str) -> str:
    """Return a URL without what may be secret: user, query and fragment."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError as error:
        raise DefinitionError(f"the URL of an MCP server cannot be read: {error}") from error
    if not parts.hostname:
        raise DefinitionError("the URL of an MCP server names no host")
    return f"{parts.scheme}://{host}{parts.path}"
