"""PDF to text, in a process of its own: this module imports nothing of agentrt, so that it starts quickly."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import Any, Final

_MOST_TEXT: Final = 50_000_000


def parse(data: bytes) -> dict[str, Any]:
    """Return the title of a PDF, the text of its pages, and why pages could not be read, by their number from 1.

    Raises `ValueError` for one that is locked, or has more text than any book.
    """
    from pypdf import PdfReader
    from pypdf.errors import LimitReachedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = PdfReader(BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError("it is locked with a password")
    pages: list[str] = []
    failed: dict[int, str] = {}
    size = 0
    for number in range(1, len(reader.pages) + 1):
        try:
            text = reader.pages[number - 1].extract_text()
        except MemoryError:
            raise
        except LimitReachedError as error:
            failed[number] = f"it unpacks to more than is read of a page: {error}"
            text = ""
        except Exception as error:  # noqa: BLE001 - told of the page; the others may be in order
            failed[number] = f"{type(error).__name__}: {error}"
            text = ""
        size += len(text)
        if size > _MOST_TEXT:
            raise ValueError(f"it has more than {_MOST_TEXT:,} characters")
        pages.append(text)
    return {"title": _title(reader), "pages": pages, "failed": failed}


def _title(reader: Any) -> str:
    try:
        return " ".join(str(reader.metadata.title or "").split()) if reader.metadata else ""
    except Exception:  # noqa: BLE001 - a title is the least of it
        return ""
