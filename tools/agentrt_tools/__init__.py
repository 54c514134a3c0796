"""Ready-made tools for agents."""

from typing import TYPE_CHECKING, Any

from agentrt_tools.ask_human import AskHuman, ask_human
from agentrt_tools.ask_model import ask_model
from agentrt_tools.calculator import calculator
from agentrt_tools.excerpt import excerpt
from agentrt_tools.fetch import fetch, fetcher
from agentrt_tools.files import files
from agentrt_tools.notes import notes
from agentrt_tools.python import Python, python
from agentrt_tools.shell import shell
from agentrt_tools.sql import sql
from agentrt_tools.web_search import Brave, SearchProvider, SearchResult, SearXNG, web_search

if TYPE_CHECKING:
    from agentrt_tools.mcp import list_mcp_tools, mcp_tools

__all__ = [
    "AskHuman",
    "Brave",
    "Python",
    "SearXNG",
    "SearchProvider",
    "SearchResult",
    "ask_human",
    "ask_model",
    "calculator",
    "excerpt",
    "fetch",
    "fetcher",
    "files",
    "list_mcp_tools",
    "mcp_tools",
    "notes",
    "python",
    "shell",
    "sql",
    "web_search",
]


def __getattr__(name: str) -> Any:
    """Import what takes a third of the package's time when it is asked for."""
    if name in ("list_mcp_tools", "mcp_tools"):
        from agentrt_tools import mcp

        return getattr(mcp, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
