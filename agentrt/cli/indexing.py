"""Building an index from folders: loading, curation, chunking, and the report of it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from agentrt.cli.console import plural
from agentrt.cli.counting import counted
from agentrt.cli.exits import UsageError

if TYPE_CHECKING:
    from agentrt.index import Curation, Document, Loading, Mode, SqliteIndex
    from agentrt.index.roots import Roots

NO_EMBEDDER: Final = "none"
_DEFAULT_EMBEDDER: Final = "wordllama"
_ROOTS: Final = "roots"
_REPORT: Final = "report"
_MOST_TOLD: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexJob:
    """Hold what to index and how; `languages` empty keeps all.

    prune: removes what is gone. replace: lets it remove what was read from elsewhere.
    """

    folders: Sequence[Path]
    to: Path
    embedder: str | None = None
    chunk_words: int = 200
    overlap: int = 40
    curation: bool = True
    languages: Sequence[str] = ()
    prune: bool = False
    replace: bool = False
    quiet: bool = False


@dataclass(slots=True)
class _Counted:
    """Count documents as they are gone through; that is told from another thread than the one that counts."""

    loading: Loading
    documents: int = 0

    def __iter__(self) -> Iterator[Document]:
        self.documents = 0
        for document in self.loading:
            self.documents += 1
            yield document

    def __str__(self) -> str:
        return f"reading · {plural(self.documents, 'document')}"


async def carry_out(job: IndexJob) -> dict[str, Any]:
    """Bring an index up to date with folders; return the report, which is also kept in the index.

    Raises `UsageError` where there is nothing to index, or where something else would be removed, before anything is
    made or written.
    """
    from agentrt.index import Chunker, Curation, Loading
    from agentrt.index.language import language_detector

    _check(job)
    chunk = Chunker(job.chunk_words, job.overlap)
    language = language_detector(*job.languages) if job.languages else None
    curation = Curation(language=language, languages=frozenset(job.languages)) if job.curation else None
    async with AsyncExitStack() as stack:
        index = await stack.enter_async_context(open_new(job.to, job.embedder)) if is_there(job.to) else None
        roots = await _roots(job, index)
        loading = Loading(*_read_now(job, roots), base=roots.base)
        counted_documents = _Counted(loading)
        async with counted(lambda: str(counted_documents), quiet=job.quiet):
            kept = iter(counted_documents if curation is None else curation.curate(counted_documents))
            documents = await anyio.to_thread.run_sync(_some, kept)
            if documents is None:
                named = ", ".join(map(str, job.folders))
                raise UsageError(f"nothing to index in {named}: {_why_none(loading, curation)}")
            if index is None:
                index = await stack.enter_async_context(open_new(job.to, job.embedder))
            await index.write_note(_ROOTS, roots.write(job.to))
            changes = await index.update(documents, chunk=chunk, prune=loading.is_gone if job.prune else False)
        report = {
            "index": str(job.to),
            "roots": list(map(str, roots.paths)),
            "files": loading.files,
            "changes": asdict(changes),
            "curation": curation.report.document() if curation is not None else None,
            "problems": [{**asdict(p), "told": str(p)} for p in loading.problems],
            "chunk_words": job.chunk_words,
            "overlap": job.overlap,
        }
        is_gone = loading.is_gone if job.prune else _within(job.folders, roots)
        await index.write_note(_REPORT, json.dumps(_merged(await read_report(index), report, is_gone)))
        return report


def _within(paths: Iterable[Path], roots: Roots) -> Callable[[str], bool]:
    """Return what tells of a source whether it is read with some paths."""
    begins = [roots.prefix(path) + ("" if path.is_dir() else path.name) for path in paths]
    return lambda source: any(is_named(source, begin) for begin in begins)


def is_named(source: str, name: str) -> bool:
    """Say whether a document is named so, is a record of a file of this name, or is in a folder, which ends in `/`."""
    return source == name or source.startswith(name if not name or name.endswith("/") else f"{name}:")


def _merged(
    earlier: Mapping[str, Any] | None, report: Mapping[str, Any], is_gone: Callable[[str], bool]
) -> Mapping[str, Any]:
    """Return a report with what an earlier one says of documents that are not gone."""
    from agentrt.index.curation import Report

    if earlier is None:
        return report
    old = _without(earlier, is_gone)
    parts = [Report.read(one["curation"]) for one in (old, report) if one["curation"] is not None]
    return {
        **report,
        "curation": sum(parts[1:], parts[0]).document() if parts else None,
        "problems": list({p["told"]: p for p in (*old["problems"], *report["problems"])}.values()),
    }


def _without(report: Mapping[str, Any], is_gone: Callable[[str], bool]) -> Mapping[str, Any]:
    from agentrt.index.curation import Report

    curation = report["curation"]
    return {
        **report,
        "curation": None if curation is None else Report.read(curation).without(is_gone).document(),
        "problems": [problem for problem in report["problems"] if not is_gone(problem["source"])],
    }


async def forget(index: SqliteIndex, names: Sequence[str]) -> None:
    """Leave out of the report of an index what was removed."""
    if (report := await read_report(index)) is not None:
        left = _without(report, lambda source: any(is_named(source, name) for name in names))
        await index.write_note(_REPORT, json.dumps(left))


def _check(job: IndexJob) -> None:
    """Tell what is mistyped before anything is read."""
    from agentrt.embedding import embedder

    for folder in job.folders:
        if not folder.exists():
            raise UsageError(f"{folder} does not exist")
    if job.embedder not in (None, NO_EMBEDDER):
        embedder(job.embedder)


async def _roots(job: IndexJob, index: SqliteIndex | None) -> Roots:
    """Return the roots that the index is to have; raises `UsageError` for others than it was built from."""
    from agentrt.index.roots import Roots

    given = Roots.of(job.folders)
    if index is None or job.replace or not (there := await index.sources()):
        return given
    written = await index.note(_ROOTS)
    if written is None:
        raise UsageError(
            f"{job.to} holds {plural(len(there), 'document')} that agentrt index did not read: choose another file"
            + (", or have them removed with --replace" if job.prune else "")
        )
    known = Roots.read(written, job.to)
    if not job.prune:
        return known.together(job.folders)
    if set(known.paths) != set(given.paths):
        raise UsageError(
            f"{job.to} was built from {known}, and not from {given}: --replace removes what else it holds, "
            f"and agentrt index add keeps it"
        )
    return known


def _read_now(job: IndexJob, roots: Roots) -> Sequence[Path]:
    return roots.paths if job.prune else job.folders


def _some(documents: Iterator[Document]) -> Iterable[Document] | None:
    """Return documents, None where there are none, so that nothing is pruned for a mistyped name."""
    first = next(documents, None)
    return None if first is None else chain([first], documents)


def _why_none(loading: Loading, curation: Curation | None) -> str:
    """Say what became of the files that were there."""
    left = curation.report.by_reason() if curation is not None else {}
    told = [f"{len(ones):,} left out as {reason} ({ones[0].source})" for reason, ones in left.items()]
    told += [str(problem) for problem in loading.problems[:_MOST_TOLD]]
    more = len(loading.problems) - _MOST_TOLD
    return "; ".join(
        [f"{plural(loading.files, 'file')} read", *told, *([f"{more:,} more problems"] if more > 0 else [])]
    )


async def read_report(index: SqliteIndex) -> Mapping[str, Any] | None:
    """Return the report of what was read into an index; None if there is none."""
    written = await index.note(_REPORT)
    return None if written is None else json.loads(written)


def is_there(path: Path) -> bool:
    """Say whether there is an index, or something else that is not to be written over; an empty file is none."""
    return path.exists() and (not path.is_file() or path.stat().st_size > 0)


def open_new(path: Path, embedder: str | None) -> SqliteIndex:
    """Open an index to write to; one that is new has the embedder in this process unless another is named."""
    from agentrt.index import SqliteIndex

    if embedder is None and not is_there(path):
        embedder = _DEFAULT_EMBEDDER
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made: {error.strerror}") from error
    if embedder != NO_EMBEDDER:
        return SqliteIndex(path, make=True, embedder=embedder)
    index = SqliteIndex(path, make=True)
    if index.made_by is not None:
        raise UsageError(f"{path} has vectors of {index.made_by.name}: leave --embedder out, or choose another file")
    return index


def open_old(path: Path, mode: Mode = "hybrid") -> SqliteIndex:
    """Open an index that is there; raises `UsageError` for one that is not."""
    from agentrt.index import SqliteIndex

    if not path.is_file():
        raise UsageError(f"there is no index {path}: agentrt index build FOLDER --to {path}")
    return SqliteIndex(path, mode=mode)
