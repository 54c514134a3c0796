"""A research assistant over a folder of documents, which cites the passages that its answers rest on.

    agentrt run examples/research.py "Which inn of Dorrel has a telescope on its roof?"
    agentrt run examples/research.py "Who is to be called at night?" --folder ~/notes
    agentrt run examples/research.py "What changed since 2024?" --folder ~/notes --model openai/gpt-5-mini

It reads text, Markdown, HTML, PDF, CSV and JSON lines, and keeps an index of each folder among the user's caches, of
which only what has changed is made anew. A large model searches as often as it likes; the small one in this process is
shown one passage after another until it finds the answer in one. Either way, each citation is a passage that was found.
"""

import json
import re
from collections.abc import Sequence
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
    ModelSettings,
    Passage,
    Retriever,
)
from agentrt.index import Chunker, Curation, SqliteIndex, load
from agentrt.messages import AssistantMessage, Message, ToolSpec

GUIDE = Path(__file__).parent / "handbook" / "guide"
SHOWN = 3
"""How many passages are found for a small model."""
EMBEDDER = "wordllama"
UNKNOWN = "The documents do not say."


class Task(BaseModel):
    """A question, and the folder that knows the answer."""

    question: str
    folder: Path = GUIDE


def researcher(index: SqliteIndex) -> Agent[str, CitedAnswer]:
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


async def research(path: str, ctx: Context) -> CitedAnswer:
    """Answer the question from the index, with the passages that the answer rests on."""
    question = ctx.latest(START).question
    async with SqliteIndex(path) as index:
        if small(ctx):
            return await read(await ctx.run(Retriever("library", index, k=SHOWN), question), question, ctx)
        return await ctx.run(researcher(index), question)


def small(ctx: Context) -> bool:
    """Say whether the run's model is one of those in this process."""
    # The model of an agent that names none: that of --model, of AGENTRT_MODEL, or the embedded one.
    return ctx.model(None).name.startswith("local/")


graph = Graph("research", input=Task, output=CitedAnswer, budget=Budget(tokens=200_000))
graph.chain(START, update, research, END)


# What follows is for small models alone, which cannot search: they are shown passages, one at a time, and what they say
# counts only where it stands in the passage.


async def read(passages: Sequence[Passage], question: str, ctx: Context) -> CitedAnswer:
    """Return the first answer that its passage supports, the best passage first."""
    for passage in passages:
        answer = await ctx.run(reader, Evidence(question=question, passage=passage))
        if supported(answer):
            return answer
    return CitedAnswer(text=UNKNOWN, citations=[])


class Evidence(BaseModel):
    """A question with one passage that may answer it."""

    question: str
    passage: Passage


class Reading:
    """Write one passage and the question as text that goes on with the answer, as the examples before it do."""

    stop = ("\n",)
    shots = (
        ("The ferry leaves at six and takes an hour. It carries no cars.", "How long does the ferry take?", "an hour"),
        ("Orla Venn founded the museum in 1902, in a mill.", "Who founded the museum?", "Orla Venn"),
        ("The bakery sells rye bread. It is shut on Mondays.", "What does a ticket cost?", "unknown"),
        ("Tickets cost 12 crowns, for children 5.", "What do children pay?", "5 crowns"),
    )

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        evidence = Evidence.model_validate_json(messages[0].text)
        examples = "".join(f"{self.turn(*shot[:2])} {shot[2]}\n\n" for shot in self.shots)
        return examples + self.turn(evidence.passage.text, evidence.question)

    def turn(self, passage: str, question: str) -> str:
        return f"Passage: {' '.join(passage.split())}\nQuestion: {question}\nAnswer:"

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        return AssistantMessage(text.strip())

    def answer(self, messages: Sequence[Message]) -> str:
        passage = Evidence.model_validate_json(messages[0].text).passage
        return json.dumps({"text": messages[-1].text, "citations": [passage.id]})


reader = Agent(
    "reader",
    input=Evidence,
    output=CitedAnswer,
    format=Reading(),
    settings=ModelSettings(max_tokens=40, temperature=0.0),
)


def supported(answer: CitedAnswer) -> bool:
    """Say whether all words of an answer stand in what it cites, so that nothing is made up."""
    said, read = (
        set(re.findall(r"\w+", text.lower())) for text in (answer.text, " ".join(map(words, answer.citations)))
    )
    return bool(said) and said <= read


def words(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"
