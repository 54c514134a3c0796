"""An embedder for tests that knows what a few words mean."""

from __future__ import annotations

from agentrt.testing import FunctionEmbedder

TOPICS = ("sleep", "travel", "food", "money")
MEANINGS = {
    "inn": "sleep", "hotel": "sleep", "night": "sleep", "rooms": "sleep", "bed": "sleep",
    "ferry": "travel", "boat": "travel", "lake": "travel", "ship": "travel", "vessel": "travel",
    "soup": "food", "bread": "food", "eat": "food", "meal": "food",
    "crowns": "money", "cost": "money", "price": "money",
}  # fmt: skip


def meaning(text: str) -> list[float]:
    found = [MEANINGS.get(word.strip(".,?!").lower()) for word in text.split()]
    return [*(float(found.count(topic)) for topic in TOPICS), 0.1, 0, 0, 0]


def topical(name: str = "test/topics", **options: int) -> FunctionEmbedder:
    return FunctionEmbedder(meaning, 8, name=name, **options)
