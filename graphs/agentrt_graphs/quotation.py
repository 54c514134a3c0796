"""Quotation: a small model answers with words of a passage, where its readers agree, and else not at all.

Small models read better than they judge: code says which passage is about the question and whether an answer can be
one, and the vote of readers with different examples whether it is. The examples and the rules are for English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel

from agentrt import Agent, CitedAnswer, Context, FunctionNode, ModelSettings, Node, Passage
from agentrt.messages import AssistantMessage, Message, ToolSpec
from agentrt_graphs.self_consistency import self_consistency


class Evidence(BaseModel):
    """A question with the passage that may answer it."""

    question: str
    passage: Passage


class Finding(Evidence):
    """What a reader has found in the passage."""

    text: str


def quotation(
    library: Node[str, list[Passage]], unknown: str = "The documents do not say.", *, name: str = "quotation"
) -> Node[str, CitedAnswer]:
    """Return a node that answers a question with a quotation from the first passage that is about it.

    library: finds passages, the best first. unknown: what it answers, with no citation, where none is about the
    question, or fewer than two of the three readers quote the same. They use the run's model, which has to be one
    that completes raw text.
    """
    panel = self_consistency(READERS, key=lambda finding: plain(finding.text), keep=is_possible, name="panel")

    async def quote(question: str, ctx: Context) -> CitedAnswer:
        passage = next((p for p in await ctx.run(library, question) if is_about(question, p)), None)
        if passage is not None:
            consensus = await ctx.run(panel, Evidence(question=question, passage=passage))
            if consensus.answer is not None and consensus.votes > 1:
                return CitedAnswer(text=consensus.answer.text, citations=[passage])
        return CitedAnswer(text=unknown, citations=[])

    return FunctionNode(quote, name=name)


class Reading:
    """Write the likeliest sentences of a passage and the question, as text that goes on with the answer."""

    stop = ("\n",)

    def __init__(self, shots: Sequence[tuple[str, str, str]], sentences: int) -> None:
        self.shots = "".join(f"{self.turn(*shot[:2])} {shot[2]}\n\n" for shot in shots)
        self.sentences = sentences

    def turn(self, text: str, question: str) -> str:
        return f"Passage: {text}\nQuestion: {question}\nAnswer:"

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        evidence = Evidence.model_validate_json(messages[0].text)
        return self.shots + self.turn(best(evidence, self.sentences), evidence.question)

    def read(self, text: str, messages: Sequence[Message]) -> AssistantMessage:
        return AssistantMessage(text.strip().strip('"').rstrip("."))

    def answer(self, messages: Sequence[Message]) -> str:
        evidence = Evidence.model_validate_json(messages[0].text)
        return Finding(**dict(evidence), text=messages[-1].text).model_dump_json()


def reader(name: str, shots: Sequence[tuple[str, str, str]], sentences: int) -> Agent[Evidence, Finding]:
    settings = ModelSettings(max_tokens=24, temperature=0.0)
    return Agent(name, input=Evidence, output=Finding, format=Reading(shots, sentences), settings=settings)


SHOTS = (
    ("The ferry leaves at six and takes an hour.", "How long does the ferry take?", "an hour"),
    ("Orla Venn founded the museum in 1902.", "Who founded the museum?", "Orla Venn"),
    ("Hotel Marl. Its garden has a fountain.", "Which hotel has a fountain?", "Hotel Marl"),
    ("Tickets cost 12 crowns, for children 5.", "What do tickets cost?", "12 crowns"),
    ("The wine of the valley is called Old Smoke.", "What is the wine called?", "Old Smoke"),
    ("The stairs lead down to the port of Stell.", "Where do the stairs lead?", "the port of Stell"),
    ("The castle was burnt down in 1644.", "In which year was the castle burnt down?", "1644"),
    ("The tower is 30 metres high.", "How high is the tower?", "30 metres"),
)
READERS = [
    reader("skimmer", SHOTS[:5], 1),
    reader("scanner", SHOTS[3:], 2),
    reader("careful_reader", SHOTS[::2], 100),
]
KINDS = {
    r"\bwho(se|m)?\b": r"[A-Z]",
    r"\byear\b": r"\b\d{3,4}\b",
    r"\bhow (many|much|old|tall|high|far)\b|\bcost": r"\d",
}
"""What the answer to a question must have, by words of the question."""
COMMON = frozenset(
    re.findall(
        r"\w+",
        "the a an of in at on to for and is are was were be do does did has have had what which who whom whose when "
        "where how much many long year it its by with there that from",
    )
)


def is_about(question: str, passage: Passage) -> bool:
    """Say whether a passage, with its headings, has each name and number of the question, and half of its words."""
    text = f"{passage.title} {passage.text}"
    named, asked = re.findall(r"(?<!^)\b[A-Z]\w+|\d+", question), stems(question)
    return set(words(" ".join(named))) <= set(words(text)) and 2 * len(asked & stems(text)) >= len(asked)


def best(evidence: Evidence, sentences: int) -> str:
    """Return the sentences of the passage that have most of the question's words, below the last of its headings."""
    parts = re.split(r"(?<=[.;?!])\s+", " ".join(evidence.passage.text.split()))
    heading = evidence.passage.title.rpartition(" > ")[2]
    wanted = stems(evidence.question) - stems(heading)
    merit = [len(wanted & stems(part)) + 1.5 * is_kind(evidence.question, part) for part in parts]
    chosen = sorted(range(len(parts)), key=lambda i: -merit[i])[:sentences]
    return " ".join([*([f"{heading}."] if heading else []), *(parts[i] for i in sorted(chosen))])


def is_possible(finding: Finding) -> bool:
    """Say whether an answer stands in its passage as it is, is of the kind asked for, and is not the question's own."""
    passage = f"{finding.passage.title} {finding.passage.text}"
    found = is_in(finding.text, passage) and not is_in(finding.text, finding.question)
    return found and is_kind(finding.question, finding.text)


def is_kind(question: str, text: str) -> bool:
    return all(re.search(has, text) for asks, has in KINDS.items() if re.search(asks, question.lower()))


def is_in(answer: str, text: str) -> bool:
    return bool(plain(answer)) and f" {plain(answer)} " in f" {' '.join(words(text))} "


def plain(answer: str) -> str:
    """Return the words of an answer without an article before them."""
    return re.sub(r"^((the|a|an|in|at|on) )+", "", " ".join(words(answer)))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def stems(text: str) -> set[str]:
    return {word[:5] for word in words(text) if word not in COMMON}
