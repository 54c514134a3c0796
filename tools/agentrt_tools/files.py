"""Files: tools that list, read, search, write and edit the files below one folder."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from agentrt import DefinitionError, InvalidArguments, Tool
from agentrt_tools.excerpt import MOST_CHARACTERS, excerpt
from agentrt_tools.folder import MOST_BYTES, FileError, Folder
from agentrt_tools.pattern import Bound, Found, Pattern, walk

MOST_WRITTEN: Final = 1_000_000
"""So many characters a file may be given."""
_MOST_ENTRIES: Final = 20_000
_MOST_SEARCHED: Final = 100_000_000
_MOST_FOUND: Final = 500
_SECONDS: Final = 10.0
_SHOWN: Final = 200
_COUNTED: Final = 100
_SNIFFED: Final = 8_192
_RE2_MEMORY: Final = 8 << 20
_writing: Final = threading.Lock()
"""Two edits of one file side by side would lose one, whosever tools they come from, and by whatever path."""
_Finder: TypeAlias = Callable[[str], int]
"""Return where in a text something begins within a line, -1 if nowhere."""


def files(
    root: str | Path,
    *,
    write: bool = False,
    untrusted: bool = True,
    hard_links: bool = False,
    name: str = "files",
    most: int = MOST_CHARACTERS,
) -> list[Tool[..., str]]:
    """Return the tools `files.list`, `files.read` and `files.search` for the files below a folder.

    write: adds `files.write` and `files.edit`. untrusted: whether what files hold is from the outside world.
    hard_links: whether files that have other names, maybe outside the folder, are opened. name: what the tools are
    called, for agents with several folders. most: how many characters a call returns.

    No path leads out of the folder: symbolic links are not followed at all. Raises `DefinitionError` for a root that
    is no folder.
    """
    opened = _Files(Folder(root, hard_links=hard_links), most)
    seconds = 2 * _SECONDS
    reading: list[Tool[..., str]] = [
        Tool(opened.entries, name=f"{name}.list", effect="read", timeout=seconds, untrusted=untrusted),
        Tool(opened.read, name=f"{name}.read", effect="read", timeout=seconds, untrusted=untrusted),
        Tool(opened.search, name=f"{name}.search", effect="read", timeout=seconds, untrusted=untrusted),
    ]
    writing: list[Tool[..., str]] = [
        Tool(opened.write, name=f"{name}.write", effect="idempotent", timeout=seconds),
        Tool(opened.edit, name=f"{name}.edit", effect="unsafe", timeout=seconds, untrusted=untrusted),
    ]
    return [*reading, *(writing if write else ())]


class _Files:
    """Hold what the tools of one folder share."""

    def __init__(self, folder: Folder, most: int) -> None:
        self._folder = folder
        self._most = most

    def entries(self, folder: str = ".", pattern: str = "", start: int = 0) -> str:
        """List a folder: each file with its size, each folder with a slash.

        Args:
            folder: The folder, like notes/2024. A dot is the whole.
            pattern: Only what fits, in the folders below too, like *.md or src/**/test_*.py.
            start: Where to go on reading a long list.
        """
        bound = Bound(entries=_MOST_ENTRIES, bytes=0, seconds=_SECONDS)
        inside = folder.strip("/").removeprefix("./")
        path = "" if inside in ("", ".") else f"{inside}/"
        with self._folder.place(folder) as place:
            every = walk(place, Pattern(pattern or "./*"), bound, path=path)
            lines = [line for found in every for line in _listed(found)]
        if bound.over:
            lines.append(f"(stopped, {bound.over}: list a folder below, or use a pattern)")
        return excerpt("\n".join(lines) or "(nothing)", start, self._most)

    def read(self, path: str, start: int = 0) -> str:
        """Read a text file.

        Args:
            path: The file, like notes/plan.md.
            start: Where to go on reading a long file.
        """
        return excerpt(_text(self._folder.read(path), path), start, self._most)

    def search(self, query: str, pattern: str = "**", regex: bool = False, start: int = 0) -> str:
        """Search text files for lines that hold a text, in any case: each is returned as path:line: text.

        Args:
            query: The text to find.
            pattern: Only in files that fit, like *.md or src/**/test_*.py.
            regex: Whether query is a regular expression.
            start: Where to go on reading a long answer.
        """
        find = _expression(query) if regex else _plain(query)
        bound = Bound(entries=_MOST_ENTRIES, bytes=_MOST_SEARCHED, seconds=_SECONDS)
        found: list[str] = []
        skipped = 0
        with self._folder.place(".") as place:
            for one in walk(place, Pattern(pattern), bound):
                text = self._searchable(one, bound)
                skipped += text is None
                found += _lines(one.path, text or "", find, _MOST_FOUND - len(found))
                if len(found) == _MOST_FOUND:
                    bound.over = "there are too many such lines"
                if bound.over:
                    break
        found += ["(nothing found)"] * (not found)
        if skipped:
            found.append(f"(not searched: {skipped:,}, being no text, links or larger than {MOST_BYTES:,} bytes)")
        if bound.over:
            found.append(f"(stopped, {bound.over}: use a narrower query or pattern)")
        return excerpt("\n".join(found), start, self._most)

    def _searchable(self, found: Found, bound: Bound) -> str | None:
        """Return the text of what was found, empty for a folder; None where there is none to be had."""
        if found.entry.is_dir(follow_symlinks=False):
            return ""
        try:
            with self._folder.open(found.place, found.entry.name, found.path) as file:
                if not bound.allows(bytes=os.fstat(file.fileno()).st_size):
                    return ""
                return _text(file.read(MOST_BYTES), found.path)
        except (FileError, OSError):
            return None

    def write(self, path: str, text: str) -> str:
        """Write a text file, and make the folders it is in. What it held before is lost.

        Args:
            path: The file, like notes/plan.md.
            text: All that the file is to hold.
        """
        if len(text) > MOST_WRITTEN:
            raise InvalidArguments(f"text: {len(text):,} characters, at most {MOST_WRITTEN:,}: write several files")
        with _writing:
            return self._write(path, text)

    def edit(self, path: str, old: str, new: str) -> str:
        """Replace a piece of a text file that occurs in it exactly once.

        Args:
            path: The file, like notes/plan.md.
            old: The piece, exactly as it is in the file, with enough around it to occur once.
            new: What to put in its place.
        """
        if not old:
            raise InvalidArguments("old: it is empty: say which piece is to be replaced")
        with _writing:
            text = _text(self._folder.read(path), path, errors="strict")
            times = _count(text, old)
            if times != 1:
                raise FileError(f"{path} was not changed: {_miss(text, old, times)}")
            edited = text.replace(old, new)
            if len(edited) > max(MOST_WRITTEN, len(text)):
                raise FileError(
                    f"{path} was not changed: it would have {len(edited):,} characters, at most {MOST_WRITTEN:,}: "
                    "write the new text to another file"
                )
            return self._write(path, edited)

    def _write(self, path: str, text: str) -> str:
        is_new = self._folder.write(path, text.encode(errors="replace"))
        return f"{path} was {'made' if is_new else 'replaced'}: {len(text):,} characters"


def _listed(found: Found) -> Iterator[str]:
    """Yield the line of an entry, unless it has gone meanwhile."""
    try:
        status = found.entry.stat(follow_symlinks=False)
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode):
        yield f"{found.path}/"
    elif stat.S_ISREG(status.st_mode):
        yield f"{found.path}  {status.st_size:,} bytes"
    else:
        yield f"{found.path}  {'a link' if stat.S_ISLNK(status.st_mode) else 'no regular file'}, cannot be opened"


def _text(data: bytes, path: str, *, errors: str = "replace") -> str:
    """Return the text of a file; raises `FileError` for one that is not text."""
    if b"\0" in data[:_SNIFFED]:
        raise FileError(f"{path} is not text ({len(data):,} bytes): use another file")
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text (byte {error.start}), and is not edited: write it anew") from error


def _plain(query: str) -> _Finder:
    if not query or "\n" in query:
        raise InvalidArguments("query: say what to find within one line")
    wanted = query.lower()
    return lambda text: text.lower().find(wanted)


def _expression(query: str) -> _Finder:
    """Read a regular expression; its engine takes time in proportion to the text, whatever the expression is."""
    try:
        import re2
    except ImportError as error:
        raise DefinitionError("files.search(regex=true) needs google-re2: pip install 'agentrt[files]'") from error
    options = re2.Options()
    options.max_mem, options.log_errors, options.case_sensitive = _RE2_MEMORY, False, False
    options.never_nl = True  # a match lies within one line, also where a whole text is looked at
    try:
        compiled: Any = re2.compile("(?m)" + query.encode(errors="replace").decode(), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        told = str(reason).replace("(?m)", "", 1)
        raise InvalidArguments(f"query: {told}: use a simpler expression, or regex=false") from error

    def find(text: str) -> int:
        match = compiled.search(text)
        return -1 if match is None else int(match.start())

    return find


def _lines(path: str, text: str, find: _Finder, most: int) -> list[str]:
    found: list[str] = []
    text = text.replace("\r\n", "\n")
    if find(text) < 0:  # most texts are looked at only once, as a whole
        return found
    for number, line in enumerate(text.split("\n"), 1):
        if len(found) < most and (at := find(line)) >= 0:
            begin = max(0, min(at - _SHOWN // 4, len(line) - _SHOWN))
            shown = line[begin : begin + _SHOWN]
            found.append(f"{path}:{number}: {'…' * (begin > 0)}{shown}{'…' * (begin + _SHOWN < len(line))}")
    return found


def _count(text: str, piece: str) -> int:
    """Count where a piece begins, up to a hundred; two that overlap are two."""
    times, at = 0, text.find(piece)
    while at >= 0 and times < _COUNTED:
        times, at = times + 1, text.find(piece, at + 1)
    return times


def _miss(text: str, old: str, times: int) -> str:
    if times:
        often = f"at least {times}" if times == _COUNTED else str(times)
        return f"old occurs {often} times: give more of what is around the one you mean"
    if "\r\n" in text and "\n" in old.replace("\r\n", ""):
        return "old does not occur: the file's lines end with \\r\\n"
    return "old does not occur: read the file, and give the piece exactly as it is there"
