"""`agentrt index`: making an index of documents, searching it, and saying how well it finds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from agentrt.cli import options
from agentrt.cli.console import loose_json, note, plural, print_json, print_table
from agentrt.cli.counting import counted
from agentrt.cli.exits import UsageError, told
from agentrt.cli.findings import print_passages, print_report
from agentrt.cli.indexing import IndexJob, carry_out, forget, is_named, open_new, open_old, read_report

if TYPE_CHECKING:
    from agentrt.passage import Passage
    from agentrt.retrieval import Condition, Query

app = typer.Typer(no_args_is_help=True, help="Index documents, search them, and measure how well that works.")


class SearchMode(StrEnum):
    """Name the ways of searching."""

    HYBRID = "hybrid"
    TEXT = "text"
    VECTOR = "vector"


def sources_of(context: typer.Context, incomplete: str) -> list[str]:
    """Return the sources that the shell offers: those of the index named before."""
    from agentrt.errors import AgentrtError

    try:
        found = anyio.run(_sources, context.params["index"])
    except AgentrtError:  # a shell that completes a word has nowhere to say so; the command will
        return []
    return [source for source in found if source.startswith(incomplete)]


Folders = Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders or files to read.")]
IndexTo = Annotated[Path, typer.Option("--to", metavar="FILE", help="The index: one SQLite file.")]
IndexFile = Annotated[Path, typer.Argument(metavar="FILE", help="An index.")]
EmbedderName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="wordllama (in this process, free; for a new index), provider/model, or none for words alone.",
    ),
]
ChunkWords = Annotated[int, typer.Option(metavar="N", min=1, help="How many words a passage has at most.")]
Overlap = Annotated[int, typer.Option(metavar="N", min=0, help="How many words of it the next repeats at most.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Remove what an index holds that was built from other folders.")
]
NoCuration = Annotated[bool, typer.Option("--no-curation", help="Keep duplicates, debris and boilerplate.")]
Language = Annotated[
    list[str] | None, typer.Option(metavar="CODE", help="Keep documents in this language, like en; may be repeated.")
]
Wanted = Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many to find.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help='Metadata: year=2024, year=2020..2024, kind=["a","b"], or file="a..b"; repeatable.'
    ),
]


@app.command()
def build(
    folders: Folders,
    to: IndexTo,
    embedder: EmbedderName = None,
    chunk_words: ChunkWords = 200,
    overlap: Overlap = 40,
    no_curation: NoCuration = False,
    language: Language = None,
    replace: Replace = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make an index of folders, or bring it up to date: what has not changed is kept, what is gone is removed.

    Text, Markdown, HTML, PDF, CSV and JSON lines are read; whatever is not is told. Documents are named by where they
    lie in the folder, or in the one that holds all of several.

    \b
    Examples:
      agentrt index build docs --to docs.db
      agentrt index build notes wiki --to all.db --language en --chunk-words 120
    """
    with told(debug=debug, json=json):
        job = IndexJob(
            folders=folders,
            to=to,
            embedder=embedder,
            chunk_words=chunk_words,
            overlap=overlap,
            curation=not no_curation,
            languages=language or (),
            prune=True,
            replace=replace,
            quiet=quiet,
        )
        _tell(anyio.run(carry_out, job), json=json)


