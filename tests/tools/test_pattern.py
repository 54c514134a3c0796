"""Glob patterns: what fits, and that no pattern takes long."""

import time

import pytest

from agentrt import InvalidArguments
from agentrt_tools.pattern import Pattern


def fits(pattern: str, path: str) -> bool:
    one = Pattern(pattern)
    reached = one.start
    for name in path.split("/"):
        reached = one.step(reached, name)
    return one.fits(reached)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.md", "a.md"),
        ("*.md", "x/y/a.md"),
        ("./*.md", "a.md"),
        ("x/*.md", "x/a.md"),
        ("x/**/*.md", "x/a.md"),
        ("x/**/*.md", "x/y/z/a.md"),
        ("**", "x/y"),
        ("", "x/y"),
        ("x/**", "x/y/z"),
        ("**/**/**/x", "x"),
        ("[ab]?", "a1"),
        (".*", ".env"),
        ("x/.git/*", "x/.git/config"),
    ],
)
def test_what_fits(pattern: str, path: str) -> None:
    """Names with `*` and `?`, any folders with `**`."""
    assert fits(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("./*.md", "x/a.md"),
        ("x/*.md", "x/y/a.md"),
        ("*.md", "A.MD"),
        ("**", ".env"),
        ("**", ".git/config"),
        ("x/**/y", "y"),
        ("[", "x"),
    ],
)
def test_what_does_not_fit(pattern: str, path: str) -> None:
    """Names that begin with a dot have to be asked for."""
    assert not fits(pattern, path)


def test_no_pattern_takes_long() -> None:
    """However many ways there are to read it."""
    began = time.thread_time()
    assert not fits("**/a/" * 40, "/".join(["a"] * 400) + "/b")
    assert not fits("*a" * 99 + "b", "a" * 255)
    assert time.thread_time() - began < 3
    with pytest.raises(InvalidArguments, match="at most 200 characters"):
        Pattern("*" * 201)
