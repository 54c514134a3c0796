"""Ask a database: an agent that writes SQL, and computes with what it finds in a Python sandbox.

    agentrt run examples/analyst.py "How many passengers did the Heron carry on average?" --model openai/gpt-5-mini
    agentrt run examples/analyst.py "How many passengers did the Heron carry on average?"   with the embedded model
    agentrt run examples/analyst.py                                                         all questions, counted

The database of a small ferry company, which is fictional, is made for the run. A model of a provider gets tools: it
looks at the tables, asks them, and runs code that may ask them, too. The embedded model is too small for that: it
goes on with worked examples, one line of SQL and then one of Python, and solves 10 of the 12 questions, those that
are like an example.
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

from agentrt import END, START, Agent, AgentrtError, Budget, Context, Graph, ModelSettings
from agentrt.messages import AssistantMessage, Message, ToolCall, ToolMessage, ToolSpec
from agentrt_tools import Python, python, sql

# --- to copy: an agent with the tools of a database, and with Python that may ask it, too


INSTRUCTIONS = (
    "Answer questions about the database. Look at its schema first. Compute with python, never in your head. "
    "Answer with the number or the name alone; several names with commas between them."
)


def analyst(url: str) -> Agent[object, str]:
    # This program has written all that is in the database itself. Leave untrusted=False out where others write to
    # yours: then what it holds is marked as from outside.
    query, schema = sql(url, untrusted=False)
    return Agent("analyst", instructions=INSTRUCTIONS, tools=[schema, query, Python([query])])


# --- the database, and what is asked


TABLES = """
CREATE TABLE ferries (name TEXT PRIMARY KEY, harbour TEXT, seats INTEGER, built INTEGER, fare INTEGER);
CREATE TABLE crossings (ferry TEXT REFERENCES ferries, day TEXT, passengers INTEGER);
INSERT INTO ferries VALUES ('Heron', 'Dorrel', 120, 1987, 4), ('Otter', 'Zura', 80, 2005, 3),
    ('Petrel', 'Dorrel', 200, 2012, 6), ('Tern', 'Vell', 60, 1998, 2), ('Gannet', 'Zura', 150, 2001, 5);
INSERT INTO crossings VALUES
    ('Heron', 'Monday', 96), ('Heron', 'Tuesday', 81), ('Heron', 'Friday', 117), ('Otter', 'Monday', 44),
    ('Otter', 'Friday', 71), ('Petrel', 'Monday', 130), ('Petrel', 'Tuesday', 154), ('Petrel', 'Thursday', 98),
    ('Petrel', 'Friday', 190), ('Tern', 'Monday', 31), ('Tern', 'Tuesday', 22), ('Tern', 'Friday', 58),
    ('Gannet', 'Monday', 101), ('Gannet', 'Friday', 149);
"""
QUESTIONS = {
    "How many seats does the Petrel have?": "200",
    "In which year was the Tern built?": "1998",
    "How many passengers did the Heron carry in total?": "294",
    "How many passengers did the Heron carry on average?": "98",
    "How many passengers did the Petrel carry at most?": "190",
    "How many passengers did the Tern carry at least?": "22",
    "How many crossings did the Petrel make?": "4",
    "How many passengers were carried on Monday?": "402",
    "How many seats do the ferries of Dorrel have in total?": "320",
    "Which ferry was built first?": "Heron",
    "Which ferries are at home in Zura?": "Otter, Gannet",
    "What did the Heron earn on Friday?": "468",
}
"""Questions with their answers. Ten are like a worked example, about something else; two are like none."""


class Task(BaseModel):
    """What to do: answer one question, or without one count how many of the example's own are solved."""

    question: str = ""


# --- for the embedded model: lines that go on like the examples before them


KINDS = [
    ("How many seats does the {} have?", "SELECT seats FROM ferries WHERE name = '{}'", "first(values)"),
    ("In which year was the {} built?", "SELECT built FROM ferries WHERE name = '{}'", "first(values)"),
    ("How many passengers did the {} carry in total?", "{carried}", "total(values)"),
    ("How many passengers did the {} carry on average?", "{carried}", "average(values)"),
    ("How many passengers did the {} carry at most?", "{carried}", "most(values)"),
    ("How many passengers did the {} carry at least?", "{carried}", "least(values)"),
    ("How many crossings did the {} make?", "SELECT day FROM crossings WHERE ferry = '{}'", "count(values)"),
    (
        "How many passengers were carried on {day}?",
        "SELECT passengers FROM crossings WHERE day = '{day}'",
        "total(values)",
    ),
    (
        "How many seats do the ferries of {harbour} have in total?",
        "SELECT seats FROM ferries WHERE harbour = '{harbour}'",
        "total(values)",
    ),
    (
        "Which ferries are at home in {harbour}?",
        "SELECT name FROM ferries WHERE harbour = '{harbour}'",
        "every(values)",
    ),
    ("Which ferry has the most seats?", "SELECT name FROM ferries ORDER BY seats DESC", "first(values)"),
    ("Which ferry was built last?", "SELECT name FROM ferries ORDER BY built DESC", "first(values)"),
]
CARRIED = "SELECT passengers FROM crossings WHERE ferry = '{}'"
SUBJECTS = [("Otter", "Friday", "Vell"), ("Skua", "Sunday", "Marl"), ("Gannet", "Thursday", "Tarn")]
"""What the examples are about; no question is. Not all of it is in the database."""
EXAMPLES = [
    tuple(part.replace("{carried}", CARRIED).format(ferry, day=day, harbour=harbour) for part in kind)
    for kind in KINDS
    for ferry, day, harbour in SUBJECTS
]


