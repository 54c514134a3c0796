"""Ready-made graphs: techniques of inference-time compute as nodes to compose."""

from agentrt_graphs.self_consistency import Consensus, count_votes, self_consistency

__all__ = ["Consensus", "count_votes", "self_consistency"]
