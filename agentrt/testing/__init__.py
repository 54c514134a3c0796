"""What tests of agents need: fake models, virtual time, seeded orders and recordings of real models.

Nothing here needs a test framework; `agentrt.testing.plugin` offers the same to pytest.
"""

from agentrt.testing.cassette import Cassette, CassetteMismatch, recorded
from agentrt.testing.models import FunctionModel, Reply, ScriptedModel, ScriptMismatch, call, count, text
from agentrt.testing.virtual import run_virtual, virtual_backend, virtual_loop

__all__ = [
    "Cassette",
    "CassetteMismatch",
    "FunctionModel",
    "Reply",
    "ScriptMismatch",
    "ScriptedModel",
    "call",
    "count",
    "recorded",
    "run_virtual",
    "text",
    "virtual_backend",
    "virtual_loop",
]
