"""Ready-made graphs: techniques of inference-time compute as nodes to compose, and how to count what they are worth."""

from agentrt_graphs.quotation import quotation
from agentrt_graphs.scoring import Case, Row, Score, score
from agentrt_graphs.self_consistency import Consensus, count_votes, self_consistency

__all__ = ["Case", "Consensus", "Row", "Score", "count_votes", "quotation", "score", "self_consistency"]
