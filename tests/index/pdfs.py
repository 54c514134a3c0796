"""PDF files for tests, written by hand: the library under test does not write what it reads."""

from __future__ import annotations

import zlib
from collections.abc import Sequence


def pdf(pages: Sequence[str], *, title: str = "") -> bytes:
    """Return a PDF with a line of text a page."""
    return pdf_of_streams([f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() for text in pages], title=title)


def pdf_of_streams(streams: Sequence[bytes], *, title: str = "", kids: str = "") -> bytes:
    """Return a PDF whose pages have these contents, packed; `kids` replaces the list of pages."""
    pages = [4 + 2 * i for i in range(len(streams))]
    listed = kids or " ".join(f"{n} 0 R" for n in pages)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{listed}] /Count {len(streams)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, content in zip(pages, streams, strict=True):
        font = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {font} /Contents {n + 1} 0 R >>".encode())
        packed = zlib.compress(content)
        head = f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n".encode()
        objects.append(head + packed + b"\nendstream")
    objects.append(f"<< /Title ({title}) >>".encode())
    return _assembled(objects)


def _assembled(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    begin = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    for place in places:
        out += f"{place:010} 00000 n \n".encode()
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{begin}\n%%EOF"
    return bytes(out + trailer.encode())