@app.command()
def add(
    folders: Folders,
    to: IndexTo,
    chunk_words: ChunkWords = 200,
    overlap: Overlap = 40,
    no_curation: NoCuration = False,
    language: Language = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Add folders or files to an index, and keep what else is in it; `build` then takes all of them.

    \b
    Examples:
      agentrt index add minutes/2026 --to docs.db
    """
    with told(debug=debug, json=json):
        job = IndexJob(
            folders=folders,
            to=to,
            chunk_words=chunk_words,
            overlap=overlap,
            curation=not no_curation,
            languages=language or (),
            quiet=quiet,
        )
        _tell(anyio.run(carry_out, job), json=json)


@app.command()
def report(index: IndexFile, json: options.Json = False, debug: options.Debug = False) -> None:
    """Say what is in an index, what was left out of it and why, and what was read last.

    \b
    Examples:
      agentrt index report docs.db
      agentrt index report docs.db --json | jq .curation.left_out
    """
    with told(debug=debug, json=json):
        documents, last = anyio.run(_reported, index)
        if json:
            print_json({"documents": documents, **(last or {})})
            return
        note(f"{index} holds {plural(documents, 'document')}")
        if last is not None:
            print_report(last, short=False)


@app.command()
def search(
    index: IndexFile,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    k: Wanted = 5,
    mode: Annotated[SearchMode, typer.Option(help="By words, by meaning, or both.")] = SearchMode.HYBRID,
    where: Where = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the passages that fit a query.

    \b
    Examples:
      agentrt index search docs.db "who is to be called at night?"
      agentrt index search docs.db "budget" -k 3 --mode text --where year=2020..2024
    """
    with told(debug=debug, json=json):
        from agentrt.retrieval import Query

        asked = Query(query, None, conditions(where or ()))
        found, has_words = anyio.run(_search, index, asked, k, mode.value)
        if json:
            print_json([{"id": p.id, **asdict(p)} for p in found])
        else:
            print_passages(found)
            if found and not has_words:
                note("none of them has a word of this: they are the nearest by meaning, and that may be far", "yellow")


@app.command()
def delete(
    index: IndexFile,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Documents, files of records, or folders/.", autocompletion=sources_of
        ),
    ],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove documents from an index.

    \b
    Examples:
      agentrt index delete docs.db minutes/2019.md people.csv drafts/
    """
    with told(debug=debug, json=json):
        removed = anyio.run(_delete, index, source)
        if json:
            print_json({"removed": removed})
        else:
            note(f"{plural(len(removed), 'document')} removed", "green")


@app.command(name="eval")
def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", help="An index, or a folder with corpus.jsonl, queries.jsonl, qrels.tsv."
        ),
    ],
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON lines: id, text.")] = None,
    qrels: Annotated[Path | None, typer.Option(metavar="FILE", help="Tab-separated: query, document, gain.")] = None,
    embedder: EmbedderName = None,
    chunk_words: ChunkWords = 200,
    overlap: Overlap = 40,
    k: Wanted = 100,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how well documents are found by words, by meaning and both, and by bm25s where it is installed.

    \b
    Examples:
      agentrt index eval cranfield
      agentrt index eval docs.db --queries queries.jsonl --qrels qrels.tsv
    """
    with told(debug=debug, json=json):
        if not target.is_dir() and (queries is None or qrels is None):
            raise UsageError("an index is measured with --queries FILE and --qrels FILE")
        places = queries or target / "queries.jsonl", qrels or target / "qrels.tsv"
        job = IndexJob(folders=(), to=target, embedder=embedder, chunk_words=chunk_words, overlap=overlap, quiet=quiet)
        measured = anyio.run(_measure, job, places, k)
        if json:
            print_json(measured)
            return
        rows = [(way, *(str(figures[name]["told"]) for name in figures)) for way, figures in measured["ways"].items()]
        print_table(("WAY", *(name.upper() for name in next(iter(measured["ways"].values())))), rows)
        note(f"{_queries(measured['queries'])}; intervals hold 95 % (bootstrap)")
        for line in measured["verdicts"]:
            note(line, "green" if " beats " in line or " not worse " in line else "yellow")


def _queries(n: int) -> str:
    return f"{n:,} queries" if n != 1 else "1 query"


