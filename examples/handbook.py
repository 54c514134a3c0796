"""Four ways to get more out of one small model: questions on a guide book that no model has ever read.

    agentrt run examples/handbook.py                                        compare the ways on 32 questions
    agentrt run examples/handbook.py "What do 9 nights at the Zura Inn cost?"      answer one, with its source
    agentrt run examples/handbook.py "Who is to be called?" --documents ~/notes    ask your own text files

The same model answers directly, with retrieval, as an agent with retrieval and a calculator as tools, and as a
swarm of such agents that votes. Each way is a graph; all of them share one budget.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    Context,
    Graph,
    Index,
    ModelSettings,
    Node,
    Passage,
    Retriever,
    collect,
)
from agentrt.messages import AssistantMessage, Message, ToolCall, ToolMessage, ToolSpec
from agentrt.stores.fts import FullTextIndex, read_passages
from agentrt_graphs import Consensus, count_votes, self_consistency
from agentrt_tools import calculator
from agentrt_tools.calculator import CalculationError, evaluate

HERE = Path(__file__).parent / "handbook"
GREEDY = ModelSettings(max_tokens=40, temperature=0.0)


class Task(BaseModel):
    """What to do: answer one question, or without one compare the ways on the guide book's own questions."""

    question: str = ""
    documents: Path = HERE / "guide"


@dataclass(frozen=True)
class Finding:
    """An answer, with the line that the model wrote for it and the passage it read."""

    question: str
    answer: str
    line: str
    passage: str = ""
    title: str = ""
    source: str = ""


@dataclass(frozen=True)
class Example:
    """A worked example, on a passage that no question is about; `work` is the answer or the bare expression."""

    question: str
    passage: Passage
    work: str
    answer: str


# --- how the conversation is written for a small model: as text that goes on like the examples before it


class Direct:
    """Write questions and answers, nothing else."""

    stop = ("\n",)

    def __init__(self, examples: Sequence[Example]) -> None:
        self.shots = "".join(f"Question: {e.question}\nAnswer: {e.answer}\n\n" for e in examples)

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        return f"{self.shots}Question: {messages[0].text}\nAnswer:"

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        return AssistantMessage(text.strip())

    def answer(self, messages: Sequence[Message]) -> str:
        return finding(messages[0].text, messages[-1].text)


class Reading:
    """Write the passage found before the question; the model answers in plain words."""

    stop = ("\n",)

    def __init__(self, examples: Sequence[Example]) -> None:
        self.shots = "".join(f"{reading(e.question, view(e.passage))} {e.answer}\n\n" for e in examples)

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        evidence = json.loads(messages[0].text)
        return self.shots + reading(evidence["question"], view(Passage(**evidence["passage"])))

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        return AssistantMessage(text.strip())

    def answer(self, messages: Sequence[Message]) -> str:
        evidence = json.loads(messages[0].text)
        return finding(evidence["question"], messages[-1].text, Passage(**evidence["passage"]))


class Working:
    """Let the model search, read and compute: `Search: …` calls the guide, a bare expression calls the calculator."""

    stop = ("\n",)

    def __init__(self, examples: Sequence[Example], *, sentences: int | None = None) -> None:
        self.sentences = sentences
        self.searches = "".join(f"Question: {e.question}\nSearch: {e.question.rstrip('?')}\n\n" for e in SEARCHES)
        self.shots = "".join(f"{self.turn(e.question, e.passage)} {e.work}\n\n" for e in examples)

    def turn(self, question: str, passage: Passage) -> str:
        return reading(question, view(passage, question, self.sentences))

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        question, passage = messages[0].text, found(messages)
        if passage is None:
            return f"{self.searches}Question: {question}\n"
        return self.shots + self.turn(question, passage)

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        line = text.strip()
        if found(messages) is None and line.startswith("Search:"):
            query = json.dumps({"query": line.removeprefix("Search:").strip()})
            return AssistantMessage(line, (ToolCall("search", "guide", query),))
        if is_expression(line):
            return AssistantMessage(line, (ToolCall("work", "calculator", json.dumps({"expression": line})),))
        return AssistantMessage(line)

    def answer(self, messages: Sequence[Message]) -> str:
        line = next(m.text for m in reversed(messages) if isinstance(m, AssistantMessage))
        return finding(messages[0].text, messages[-1].text, found(messages), line)


