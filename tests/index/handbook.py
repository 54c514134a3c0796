"""The guide book as a test collection: each section is a document, and a question's is the one it was written from.

`python -m tests.index.handbook FOLDER` writes corpus.jsonl, queries.jsonl and qrels.tsv there, to be measured with
`agentrt index eval FOLDER`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agentrt.index.chunking import Chunker
from agentrt.index.loading import load

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"


def write(folder: Path) -> None:
    """Write the collection; whatever a question calls its passage has to be a section's heading."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = {p.title.rpartition(" > ")[2]: p for d in load(HANDBOOK / "guide") for p in Chunker(1000, 0)(d)}
    corpus = [{"id": title, "title": title, "text": p.text} for title, p in sections.items()]
    files = ("questions.jsonl", "examples.jsonl")
    asked = [json.loads(line) for f in files for line in (HANDBOOK / f).read_text(encoding="utf-8").splitlines()]
    queries = [{"id": str(i), "text": row["question"]} for i, row in enumerate(asked, 1)]
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    qrels = "".join(
        f"{i}\t{sections[row['passage']].title.rpartition(' > ')[2]}\t1\n" for i, row in enumerate(asked, 1)
    )
    (folder / "qrels.tsv").write_text("query_id\tdoc_id\tgain\n" + qrels, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
