"""Ask a database: an agent that writes SQL, and computes with what it finds in a Python sandbox.

    agentrt run examples/analyst.py "How many passengers did the Heron carry on average?" --model openai/gpt-5-mini
    agentrt run examples/analyst.py "How many passengers did the Heron carry on average?"   with the embedded model
    agentrt run examples/analyst.py                                         ask the questions it is tested by, and count

The database of a small ferry company, which is fictional, is made for the run. A model of a provider gets tools: it
looks at the tables, asks them, and runs code that may ask them, too. The embedded model is too small for that: three
drafters go on with a line of Python below the worked examples that are most like the question, and vote. It is not to
be relied on: of 20 questions that it was not developed with it solves 7 and answers 7 wrongly, and the question above
is one that a worked example asks, too. Take a larger model, such as openai/gpt-5-mini, for a database of your own.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio.to_thread
from pydantic import BaseModel

from agentrt import END, START, Agent, Budget, Context, FunctionNode, Graph, ModelSettings, Node
from agentrt.messages import AssistantMessage, Message, ToolCall, ToolSpec
from agentrt_graphs import Case, Score, score, self_consistency
from agentrt_tools import Python, sql

HERE = Path(__file__).parent / "ferries"
UNKNOWN = "The database does not say."


class Task(BaseModel):
    """A question; without one, a file of some with their answers."""

    question: str = ""
    questions: Path = HERE / "test.jsonl"


INSTRUCTIONS = (
    "Answer questions about the database. Look at its schema first. Compute with python, never in your head. "
    "Answer with the number or the name alone; several names with commas between them. "
    f"If it does not say, answer: {UNKNOWN}"
)


def analyst(url: str) -> Node[str, str]:
    """Return an agent with the tools of a database, and with Python that may ask it, too."""
    # This program has written all that is in the database itself. Leave untrusted=False out where others write to
    # yours: then what it holds is marked as from outside.
    query, schema = sql(url, untrusted=False)
    return Agent("analyst", instructions=INSTRUCTIONS, tools=[schema, query, Python([query])])


@asynccontextmanager
async def ferries() -> AsyncIterator[str]:
    """Make the database, and return its address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ferries.db"
        await anyio.to_thread.run_sync(make, file)
        yield f"sqlite:///{file}"


def make(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((HERE / "tables.sql").read_text(encoding="utf-8"))


async def answer(task: Task, ctx: Context) -> str | Score:
    """Answer the question, or count how many of the file's are solved."""
    url = await ctx.resource("ferries", ferries)
    # The model of an agent that names none: that of --model, of AGENTRT_MODEL, or the embedded one.
    answerer = small_analyst(url) if ctx.model(None).name.startswith("local/") else analyst(url)
    if task.question:
        return await ctx.run(answerer, task.question)
    return await score(ctx, answerer, Case.read(task.questions), said)


def said(answer: str) -> str | None:
    return None if answer == UNKNOWN else answer


main = Graph("ferry_company", input=Task, budget=Budget(tokens=200_000))
main.chain(START, answer, END)


# What follows is for small models alone. Each draft goes on with a line like those of the worked examples before it;
# code links the question's words to columns and values, and the drafts that use all of them vote.


NOTES = json.loads((HERE / "notes.json").read_text(encoding="utf-8"))
TERMS: dict[str, str] = NOTES["terms"]
"""The beginnings of the words by which people mean a column, or what is computed of one."""
VALUES: dict[str, list[str]] = NOTES["values"]
EXAMPLES = [json.loads(line) for line in (HERE / "examples.jsonl").read_text(encoding="utf-8").splitlines()]
WORDS = (HERE / "words.txt").read_text(encoding="utf-8")
"""Python that the examples compute with, named as questions put it: a small model repeats better than it translates."""


class Draft(BaseModel):
    """An answer, with the line of Python that computed it."""

    question: str
    line: str
    answer: str


class Lines:
    """Write a question as text that goes on with a line of Python, below the examples that are most like it."""

    stop = ("\n",)

    def __init__(self, examples: int) -> None:
        self.examples = examples

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        question = messages[0].text
        examples = [{key: text.format(**subjects(question)) for key, text in example.items()} for example in EXAMPLES]
        likest = sorted(examples, key=lambda example: likeness(question, example["question"]))[-self.examples :]
        shots = "".join(f"{self.turn(e['question'])} {e['line']}\n\n" for e in likest)
        tried = zip(messages[1::2], messages[2::2], strict=True)
        return shots + self.turn(question) + "".join(f" {a.text}\nError: {b.text}\nPython:" for a, b in tried)

    def turn(self, question: str) -> str:
        return f"Question: {question}\nWords: {', '.join(links(question))}\nPython:"

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        line = text.strip()
        code = json.dumps({"code": f"{WORDS}\nprint({line})"})
        return AssistantMessage(line, (ToolCall(f"work{len(messages)}", "python", code),))

    def answer(self, messages: Sequence[Message]) -> str:
        return Draft(question=messages[0].text, line=messages[-2].text, answer=messages[-1].text).model_dump_json()


def subjects(question: str) -> dict[str, str]:
    """Return what the examples are about: what the question names, so that nothing else can be copied from them."""
    number = next(iter(re.findall(r"\d+", question)), "70")
    named = {column: next((v for v in known if v in question), known[0]) for column, known in VALUES.items()}
    return {**named, "number": number}


def links(question: str) -> list[str]:
    """Return what the question's words mean, and its values and numbers as SQL writes them."""
    found = [link for word in re.findall(r"\w+", question) for link in linked(word)]
    return [link for link in dict.fromkeys(found) if link != "name"]


def linked(word: str) -> list[str]:
    if word.isdigit():
        return [word]
    if any(word in known for known in VALUES.values()):
        return [f"'{word}'"]
    return [c for c, starts in TERMS.items() if word.lower().startswith(tuple(starts.split()))]


def shape(question: str) -> set[str]:
    """Return the words of a question, with columns in place of what means them and of their values."""
    kinds = {value: f"a {column}" for column, known in VALUES.items() for value in known}
    words = re.findall(r"\w+", re.sub(r"\d+", "number", question))
    return {part for w in words for part in ([kinds[w]] if w in kinds else linked(w) or [w.lower()])}


def likeness(question: str, other: str) -> float:
    ours, theirs = shape(question), shape(other)
    return len(ours & theirs) / len(ours | theirs)


def grounded(draft: Draft) -> bool:
    """Say whether a draft uses all that the question names, and no value that it does not name."""
    used, named = set(re.findall(r"'\w+'|\w+", draft.line)), set(links(draft.question))
    return named <= used and all(part in named for part in used if part[0] == "'" or part.isdigit())


def drafter(name: str, url: str, examples: int) -> Agent[object, Draft]:
    query, _ = sql(url, untrusted=False)
    tool = Python([query])
    settings = ModelSettings(max_tokens=60, temperature=0.0)
    return Agent(
        name, output=Draft, format=Lines(examples), tools=[tool], stop_at=[tool], settings=settings, max_turns=2
    )


def small_analyst(url: str) -> Node[str, str]:
    """Return a node in which drafters that see more and fewer examples vote, and say nothing without a majority."""
    drafters = [drafter(f"drafter_{n}", url, n) for n in (1, 2, 4)]
    panel = self_consistency(drafters, key=lambda draft: draft.answer, keep=grounded, name="panel")

    async def vote(question: str, ctx: Context) -> str:
        consensus = await ctx.run(panel, question)
        if consensus.answer is None or 2 * consensus.votes <= len(consensus.ballots):
            return UNKNOWN
        return consensus.answer.answer

    return FunctionNode(vote)
