"""The log of an MCP server: the last that it has said besides the protocol."""

from __future__ import annotations

from collections import deque
from typing import Final

from agentrt.text import shortened

_MOST_LINES: Final = 10
_LONGEST: Final = 300


class ServerLog:
    """Keep the last lines of a server's stderr, and of what on its stdout is no message; and why it was given up."""

    def __init__(self) -> None:
        self.reason = ""
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._rest = b""

    def add(self, data: bytes) -> None:
        """Take a piece of output, which may end within a line."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LONGEST:]
        for line in lines[-_MOST_LINES:]:
            self._keep(line)

    def __str__(self) -> str:
        rest = self._rest.decode(errors="replace").strip()
        return "\n".join([*self._lines, *([rest] if rest else [])])

    def _keep(self, line: bytes) -> None:
        text = "".join(c for c in line[: 4 * _LONGEST].decode(errors="replace").strip() if c.isprintable())
        if text:
            self._lines.append(shortened(text, _LONGEST))
