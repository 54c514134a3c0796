"""What tests of agents need: fake models, virtual time, seeded orders, recordings of real models and of runs.

Nothing here needs a test framework; `agentrt.testing.plugin` offers the same to pytest.
"""

from agentrt.testing.cassette import Cassette, CassetteMismatch, recorded
from agentrt.testing.embedders import FunctionEmbedder
from agentrt.testing.models import FunctionModel, Reply, ScriptedModel, ScriptMismatch, call, count, text
from agentrt.testing.records import RecordMismatch, dump_record, read_record, replay_record
from agentrt.testing.virtual import run_virtual, virtual_backend, virtual_loop

__all__ = [
    "Cassette",
    "CassetteMismatch",
    "FunctionEmbedder",
    "FunctionModel",
    "RecordMismatch",
    "Reply",
    "ScriptMismatch",
    "ScriptedModel",
    "call",
    "count",
    "dump_record",
    "read_record",
    "recorded",
    "replay_record",
    "run_virtual",
    "text",
    "virtual_backend",
    "virtual_loop",
]
