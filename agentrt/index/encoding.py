"""Encodings: which one a text file is in."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from agentrt.index.confined import Unreadable

_MARKS: Final = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLOCK: Final = 1 << 20
_ASCII: Final = "".join(chr(i) for i in range(32, 127) if i != ord("\\")) + r"\u0041"
_SAMPLE: Final = 1 << 16


def encoding_of(file: Path, declared: str | None = None) -> tuple[str, bool]:
    """Return the encoding of a file and whether it is a guess: what its first bytes mark, `declared`, UTF-8, a guess.

    Raises `Unreadable` for what is no text, and `OSError`.
    """
    with file.open("rb") as stream:
        sample = stream.read(_SAMPLE)
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding, False
    if b"\0" in sample:
        raise Unreadable("it is no text: there are NUL bytes in it")
    if declared is not None and is_readable(file, declared):
        return declared, False
    if is_readable(file, "utf-8"):
        return "utf-8", False
    return guess(file), True


def is_readable(file: Path, encoding: str) -> bool:
    """Say whether all of a file can be read in an encoding; what is none, such as `hex`, reads nothing."""
    try:
        b"x".decode(encoding)  # refuses what makes bytes of bytes, which decoders do not
        decoder = codecs.getincrementaldecoder(encoding)()
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except (UnicodeError, LookupError):
        return False
    return True


def is_ascii(encoding: str) -> bool:
    """Say whether ASCII means the same in an encoding: only then can a text in it say in ASCII what it is in."""
    try:
        return _ASCII.encode().decode(encoding) == _ASCII
    except (UnicodeError, LookupError):
        return False


def guess(file: Path) -> str:
    """Return the encoding that makes most sense of a file that is not UTF-8; raises `Unreadable` where none does."""
    from charset_normalizer import from_bytes

    with file.open("rb") as stream:
        best = from_bytes(stream.read(_SAMPLE)).best()
    for encoding in (best.encoding if best else "", "cp1252"):
        if encoding and is_readable(file, encoding):
            return encoding
    raise Unreadable("it is in no encoding that could be told: convert it to UTF-8")
