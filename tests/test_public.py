"""What users import, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import agentrt
import agentrt.testing

NAMES = """
    END FREE START Agent AgentrtError AuthenticationFailed Budget BudgetExceeded Context ContextOverflow DeadEnd
    DefinitionError Format FunctionNode Graph GraphError GuardrailTripped Index InvalidArguments Join
    JournalError LedgerStatistics LoopDetected MaxTurns Model ModelError ModelRequest ModelResponse ModelSettings
    ModelUnavailable Node NothingArrived Observer Partial Passage Price RateLimited RequestRefused Result Retriever
    Retry StepFailed StopReason Stream Tool StepTimeout UnknownModel UnknownPrice Usage best collect first run
    Cached Fallback Limited Priced Retried Wrapper ask
    run_sync stream tool vote Guarded Guardrail Handoff HistoryFilter Transfer guarded handoff keep_last without_tools
    RunStatistics
    Citation CitedAnswer Policy ProposedCall approve_untrusted_writes approve_writes
    Bound Bounds BudgetTooSmall
    Between Embedder IndexTaken IndexUnavailable Query Reranker embedder
    CallDenied Journal OpenQuestion QuestionClosed ReplayMismatch RunSummary RunTaken Waiting fork replay resume
"""

TESTING = """
    Cassette CassetteMismatch FunctionEmbedder
    FunctionModel RecordMismatch Reply ScriptMismatch ScriptedModel call count dump_record
    read_record recorded replay_record run_virtual text virtual_backend virtual_loop
"""

HEAVY = """
    litellm openai networkx opentelemetry.sdk rich typer httpx sqlite3 xllamacpp pytest hypothesis numpy apsw wordllama
"""


def loaded(statement: str) -> set[str]:
    """Run a statement in a new interpreter; return the heavy modules it loaded, and whatever it printed.

    What was there before, as when coverage is measured, does not count.
    """
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        f"print(*(m for m in {HEAVY.split()!r} if m in sys.modules and m not in before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_public_names_are_these() -> None:
    """Adding or losing one is a decision."""
    assert sorted(agentrt.__all__) == sorted(NAMES.split())
    assert all(hasattr(agentrt, name) for name in NAMES.split())
    assert sorted(agentrt.testing.__all__) == sorted(TESTING.split())


def test_importing_loads_nothing_heavy() -> None:
    """And prints nothing."""
    assert loaded("import agentrt") == set()


def test_the_fakes_need_no_test_framework() -> None:
    """They are of use in a notebook, too."""
    assert loaded("import agentrt.testing") == set()


def test_a_run_without_models_loads_nothing_heavy_but_networkx() -> None:
    """Graphs are validated on networkx; a node alone needs not even that."""
    assert loaded("import agentrt\ndef f(x: int) -> int: return x\nagentrt.run_sync(f, 1)") == set()


def test_no_name_of_the_package_shadows_a_module() -> None:
    """`agentrt.run` stays the function, whatever is imported."""
    import importlib
    import pkgutil

    modules = {m.name for m in pkgutil.iter_modules(agentrt.__path__)}
    for name in modules & set(NAMES.split()):
        importlib.import_module(f"agentrt.{name}")
        assert getattr(agentrt, name).__class__.__name__ != "module", name