def reading(question: str, passage: str) -> str:
    return f"Passage: {passage}\nQuestion: {question}\nAnswer:"


def view(passage: Passage, question: str = "", sentences: int | None = None) -> str:
    """Return the passage under its title, or only the sentences that share most words with the question."""
    title = f"{passage.title}. " if passage.title else ""
    if sentences is None:
        return title + passage.text
    parts = re.split(r"(?<=[.;?!])\s+", passage.text)
    wanted = stems(question) - stems(passage.title)
    numeric = asks_for_number(question) or "year" in question

    def score(part: str) -> float:
        return len(wanted & stems(part)) + (1.5 if numeric and re.search(r"\d", part) else 0)

    best = sorted(range(len(parts)), key=lambda i: -score(parts[i]))[:sentences]
    return title + " ".join(parts[i] for i in sorted(best))


def found(messages: Sequence[Message]) -> Passage | None:
    """Return the best passage that the conversation has found so far."""
    for message in messages:
        if isinstance(message, ToolMessage) and message.name == "guide" and not message.failed:
            passages = json.loads(message.text)
            return _read(passages[0]) if passages else None
    return None


def _read(shown: Mapping[str, str]) -> Passage:
    return Passage(text=shown["text"], title=shown.get("title", ""), source=shown["id"].rpartition("#")[0])


def finding(question: str, answer: str, passage: Passage | None = None, line: str | None = None) -> str:
    place = {} if passage is None else {"passage": passage.text, "title": passage.title, "source": passage.source}
    return json.dumps({"question": question, "answer": answer, "line": answer if line is None else line, **place})


# --- what can be checked without knowing the answer


def grounded(finding: Finding) -> bool:
    """Say whether an answer follows from passage and question: its numbers are theirs, or its words are the passage's.

    A question for an amount must be computed, from every number it names; any other must not.
    """
    passage = f"{finding.title}. {finding.passage}"
    if not asks_for_number(finding.question):
        said = plain(finding.line)
        return (
            bool(said)
            and not is_expression(finding.line)
            and said in passage.lower()
            and said not in plain(finding.question)
        )
    if not is_expression(finding.line):
        return False
    used, asked, read = (set(re.findall(r"\d+", t)) for t in (finding.line, finding.question, passage))
    read |= {str(i) for i, word in enumerate(WORDS) if re.search(rf"\b{word}\b", passage.lower())}
    value = evaluate(finding.line)
    return used <= asked | read and bool(used & read) and asked <= used and value > 0 and value.denominator == 1


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COMMON = frozenset(
    "the a an of in at on to for and is are was were do does did what which who how much many it its by".split()  # noqa: SIM905
)


def asks_for_number(question: str) -> bool:
    return bool(re.search(r"\b(how much|how many|costs?|old)\b|\d", question.lower()))


def is_expression(line: str) -> bool:
    """Say whether a line is arithmetic with at least one operator."""
    if not re.fullmatch(r"[\d\s.+*/()-]*\d\s*[-+*/]\s*[(\d][\d\s.+*/()-]*", line):
        return False
    try:
        evaluate(line)
    except CalculationError:
        return False
    return True


def stems(text: str) -> set[str]:
    return {w[:5] for w in re.findall(r"[a-z]+", text.lower()) if w not in COMMON}


def plain(answer: str) -> str:
    """Return an answer without case, quotes and a leading article, for comparing."""
    return re.sub(r"^(the|in|at|on) ", "", answer.strip().strip(".\"'").lower())


# --- the four ways, each a graph of its own


def ways(index: Index) -> list[Graph[list[str], list[Finding]]]:
    guide = Retriever("guide", index, k=1, description="Search the guide for the passage about something.")
    eight, early, late = EXAMPLES[:8], [*EXAMPLES[:6], *EXAMPLES[8:14]], EXAMPLES[11:23]

    def worker(name: str, examples: Sequence[Example], sentences: int | None = None) -> Agent[object, Finding]:
        text = Working(examples, sentences=sentences)
        tools = [guide, calculator]
        return Agent(name, output=Finding, tools=tools, stop_at=[calculator], format=text, settings=GREEDY)

    directly = Agent("answerer", output=Finding, format=Direct(eight), settings=GREEDY)
    reader = Agent("reader", output=Finding, format=Reading(eight), settings=GREEDY)
    retrieval = Graph("look_up", input=str, output=Finding)
    retrieval.chain(START, guide, with_question, reader, END)
    pair = [worker("skimmer", early, 1), worker("scanner", late, 1)]
    panel = self_consistency(pair, key=key, keep=grounded, name="panel")
    third = worker("careful_reader", eight)

    async def recount(finding: Finding, ctx: Context) -> Consensus[Finding]:
        """Count again, with the third reader's answer."""
        ballots = ctx.latest(panel).ballots
        return count_votes([*ballots, finding] if grounded(finding) else ballots, key, 3)

    swarm = Graph("vote", input=str, output=Finding)
    swarm.edge(START, panel)
    swarm.edge(panel, elected, when=lambda consensus: consensus.votes == 2)
    swarm.edge(panel, third, send=START)
    swarm.chain(third, recount, elected, END)
    return [
        over_questions("directly", directly),
        over_questions("retrieval", retrieval),
        over_questions("agent", worker("worker", eight)),
        over_questions("swarm", swarm),
    ]


