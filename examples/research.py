"""A research assistant over a folder of documents, which cites the passages that its answers rest on.

    agentrt run examples/research.py "Which inn of Dorrel has a telescope on its roof?"
    agentrt run examples/research.py "Who is to be called at night?" --folder ~/notes
    agentrt run examples/research.py "What changed since 2024?" --folder ~/notes --model openai/gpt-5-mini
    agentrt run examples/research.py                                        ask the questions it is tested by, and count

It reads text, Markdown, HTML, PDF, CSV and JSON lines, and keeps an index of each folder among the user's caches, of
which only what has changed is made anew. A large model searches as often as it likes. The embedded one has three
readers, each with examples of its own, look at the passage that is about the question: what two of them find there is
the answer, and else the documents do not say: of 24 questions that it was not developed with, 8 of them without an
answer, it solves 17 and answers 2 wrongly. Either way, each citation is a passage that was found.
"""

from hashlib import blake2b
from pathlib import Path

import platformdirs
from pydantic import BaseModel

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    CitedAnswer,
    Context,
    DefinitionError,
    Graph,
    Node,
    Retriever,
)
from agentrt.index import Chunker, Curation, SqliteIndex, load
from agentrt_graphs import Case, Score, quotation, score

HERE = Path(__file__).parent / "handbook"
EMBEDDER = "wordllama"
UNKNOWN = "The documents do not say."


class Task(BaseModel):
    """A question, or without one a file of some with their answers; and the folder that knows them."""

    question: str = ""
    folder: Path = HERE / "guide"
    questions: Path = HERE / "research-test.jsonl"


def researcher(index: SqliteIndex) -> Node[str, CitedAnswer]:
    """Return an agent that answers from an index and cites it: all that a large model needs."""
    return Agent(
        "researcher",
        tools=[Retriever("library", index, k=5)],
        output=CitedAnswer,
        instructions="Answer from the library alone: search it, again in other words if need be, and cite every "
        f"passage that your answer rests on. If it does not say, answer: {UNKNOWN}",
    )


async def update(task: Task, ctx: Context) -> str:
    """Bring the index of the folder up to date, and return where it is."""
    folder = task.folder.expanduser().resolve()
    if not folder.exists():
        raise DefinitionError(f"there is no folder {folder}")
    name = blake2b(str(folder).encode(), digest_size=8).hexdigest()
    path = platformdirs.user_cache_path("agentrt") / "research" / f"{name}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    loading = load(folder)
    async with SqliteIndex(path, make=True, embedder=EMBEDDER) as index:
        documents = Curation().curate(loading)
        changes = await index.update(documents, chunk=Chunker(120, 20), prune=loading.is_gone)
    ctx.emit(f"{loading.files} files: {changes.added} documents new, {changes.changed} changed, {changes.removed} gone")
    for problem in loading.problems:
        ctx.emit(str(problem))
    return str(path)


async def research(path: str, ctx: Context) -> CitedAnswer | Score:
    """Answer the question from the index, with the passages that the answer rests on; or count what is solved."""
    task = ctx.latest(START)
    # The model of an agent that names none: that of --model, of AGENTRT_MODEL, or the embedded one.
    is_small = ctx.model(None).name.startswith("local/")
    async with SqliteIndex(path) as index:
        answerer = quotation(Retriever("library", index), UNKNOWN) if is_small else researcher(index)
        if task.question:
            return await ctx.run(answerer, task.question)
        return await score(ctx, answerer, Case.read(task.questions), said)


def said(answer: CitedAnswer) -> str | None:
    return None if answer.text == UNKNOWN else answer.text


graph = Graph("research", input=Task, budget=Budget(tokens=200_000))
graph.chain(START, update, research, END)
