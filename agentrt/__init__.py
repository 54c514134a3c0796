"""agentrt: a runtime for agents, swarms and tool use, under budgets that hold."""

from typing import TYPE_CHECKING, Any

from agentrt.agent import Agent
from agentrt.attempts import Fallback, Retried
from agentrt.bounds import Bound, Bounds
from agentrt.budget import Budget
from agentrt.cached import Cached
from agentrt.continuation import fork, replay, resume
from agentrt.edge import END, START
from agentrt.embedding import Embedder, embedder
from agentrt.errors import (
    AgentrtError,
    AuthenticationFailed,
    BudgetExceeded,
    BudgetTooSmall,
    CallDenied,
    ContextOverflow,
    DeadEnd,
    DefinitionError,
    GraphError,
    GuardrailTripped,
    IndexTaken,
    IndexUnavailable,
    InvalidArguments,
    JournalError,
    LoopDetected,
    MaxTurns,
    ModelError,
    ModelUnavailable,
    NothingArrived,
    QuestionClosed,
    RateLimited,
    ReplayMismatch,
    RequestRefused,
    RunTaken,
    StepFailed,
    StepTimeout,
    UnknownModel,
    UnknownPrice,
    Waiting,
)
from agentrt.format import Format
from agentrt.function import FunctionNode
from agentrt.graph import Graph
from agentrt.guardrail import Guarded, Guardrail, guarded
from agentrt.handoff import Handoff, Transfer, handoff
from agentrt.history import HistoryFilter, keep_last, without_tools
from agentrt.join import Join, best, collect, first, vote
from agentrt.journal import Journal, OpenQuestion, RunSummary
from agentrt.limited import Limited
from agentrt.model import Model, ModelRequest, ModelResponse, ModelSettings, Wrapper, ask
from agentrt.node import Context, Node
from agentrt.options import Observer
from agentrt.partial import Partial
from agentrt.passage import Passage
from agentrt.permission import Policy, ProposedCall, approve_untrusted_writes, approve_writes
from agentrt.priced import Priced
from agentrt.reranker import Reranker
from agentrt.result import Result, StopReason
from agentrt.retrieval import Between, Index, Query, Retriever
from agentrt.retry import Retry
from agentrt.runtime import run, run_sync, stream
from agentrt.statistics import LedgerStatistics, RunStatistics
from agentrt.stream import Stream
from agentrt.tool import Tool, tool
from agentrt.usage import FREE, Price, Usage

if TYPE_CHECKING:
    from agentrt.citation import Citation, CitedAnswer

__version__ = "0.1.0"

__all__ = [
    "END",
    "FREE",
    "START",
    "Agent",
    "AgentrtError",
    "AuthenticationFailed",
    "Between",
    "Bound",
    "Bounds",
    "Budget",
    "BudgetExceeded",
    "BudgetTooSmall",
    "Cached",
    "CallDenied",
    "Citation",
    "CitedAnswer",
    "Context",
    "ContextOverflow",
    "DeadEnd",
    "DefinitionError",
    "Embedder",
    "Fallback",
    "Format",
    "FunctionNode",
    "Graph",
    "GraphError",
    "Guarded",
    "Guardrail",
    "GuardrailTripped",
    "Handoff",
    "HistoryFilter",
    "Index",
    "IndexTaken",
    "IndexUnavailable",
    "InvalidArguments",
    "Join",
    "Journal",
    "JournalError",
    "LedgerStatistics",
    "Limited",
    "LoopDetected",
    "MaxTurns",
    "Model",
    "ModelError",
    "ModelRequest",
    "ModelResponse",
    "ModelSettings",
    "ModelUnavailable",
    "Node",
    "NothingArrived",
    "Observer",
    "OpenQuestion",
    "Partial",
    "Passage",
    "Policy",
    "Price",
    "Priced",
    "ProposedCall",
    "Query",
    "QuestionClosed",
    "RateLimited",
    "ReplayMismatch",
    "RequestRefused",
    "Reranker",
    "Result",
    "Retried",
    "Retriever",
    "Retry",
    "RunStatistics",
    "RunSummary",
    "RunTaken",
    "StepFailed",
    "StepTimeout",
    "StopReason",
    "Stream",
    "Tool",
    "Transfer",
    "UnknownModel",
    "UnknownPrice",
    "Usage",
    "Waiting",
    "Wrapper",
    "approve_untrusted_writes",
    "approve_writes",
    "ask",
    "best",
    "collect",
    "embedder",
    "first",
    "fork",
    "guarded",
    "handoff",
    "keep_last",
    "replay",
    "resume",
    "run",
    "run_sync",
    "stream",
    "tool",
    "vote",
    "without_tools",
]


def __getattr__(name: str) -> Any:
    """Import what needs more of pydantic than the rest when it is asked for."""
    if name in ("Citation", "CitedAnswer"):
        from agentrt import citation

        return getattr(citation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
