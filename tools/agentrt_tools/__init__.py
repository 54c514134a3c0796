"""Ready-made tools for agents."""

from agentrt_tools.ask_human import AskHuman, ask_human
from agentrt_tools.calculator import calculator
from agentrt_tools.excerpt import excerpt
from agentrt_tools.fetch import fetch, fetcher
from agentrt_tools.python import Python, python

__all__ = ["AskHuman", "Python", "ask_human", "calculator", "excerpt", "fetch", "fetcher", "python"]
