"""Ready-made tools for agents."""

from agentrt_tools.ask_human import AskHuman, ask_human
from agentrt_tools.calculator import calculator
from agentrt_tools.excerpt import excerpt
from agentrt_tools.files import files
from agentrt_tools.notes import notes
from agentrt_tools.shell import shell
from agentrt_tools.sql import sql

__all__ = ["AskHuman", "ask_human", "calculator", "excerpt", "files", "notes", "shell", "sql"]
