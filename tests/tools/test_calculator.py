"""The calculator: exact, bounded, and clear about what it refuses."""

import sys
import time
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
        ("1/3", "1/3 ≈ 0.333333333333333"),
        ("2/3 * 100", "200/3 ≈ 66.6666666666667"),
        ("2/3 * 3", "2"),
        ("2**4095 % 1000", "168"),
        ("2**-4095 * 2**4095", "1"),
        ("0.5**4095 * 2**4094", "0.5"),
        ("3**2500 // 3**2499", "3"),
        ("-1/8", "-0.125"),
        ("2**-3", "0.125"),
        ("(-1)**1000001", "-1"),
        ("1" * 499, "1" * 499),
        ("0xff + 0b11 + 1_000", "1258"),
        ("-" * 498 + "1", "1"),
        ("0**0", "1"),
        ("1,234.567 + 12,345,678 * (1,000)", "12345679234.567"),
        ("10**1000/3", "≈ 3.33333333333333E+999"),
        ("1/7**30", "1/22539340290692258087863249 ≈ 4.43668708623631E-26"),
    ],
)
def test_results_are_exact(expression: str, result: str) -> None:
    """A number that ends is written whole, another to 15 digits, which is said."""
    assert calculator(expression) == result


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9**9**9", "too large"),
        ("10**5000", "too large"),
        (
            "2**4096",
            "the result is too large, or has too many digits: numbers may have 4,096 bits, which are 1,233 digits",
        ),
        ("3**2585", "too large"),
        ("50!", r"write 5! as 1\*2\*3\*4\*5; write it like"),
        ("5 km + 3 m", r"leave out units, in one unit: write 5 km \+ 3 m as 5000 \+ 3; write it like"),
        ("3 m²", "leave out units"),
        ("20°C", "leave out units"),
        ("12 apples * 3", "leave out units"),
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
        ("1e400", "at most 308 digits"),
        ("0.1**" + "1" * 400, "too large"),
        ("1/" + "9**9" * 100, "too large"),
        ("-" * 499 + "x", "not arithmetic"),
        ("-" * 495 + "(,)", "not arithmetic"),
        ("(1" + ",1" * 200 + ")", "not arithmetic"),
        ("1if 1else 2", "not arithmetic"),
        ("f'{9**9**9}'", "not arithmetic"),
        ("a.b", "not arithmetic"),
        ("1\0", "not arithmetic"),
        ("\ud800", "not arithmetic"),
        ("٣ * ٣", "not arithmetic"),
        ("10%", "is not arithmetic: % is the remainder, so write 10% as 10/100; write it like"),
        ("5% of 200", "write 10% as 10/100"),
        ("200 * 5%", "write 10% as 10/100"),
        ("3 x 4", r"write 3 x 4 as 3 \* 4"),
        ("sqrt(2)", "roots are not computed; try a number, and square it"),
        ("√2", "roots are not computed"),
        ("pi * 2", "names are not known"),
        ("$5 * 3", "leave out currencies"),
        ("1 000 * 2", "write 1 000 as 1000"),
        ("1,23 * 2", "write 1,5 as 1.5"),
        ("1.234,567", "write 1,5 as 1.5, and 1.234,5 as 1234.5"),
        ("2 * 0.5,000", "write 1,5 as 1.5"),
        ("1.000,000.5", "write 1,5 as 1.5"),
        ("0,500", "write 1,5 as 1.5"),
        ("1234,567", "write 1,5 as 1.5"),
        ("2(3)", r"write 2\(3\) as 2 \* \(3\)"),
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


@pytest.mark.parametrize(
    "expression",
    [
        "*".join(["9**9"] * 100),
        "%".join(["9**999"] * 71),
        "+".join(["1/3**1200"] * 50),
        "(" * 199 + "1" + "*9)" * 99 + ")" * 100,
        "-".join(f"1/{p}**400" for p in range(3, 50)),
        "2**-" * 120 + "1",
        "+".join(["1"] * 250),
    ],
)
def test_the_work_is_bounded(expression: str) -> None:
    """As many operations on as big numbers as fit take some milliseconds."""
    began = time.thread_time()
    with suppress(CalculationError):
        assert calculator(expression)
    assert time.thread_time() - began < 3


def test_an_expression_far_down_the_stack() -> None:
    """Is refused, not answered with an error of Python's own."""

    def deep(levels: int) -> str:
        return deep(levels - 1) if levels else calculator("-" * 499 + "1")

    with pytest.raises(CalculationError, match="nested too deeply"):
        deep(sys.getrecursionlimit() // 2)


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
    assert calculator.effect == "read"
    assert calculator.timeout == 5
