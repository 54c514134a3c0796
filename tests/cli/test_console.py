"""How values are written for the eye."""

import io

import pytest

from agentrt.cli.console import cell, dollars, one_line, plural, print_table, quoted, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.012, "12 ms"),
        (12.34, "12.3 s"),
        (125, "2 min 05 s"),
        (7260, "2 h 01 min"),
        (0, "<0.1 ms"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    """Spans of time have the unit that fits."""
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [(0, "$0.00"), (31 * 10**6, "$0.000031"), (5 * 10**9, "$0.0050"), (25 * 10**11, "$2.50"), (1, "$0.000001")],
)
def test_dollars(cost: int, text: str) -> None:
    """Small sums show the digits that count, and nothing that was paid is shown as nothing."""
    assert dollars(cost) == text


def test_cells() -> None:
    """Cells are short and harmless."""
    assert [cell(v) for v in (None, True, 1234, 0.5, 12345.6, "a\x1bb")] == ["", "yes", "1,234", "0.5", "12,346", "ab"]
    assert (plural(1, "step"), plural(2, "step")) == ("1 step", "2 steps")


def test_one_line() -> None:
    """A value is cut to one line of its JSON, or of the text it is."""
    assert one_line({"a": "b"}, 20) == '{"a":"b"}'
    assert one_line("a\n b" + "c" * 50, 10) == "a bcccccc…"


def test_table_in_a_pipe_is_not_wrapped() -> None:
    """However wide, a row is a line."""
    out = io.StringIO()
    print_table(("A", "B"), [("x" * 300, 1), ("y", 20)], file=out)
    assert [len(line) for line in out.getvalue().splitlines()] == [304, 304, 304]


def test_what_is_quoted_looks_like_no_line_of_ours() -> None:
    """Nor can it turn text round."""
    assert quoted("why: a\nagentrt approve last\r\nb") == "why: a\n  │ agentrt approve last\n  │ b"
    assert quoted("rm \u202e/ x\u2028y") == "rm / x y"
