"""Building an index from folders: loading, curation, chunking, and the report of it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrt.cli.console import plural
from agentrt.cli.counting import counted
from agentrt.cli.exits import UsageError

if TYPE_CHECKING:
    from agentrt.index import Document, SqliteIndex
    from agentrt.index.curation import Curation
    from agentrt.index.loading import Loading

NO_EMBEDDER = "none"
_DEFAULT_EMBEDDER = "wordllama"
_MOST_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hold what to index and how; `languages` empty keeps all."""

    folders: Sequence[Path]
    to: Path
    embedder: str | None = None
    chunk_words: int = 200
    overlap: int = 40
    curation: bool = True
    languages: Sequence[str] = ()
    prune: bool = False
    quiet: bool = False


@dataclass(slots=True)
class _Count:
    """Count documents as they pass; it is told from another thread than the one that counts."""

    doing: str = "reading"
    documents: int = 0
    left: list[str] = field(default_factory=list)

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        self.documents = 0
        for document in documents:
            self.documents += 1
            yield document

    def __str__(self) -> str:
        return f"{self.doing} · {plural(self.documents, 'document')}"


async def carry_out(plan: Plan) -> dict[str, Any]:
    """Bring an index up to date with folders; return the report, which is also kept beside the index.

    Raises `UsageError` where there is nothing to index, before anything is removed.
    """
    from agentrt.index.chunking import Chunker
    from agentrt.index.curation import Curation
    from agentrt.index.language import language_detector
    from agentrt.index.loading import Loading

    loading = Loading(*plan.folders)
    language = language_detector(*plan.languages) if plan.languages else None
    curation = Curation(language=language, languages=frozenset(plan.languages)) if plan.curation else None
    count = _Count()

    def passes() -> Iterator[Document]:
        return count(loading)

    def documents() -> Iterator[Document]:
        found = passes() if curation is None else curation.curate(passes)
        yield from _some(found, plan, lambda: _why_none(loading, curation))

    chunk = Chunker(plan.chunk_words, plan.overlap)
    index = open_new(plan.to, plan.embedder)
    try:
        async with counted(lambda: str(count), quiet=plan.quiet):
            changes = await index.update(documents(), chunk=chunk, prune=plan.prune)
    finally:
        await index.aclose()
    report = {
        "index": str(plan.to),
        "files": loading.files,
        "changes": asdict(changes),
        "curation": curation.report.document() if curation is not None else None,
        "problems": [{**asdict(p), "told": str(p)} for p in loading.problems],
        "chunk_words": plan.chunk_words,
        "overlap": plan.overlap,
    }
    report_file(plan.to).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _some(documents: Iterator[Document], plan: Plan, why: Callable[[], str]) -> Iterator[Document]:
    """Yield documents; raises `UsageError` where there are none, so that nothing is pruned for a mistyped name."""
    first = next(documents, None)
    if first is None:
        raise UsageError(f"nothing to index in {', '.join(map(str, plan.folders))}: {why()}")
    yield first
    yield from documents


def _why_none(loading: Loading, curation: Curation | None) -> str:
    """Say what became of the files that were there."""
    left = curation.report.by_reason() if curation is not None else {}
    told = [f"{len(ones):,} left out as {reason} ({ones[0].source})" for reason, ones in left.items()]
    told += [str(problem) for problem in loading.problems[:_MOST_TOLD]]
    more = len(loading.problems) - _MOST_TOLD
    return "; ".join(
        [f"{plural(loading.files, 'file')} read", *told, *([f"{more:,} more problems"] if more > 0 else [])]
    )


def report_file(index: Path) -> Path:
    return index.with_name(f"{index.name}-report.json")


def read_report(index: Path) -> Mapping[str, Any] | None:
    """Return the report of what was last read into an index; None if there is none."""
    try:
        report: Mapping[str, Any] = json.loads(report_file(index).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return report


def open_new(path: Path, embedder: str | None) -> SqliteIndex:
    """Open an index to write to; one that is new has the embedder in this process unless another is named."""
    from agentrt.index import SqliteIndex

    if embedder is None and not path.exists():
        embedder = _DEFAULT_EMBEDDER
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteIndex(path, embedder=None if embedder == NO_EMBEDDER else embedder)


def open_old(path: Path) -> SqliteIndex:
    """Open an index that is there; raises `UsageError` for one that is not."""
    from agentrt.index import SqliteIndex

    if not path.is_file():
        raise UsageError(f"there is no index {path}: agentrt index build FOLDER --to {path}")
    return SqliteIndex(path)
