"""Model Context Protocol: the tools, resources and prompts of a server as nodes."""

from agentrt_tools.mcp.server import Server, ServerFailed, ToolFailed
from agentrt_tools.mcp.tools import McpOptions, McpTool, list_mcp_tools, mcp_tools

__all__ = ["McpOptions", "McpTool", "Server", "ServerFailed", "ToolFailed", "list_mcp_tools", "mcp_tools"]
