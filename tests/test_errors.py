"""Errors: one tree, drawn in the module, with messages that say what to do."""

from __future__ import annotations

import inspect
import re

import pytest

from agentrt import AgentrtError, BudgetExceeded, GraphError, RateLimited, StepFailed, errors


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every class is drawn, under its parent."""
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^([│├└─ ]*)(\w+)(  |$)", line):
            depth = len(match[1]) // 4
            above = [*above[:depth], match[2]]
            drawn[match[2]] = above[depth - 1] if depth else "Exception"
    defined = {
        n: c.__base__.__name__
        for n, c in vars(errors).items()
        if inspect.isclass(c) and c.__module__ == errors.__name__
    }
    assert drawn == defined


@pytest.mark.parametrize(
    ("dimension", "values", "words"),
    [
        ("tokens", (16, 2990, 3000), "2,990 of 3,000 tokens are spent and at least 16 more are needed"),
        ("usd", (0.0005, 0.5, 0.5), "0.5 of 0.5 usd are spent and at least 0.0005 more"),
        ("usd", (3e-9, 0.0, 2.5e-9), "0 of 0.0000000025 usd are spent and at least 0.000000003 more"),
        ("seconds", (0, 60.0, 60.0), "its time of 60 s is over"),
    ],
)
def test_a_denial_says_what_to_raise(dimension: str, values: tuple[float, float, float], words: str) -> None:
    """The scope, the numbers in the dimension's unit, the remedy."""
    needed, spent, limit = values
    error = BudgetExceeded(scope="g", dimension=dimension, needed=needed, spent=spent, limit=limit, path="g/a/chat")
    assert str(error).startswith("g/a/chat: the budget of 'g' is exhausted: ")
    assert words in str(error)
    assert str(error).endswith(f"raise Budget({dimension}=…)")


def test_a_failed_step_names_its_cause() -> None:
    """With the class of what is not our own, and even without a message."""
    assert str(StepFailed("g/a", 1, ValueError("x"))) == "g/a: ValueError: x"
    assert str(StepFailed("g/a", 1, KeyError())) == "g/a: KeyError: KeyError"
    assert str(StepFailed("g/a", 1, AgentrtError("x"))) == "g/a: x"


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_cannot_speak_is_named() -> None:
    """By its class."""
    assert str(StepFailed("g/a", 1, Rude())) == "g/a: Rude: Rude"


def test_a_graph_error_lists_its_problems() -> None:
    """One a line."""
    assert str(GraphError("g", ["a", "b"])) == "graph 'g' has 2 problems:\n  - a\n  - b"
    assert str(GraphError("g", ["a"])).startswith("graph 'g' has 1 problem:")


def test_a_rate_limit_may_say_how_long() -> None:
    """In seconds; the model is named."""
    error = RateLimited("slow down", model="openai/x", retry_after=2.5)
    assert (str(error), error.retry_after, error.billed) == ("openai/x: slow down", 2.5, False)