def conditions(given: Sequence[str]) -> dict[str, Condition]:
    """Read `year=2020..2024`; raises `UsageError` for what is no condition."""
    from agentrt.retrieval import Between

    read: dict[str, Condition] = {}
    for text in given:
        name, equals, value = text.partition("=")
        least, dots, most = value.partition("..")
        if not (name and equals and value):
            raise UsageError(f"--where {text!r}: write NAME=VALUE, like year=2024")
        if name in read:
            raise UsageError(f"--where {text!r}: {name} is named twice: write {name}=A..B or {name}=[A, B]")
        is_range = dots and not value.startswith(('"', "["))
        parsed: Any = Between(least=_bound(least), most=_bound(most)) if is_range else loose_json(value)
        if isinstance(parsed, dict | None):
            raise UsageError(f"--where {text!r}: a value is a text, a number, true, false, or a list of these")
        read[name] = parsed
    return read


def _bound(text: str) -> float | str | None:
    value = loose_json(text) if text else None
    return value if isinstance(value, float | int) and not isinstance(value, bool) else text or None


async def _sources(path: Path) -> list[str]:
    async with open_old(path, "text") as index:
        return await index.sources()


async def _reported(path: Path) -> tuple[int, Mapping[str, Any] | None]:
    async with open_old(path, "text") as index:
        return len(await index.sources()), await read_report(index)


async def _search(path: Path, query: Query, k: int, mode: Any) -> tuple[list[Passage], bool]:
    """Return what is found, and whether it has words of the query."""
    async with open_old(path, mode) as index:
        if index.embedder is None and mode == "vector":
            raise UsageError(f"{path} has no vectors: search it by --mode text, or build another with an --embedder")
        found = await index.search(query, k)
        index.mode = "text"
        return found, bool(await index.search(query, 1))


async def _delete(path: Path, named: Sequence[str]) -> list[str]:
    async with open_old(path, "text") as index:
        there = await index.sources()
        gone: dict[str, None] = {}
        for name in named:
            found = [source for source in there if is_named(source, name)]
            if not found:
                raise UsageError(f"{path} holds no {name}")
            gone |= dict.fromkeys(found)
        await index.remove(gone)
        await forget(index, named)
        return list(gone)


async def _measure(job: IndexJob, places: tuple[Path, Path], k: int) -> dict[str, Any]:
    from agentrt.index.collection import Collection

    collection = Collection.read(*places)
    if not job.to.is_dir():
        await open_old(job.to).aclose()
        return await _compared(job.to, collection, k, job)
    from agentrt.index.chunking import Chunker
    from agentrt.index.collection import corpus

    with tempfile.TemporaryDirectory(prefix="agentrt-eval-") as folder:
        path = Path(folder, "index.db")
        async with (
            open_new(path, job.embedder) as index,
            counted(lambda: "indexing", quiet=job.quiet),
        ):
            await index.update(corpus(job.to / "corpus.jsonl"), chunk=Chunker(job.chunk_words, job.overlap))
        return await _compared(path, collection, k, job)


async def _compared(path: Path, collection: Any, k: int, job: IndexJob) -> dict[str, Any]:
    from agentrt.index.comparison import rankings
    from agentrt.index.evaluation import estimate, metrics, scores
    from agentrt.index.verdict import verdict

    async with counted(lambda: f"asking {_queries(len(collection.queries))}", quiet=job.quiet):
        ways = await rankings(path, collection.queries, k)
    measures = metrics(k)
    figures: dict[str, dict[str, Any]] = {}
    for way, found in ways.items():
        estimates = {name: estimate(scores(found, collection.qrels, m)) for name, m in measures.items()}
        figures[way] = {name: {**asdict(e), "told": str(e)} for name, e in estimates.items()}
    name, measure = next(iter(measures.items()))
    return {
        "queries": len(collection.queries),
        "ways": figures,
        "verdicts": verdict(ways, collection.qrels, name, measure),
    }


def _tell(report: Mapping[str, Any], *, json: bool) -> None:
    if json:
        print_json(report)
        return
    print_report(report, short=True)
    note(f"search it: agentrt index search {report['index']} QUERY")
