"""Ready-made tools for agents."""

from agentrt_tools.calculator import calculator

__all__ = ["calculator"]
