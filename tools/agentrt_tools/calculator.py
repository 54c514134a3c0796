"""A calculator: exact arithmetic in bounded work."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final

from agentrt import AgentrtError, tool
from agentrt.text import shortened

MOST_CHARACTERS: Final = 500
MOST_BITS: Final = 4_096
"""Numbers may grow to this size (1,233 digits); what would be far larger is refused before it is computed."""
_SECONDS: Final = 5.0
_WRITTEN: Final = re.compile(r"[-+*/%().0-9a-fxo_\s]*", re.ASCII | re.IGNORECASE)
"""What numbers and operators are written with. No word of Python is: the parser would warn of some beside numbers."""
_GROUPED: Final = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?![\w,])", re.ASCII)
"""A whole number in groups of digits; in 0,500 and 1.234,567 the comma may be the decimal point."""
_QUOTED: Final = 60
_DIGITS: Final = 15
_EXACT_DIGITS: Final = 50
_SHORT: Final = 40
_TOO_LARGE: Final = (
    f"the result is too large, or has too many digits: numbers may have {MOST_BITS:,} bits, which are 1,233 digits"
)

_ADVICE: Final = (
    (re.compile(r"\d\s*%\s*(of\b|$|[-+*/)])", re.IGNORECASE), "% is the remainder, so write 10% as 10/100; "),
    (re.compile(r"\d\s*x\s*[\d(]", re.IGNORECASE), "write 3 x 4 as 3 * 4; "),
    (re.compile(r"sqrt|√", re.IGNORECASE), "roots are not computed; try a number, and square it; "),
    (re.compile(r"\b(pi|e|sin|cos|tan|log|ln|exp|round|abs|min|max|sum)\b", re.IGNORECASE), "names are not known; "),
    (re.compile(r"[$€£]"), "leave out currencies; "),
    (re.compile(r"\d \d"), "write 1 000 as 1000; "),
    (re.compile(r"\d\s*!"), "write 5! as 1*2*3*4*5; "),
    (re.compile(r"\d,\d"), "write 1,5 as 1.5, and 1.234,5 as 1234.5; "),
    (
        re.compile(r"\d\s*[°µμΩ]?[^\W\d_]{1,12}(?:²|³|\b)"),
        "leave out units, in one unit: write 5 km + 3 m as 5000 + 3; ",
    ),
)
"""What is often written instead, and how to write it."""

_OPERATORS: Final[dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SIGNS: Final = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})


class CalculationError(AgentrtError):
    """Say why an expression cannot be computed."""


@tool(effect="read", timeout=_SECONDS)
def calculator(expression: str) -> str:
    """Compute an arithmetic expression exactly, for example `9 * 74 + 12.50`; what is rounded is marked with ≈.

    Args:
        expression: Numbers with + - * / // % ** and parentheses.
    """
    return format_number(evaluate(expression))


def evaluate(expression: str) -> Fraction:
    """Return the exact value of an arithmetic expression; raises `CalculationError`."""
    if len(expression) > MOST_CHARACTERS:
        raise CalculationError(f"the expression is longer than {MOST_CHARACTERS} characters; compute it in parts")
    text = _GROUPED.sub(lambda found: found[0].replace(",", ""), expression.strip().translate(_SIGNS))
    text = text.removesuffix("=").strip()
    if not _WRITTEN.fullmatch(text):
        raise _misread(text)
    try:
        return _value(ast.parse(text, mode="eval").body)
    except RecursionError:
        raise CalculationError("the expression is nested too deeply; compute it in parts") from None
    except (SyntaxError, ValueError, MemoryError):
        raise _misread(text) from None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _number(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _apply(op, _value(left), _value(right))
        case ast.Call():
            raise CalculationError("Call is not arithmetic: write 2(3) as 2 * (3)")
        case _:
            raise CalculationError(
                f"{type(node).__name__} is not arithmetic: only numbers and + - * / // % ** ( ) are known"
            )


def _number(number: float) -> Fraction:
    if isinstance(number, int):
        return _bounded(Fraction(number))
    if not math.isfinite(number):
        raise CalculationError("a number with an exponent may have at most 308 digits: write larger ones as a power")
    return Fraction(repr(number))


def _apply(op: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if right == 0 and isinstance(op, ast.Div | ast.FloorDiv | ast.Mod):
        raise CalculationError("division by zero")
    return _bounded(Fraction(_OPERATORS[type(op)](left, right)))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise CalculationError("only whole exponents can be computed exactly")
    if base == 0 and exponent < 0:
        raise CalculationError("division by zero")
    if exponent == 0:
        return Fraction(1)
    if base in (0, 1, -1):
        return base if exponent.numerator % 2 else base * base
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if (size - 1) * abs(exponent.numerator) > MOST_BITS:  # so many bits it has at least
        raise CalculationError(_TOO_LARGE)
    return _bounded(Fraction(base**exponent.numerator))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
        raise CalculationError(_TOO_LARGE)
    return value


def _misread(text: str) -> CalculationError:
    advice = next((advice for pattern, advice in _ADVICE if pattern.search(text)), "")
    return CalculationError(
        f"{shortened(text, _QUOTED)!r} is not arithmetic: "
        f"{advice}write it like 9 * 74, with numbers and + - * / // % ** ( )"
    )


def format_number(value: Fraction) -> str:
    """Write a number exactly where it has an end, else to 15 significant digits, behind ≈ and the fraction it is."""
    if value.denominator == 1:
        return str(value.numerator)
    exact = _divide(value, _EXACT_DIGITS)
    if Fraction(exact) == value:
        return f"{exact:f}"
    rounded = str(_divide(value, _DIGITS))
    return f"{value} ≈ {rounded}" if len(str(value)) <= _SHORT else f"≈ {rounded}"


def _divide(value: Fraction, digits: int) -> Decimal:
    with localcontext(prec=digits):
        return Decimal(value.numerator) / Decimal(value.denominator)