def key(finding: Finding) -> str:
    """Return what makes two answers the same vote."""
    return plain(finding.answer)


def over_questions(name: str, answerer: Node[str, Finding]) -> Graph[list[str], list[Finding]]:
    """Fork over the questions and collect the answers in order."""
    graph = Graph(name, input=list[str], output=list[Finding])
    graph.edge(START, answerer, each=True)
    graph.edge(answerer, END, join=collect)
    return graph


async def with_question(passages: list[Passage], ctx: Context) -> dict[str, object]:
    """Put the question that was searched for beside the passage that was found."""
    best = passages[0] if passages else Passage(text="", source="")
    return {"question": ctx.latest(START), "passage": asdict(best)}


async def elected(consensus: Consensus[Finding], ctx: Context) -> Finding:
    """Return the answer with most votes, or none where every answer was left out."""
    return consensus.answer or Finding(ctx.latest(START), "", "")


# --- the whole: one question, or all of them in every way


class Row(BaseModel):
    """What one way solved and used; the properties are for people, beside the figures."""

    way: str
    solved: int
    asked: int
    tokens: int
    seconds: float
    best_before: int = Field(default=0, exclude=True)

    @property
    def tokens_per_solved(self) -> int | None:
        return self.tokens // self.solved if self.solved else None

    @property
    def pays(self) -> str:
        gain = self.solved - self.best_before
        return f"yes, {gain} more" if gain > 0 else "no, not one more"


async def compare(task: Task, ctx: Context) -> list[Row]:
    """Ask every question in every way, and count what was solved and what it took."""
    asked = read_rows("questions.jsonl")
    rows: list[Row] = []
    for way in ways(FullTextIndex.load(task.documents)):
        before, began = ctx.budget.spent["tokens"], time.perf_counter()
        findings = await ctx.run(way, [row["question"] for row in asked])
        row = Row(
            way=way.name,
            solved=sum(plain(f.answer) == plain(row["answer"]) for f, row in zip(findings, asked, strict=True)),
            asked=len(asked),
            tokens=int(ctx.budget.spent["tokens"] - before),
            seconds=round(time.perf_counter() - began, 1),
            best_before=max((r.solved for r in rows), default=0),
        )
        rows.append(row)
        ctx.emit(f"{row.way}: {row.solved} of {row.asked} solved with {row.tokens:,} tokens in {row.seconds:.0f} s")
    return rows


async def answer(task: Task, ctx: Context) -> dict[str, object]:
    """Answer one question with the swarm, and say where the answer stands."""
    swarm = ways(FullTextIndex.load(task.documents))[-1]
    (result,) = await ctx.run(swarm, [task.question])
    if not result.answer:
        return {"answer": "none that the documents support"}
    work = {"work": result.line} if result.line != result.answer else {}
    place = ": ".join(filter(None, (result.source, result.title)))
    return {"answer": result.answer, **work, "source": place, "passage": result.passage}


def read_rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def read_examples() -> list[Example]:
    passages = {p.title: p for p in read_passages(HERE / "guide")}
    return [
        Example(row["question"], passages[row["passage"]], row["work"], row["answer"])
        for row in read_rows("examples.jsonl")
    ]


EXAMPLES = read_examples()
SEARCHES = EXAMPLES[:8]

handbook = Graph("handbook", input=Task, budget=Budget(tokens=400_000))
handbook.edge(START, answer, when=lambda task: bool(task.question))
handbook.edge(START, compare)
handbook.edge([answer, compare], END)
