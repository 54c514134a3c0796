"""What the shell offers where a word is completed."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Complete, Shell, Write

TRIP = """
async def ask(name: str, ctx: Context) -> str:
    return await ctx.ask(f"What of {name}?")

async def both(text: str, ctx: Context) -> list[str]:
    return await ctx.map(ask, ["a", "b"])

async def add(n: int) -> int:
    return n + 1
"""
PATHS = ["both/ask[0]/ask", "both/ask[1]/ask"]


def begun(shell: Shell, target: str, value: str) -> str:
    return str(json.loads(shell("run", target, value, "--json").stdout)["run_id"])


def test_runs_and_questions_are_offered(shell: Shell, write: Write, complete: Complete) -> None:
    """Where a question is answered, the runs that ask something, then what that run asks."""
    done, asking = (begun(shell, f"{write(TRIP)}:{name}", "1") for name in ("add", "both"))
    assert complete("agentrt show ") == [asking, done]
    assert complete(f"agentrt show {done}") == [done]
    assert complete("agentrt show x") == []
    assert complete("agentrt approve ") == complete("agentrt inbox ") == [asking]
    assert complete(f"agentrt approve {asking} ") == PATHS
    assert complete(f"agentrt answer {asking[:-3]} 3 both/ask[1]") == PATHS[1:]
    assert complete(f"agentrt approve {done} ") == []


def test_the_steps_of_a_run_are_offered_for_a_fork(shell: Shell, write: Write, complete: Complete) -> None:
    """In the order they began."""
    run_id = begun(shell, f"{write(TRIP)}:both", "1")
    assert complete(f"agentrt fork {run_id} ") == ["both", "both/ask[0]", PATHS[0], "both/ask[1]", PATHS[1]]
    assert complete("agentrt fork last both/ask[1]") == ["both/ask[1]", "both/ask[1]/ask"]
    assert complete("agentrt fork nosuch ") == []


def test_embedded_models_are_offered(complete: Complete) -> None:
    """Those that can be fetched."""
    assert complete("agentrt models pull smollm2-1") == ["smollm2-135m"]


def test_what_cannot_be_read_offers_nothing(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says nothing."""
    assert complete("agentrt approve nosuch ") == []
    assert complete("agentrt show --store nonsense ") == []
    monkeypatch.setenv("AGENTRT_STORE", "nonsense")
    assert complete("agentrt show ") == complete("agentrt approve last ") == []


def test_the_store_that_was_typed_is_looked_into(shell: Shell, write: Write, complete: Complete) -> None:
    """It need not be the default one."""
    run_id = json.loads(shell("run", f"{write(TRIP)}:add", "1", "--json", "--store", "sqlite:///other.db").stdout)[
        "run_id"
    ]
    assert complete("agentrt show ") == []
    assert complete("agentrt show --store sqlite:///other.db ") == [run_id]