WORDS = """
def total(values): return sum(values)
def average(values): return sum(values) / len(values)
def most(values): return max(values)
def least(values): return min(values)
def count(values): return len(values)
def first(values): return values[0]
def every(values): return ', '.join(values)
"""
"""What the examples compute with, named as questions put it: a small model repeats words better than it translates."""


class Unanswered(AgentrtError):
    """Say why the small model has no answer; an error that its tools told it is none."""


class Lines:
    """Write a question with a line of SQL, then with a line of Python on the `values` of the column that came.

    Before it stand the four examples that are most like it, the likest last: with all of them, whatever their kind,
    the model solved 1 of the 12.
    """

    stop = ("\n",)

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        question = messages[0].text
        examples = sorted(EXAMPLES, key=lambda example: likeness(question, example[0]))[-4:]
        if len(messages) == 1:
            shots = "".join(f"Question: {q}\nSQL: {statement}\n\n" for q, statement, _ in examples)
            return f"{shots}Question: {question}\nSQL:"
        shots = "".join(f"Question: {q}\nPython: {code}\n\n" for q, _, code in examples)
        return f"{shots}Question: {question}\nPython:"

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        line = text.strip()
        if (failed := next((m for m in messages if isinstance(m, ToolMessage) and m.failed), None)) is not None:
            raise Unanswered(f"what it wrote does not run: {failed.text}")
        table = next((m for m in messages if isinstance(m, ToolMessage)), None)
        if table is None:
            return AssistantMessage(line, (ToolCall("ask", "sql_query", json.dumps({"statement": line})),))
        code = f"{WORDS}values = {values(table.text)!r}\nprint({line})"
        return AssistantMessage(line, (ToolCall("work", "python", json.dumps({"code": code})),))

    def answer(self, messages: Sequence[Message]) -> str:
        return messages[-1].text


def likeness(question: str, other: str) -> float:
    """Return which share of the words of two questions both have."""
    words, others = (set(re.findall(r"[a-z]+", text.lower())) for text in (question, other))
    return len(words & others) / len(words | others)


def values(table: str) -> list[int | str]:
    """Return the first column of what the database answered."""
    cells = [line.split(" | ")[0] for line in table.splitlines()[1:]]
    return [int(cell) if cell.lstrip("-").isdigit() else cell for cell in cells]


def small_analyst(url: str) -> Agent[object, str]:
    query, _ = sql(url, untrusted=False)
    settings = ModelSettings(max_tokens=40, temperature=0.0)
    return Agent("analyst", format=Lines(), tools=[query, python], stop_at=[python], settings=settings, max_turns=3)


# --- the whole: one question, or all of them


@asynccontextmanager
async def ferries() -> AsyncIterator[str]:
    """Make the database, and return its address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ferries.db"
        await anyio.to_thread.run_sync(make, file)
        yield f"sqlite:///{file}"


def make(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(TABLES)


async def chosen(ctx: Context) -> Agent[object, str]:
    """Return the analyst for the model that the run was given."""
    url = await ctx.resource("ferries", ferries)
    return (small_analyst if ctx.model(None).name.startswith("local/") else analyst)(url)


async def answer(task: Task, ctx: Context) -> str:
    """Answer one question."""
    return await ctx.run(await chosen(ctx), task.question)


class Row(BaseModel):
    question: str
    answer: str
    solved: bool


async def count(ctx: Context) -> list[Row]:
    """Ask every question side by side, and compare the answers with what is true."""
    agent = await chosen(ctx)
    told = [t.outcome for t in await ctx.gather([(agent, question) for question in QUESTIONS])]
    rows = [
        Row(question=question, answer=str(said)[:200], solved=plain(str(said)) == plain(true))
        for (question, true), said in zip(QUESTIONS.items(), told, strict=True)
    ]
    ctx.emit(f"{sum(row.solved for row in rows)} of {len(rows)} solved")
    return rows


def plain(text: str) -> str:
    """Return an answer without what does not count: case, a dot at its end, the part of a number that is zero."""
    return text.strip().rstrip(".").removesuffix(".0").lower()


main = Graph("ferry_company", input=Task, budget=Budget(tokens=200_000))
main.edge(START, answer, when=lambda task: bool(task.question))
main.edge(START, count)
main.edge([answer, count], END)
