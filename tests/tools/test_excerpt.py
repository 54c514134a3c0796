"""Excerpts: a model reads a long text piece by piece and misses nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import InvalidArguments
from agentrt_tools.excerpt import excerpt

_MORE = re.compile(r"\n?… ([\d,]+) more characters; pass start=(\d+) to go on\Z")


def test_a_short_text_is_returned_whole() -> None:
    """Without a word on it."""
    assert excerpt("short", 0, 5) == "short"
    assert excerpt("", 0, 5) == ""


def test_a_long_text_says_how_to_go_on() -> None:
    """In the words of the tool's own parameter."""
    assert excerpt("abcdefgh", 0, 5) == "abcde\n… 3 more characters; pass start=5 to go on"
    assert excerpt("abcdefgh", 5, 5) == "fgh"
    assert excerpt("abcdefgh", 0, 5, parameter="offset").endswith("pass offset=5 to go on")


def test_lines_are_kept_whole_where_that_costs_little() -> None:
    """A line's end in the second half of the piece is where it is cut."""
    assert excerpt("one\ntwo\nthree", 0, 10) == "one\ntwo\n… 5 more characters; pass start=8 to go on"
    assert excerpt("a\nbcdefghijkl", 0, 10).startswith("a\nbcdefghi\n… 3 more")


@pytest.mark.parametrize("start", [-1, 5, 6])
def test_a_start_outside_the_text_is_told(start: int) -> None:
    """With how long the text is."""
    with pytest.raises(InvalidArguments, match=f"start={start}: the text has 5 characters"):
        excerpt("short", start, 5)


@given(st.text(alphabet="ab\n…", max_size=60), st.integers(1, 9))
def test_following_the_last_line_reads_everything(text: str, most: int) -> None:
    """Each piece is of the length asked for at most; together they are the text."""
    read, start = "", 0
    while True:
        piece = excerpt(text, start, most)
        more = _MORE.search(piece)
        if more is None:
            break
        start = int(more[2])
        assert len(read) < start <= len(read) + most
        assert int(more[1].replace(",", "")) == len(text) - start
        read = text[:start]
    assert read + piece == text
