"""Cells: pieces of Python code as the sandbox runs them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

Place: TypeAlias = tuple[int, int]
_FENCED: Final = re.compile(r"\s*```[\w+-]*[ ]*\n(.*?)\n?```\s*", re.DOTALL)
_TOGETHER: Final = ("gather", "create_task", "wait_for", "wait", "as_completed")
"""Functions of asyncio that take awaitables."""


class Cell:
    """Hold code whose last expression is kept as `_`, as in Python's own shell.

    `awaited` are the places, in bytes, of the calls that stand in an `await`, or are handed to asyncio: code wants
    their value later. Every other call is a plain one. Lines keep their numbers.
    """

    def __init__(self, code: str) -> None:
        self.text = _bare(code.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n"))
        self._lines = self.text.split("\n")
        self.has_value = False
        self.awaited: frozenset[Place] = frozenset()
        try:
            last = ast.parse(self.text).body[-1:]
            if last and isinstance(last[0], ast.Expr):
                self._keep(last[0])
            self._read(ast.parse(self.text))
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            pass  # the interpreter says what is wrong

    def line(self, number: int) -> str:
        """Return a line as it was written, counted from 1; empty where there is none."""
        return self._lines[number - 1].strip() if 0 < number <= len(self._lines) else ""

    def _keep(self, last: ast.Expr) -> None:
        start, end = _place(last, _starts(self._lines))
        text = self.text.encode()
        self.text = b"".join((text[:start], b"_ = (", text[start:end], b")", text[end:])).decode()
        self.has_value = True

    def _read(self, tree: ast.Module) -> None:
        starts = _starts(self.text.split("\n"))
        self.awaited = frozenset(_place(call, starts) for call in _awaited(tree))


def _bare(code: str) -> str:
    """Leave out what models write around code: a byte order mark, a Markdown fence."""
    code = code.removeprefix("\ufeff")
    fenced = _FENCED.fullmatch(code)
    return code if fenced is None else fenced[1]


def _starts(lines: Sequence[str]) -> list[int]:
    return [0, *accumulate(len(line.encode()) + 1 for line in lines)]


def _place(node: ast.expr | ast.stmt, starts: Sequence[int]) -> Place:
    """Return where a node begins and ends, in bytes."""
    return starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)


def _awaited(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
            yield node.value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _TOGETHER:
            for argument in node.args:
                yield from _made(argument)


def _made(argument: ast.expr) -> Iterator[ast.Call]:
    """Yield the call that an argument is, or those that a list or comprehension of arguments makes."""
    match argument:
        case ast.Call():
            yield argument
        case ast.Starred(value=value) | ast.ListComp(elt=value) | ast.GeneratorExp(elt=value):
            yield from _made(value)
        case ast.List(elts=values) | ast.Tuple(elts=values):
            for value in values:
                yield from _made(value)
