"""The calculator: exact, bounded, and clear about what it refuses."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt.tool import tool_spec
from agentrt_tools import calculator
from agentrt_tools.calculator import MOST_CHARACTERS, CalculationError, evaluate


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("9 * 74", "666"),
        ("0.1 + 0.2", "0.3"),
        ("1,200 * 3", "3600"),
        ("2 * (3 + 4) =", "14"),
        ("7 // 2 + 7 % 2", "4"),
        ("2^10", "1024"),
        ("12 × 3 − 6 ÷ 2", "33"),
        ("1/3", "0.333333333333333"),
        ("-1/8", "-0.125"),
        ("2**-3", "0.125"),
        ("(-1)**1000001", "-1"),
        ("0**0", "1"),
        ("1e400", None),
        ("10**1000/3", "3.33333333333333E+999"),
    ],
)
def test_results_are_exact(expression: str, result: str | None) -> None:
    """A number that ends is written whole, another to 15 digits."""
    if result is None:
        with pytest.raises(CalculationError):
            calculator(expression)
    else:
        assert calculator(expression) == result


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9**9**9", "too large"),
        ("10**5000", "too large"),
        ("1e300*1e300*1e300*1e300*1e300", "too large"),
        ("1/0", "division by zero"),
        ("0**-1", "division by zero"),
        ("2**0.5", "whole exponents"),
        ("__import__('os').getcwd()", "not arithmetic"),
        ("'a' * 9", "not arithmetic"),
        ("True + 1", "not arithmetic"),
        ("x", "not arithmetic"),
        ("", "not arithmetic"),
        ("(" * 400, "not arithmetic"),
        ("1" * (MOST_CHARACTERS + 1), "longer than"),
    ],
)
def test_what_cannot_be_computed_is_refused(expression: str, reason: str) -> None:
    """Nothing but bounded arithmetic is evaluated, and the error says why."""
    with pytest.raises(CalculationError, match=reason):
        calculator(expression)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_it_agrees_with_python(a: int, b: int) -> None:
    """Whole-number sums, differences and products are Python's."""
    assert [evaluate(f"{a} + {b}"), evaluate(f"{a} - {b}"), evaluate(f"{a} * {b}")] == [a + b, a - b, a * b]


@given(st.text(alphabet="0123456789+-*/%.() eE,_jx", max_size=40))
def test_it_computes_or_refuses(text: str) -> None:
    """Any text gives a number or a CalculationError, soon."""
    with suppress(CalculationError):
        assert calculator(text)


def test_a_model_is_told_how_to_call_it() -> None:
    """The schema holds the parameter with its description."""
    spec = tool_spec(calculator)
    assert spec.name == "calculator"
    assert spec.parameters["properties"]["expression"]["description"].startswith("Numbers with + -")
