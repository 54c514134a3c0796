"""Ready-made tools for agents."""

from agentrt_tools.ask_human import AskHuman, ask_human
from agentrt_tools.calculator import calculator

__all__ = ["AskHuman", "ask_human", "calculator"]
