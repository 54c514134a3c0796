"""What several prompts begin with is read once."""

from os.path import commonprefix

from hypothesis import given
from hypothesis.strategies import text

from agentrt.models.prefix import WORTH, SlotTable, _common

EXAMPLES = "Question: who?\nAnswer: me\n" * (WORTH // 20)
PROMPTS = [f"{EXAMPLES}Question: {word}?\nAnswer:" for word in ("where", "when", "which")]


def table(*prompts: str, slots: int = 3) -> SlotTable:
    made = SlotTable(slots)
    for prompt in prompts:
        made.announce(prompt)
    return made


def test_what_prompts_share_is_worth_saving_up_to_a_whole_line() -> None:
    assert table(*PROMPTS).worth_saving(PROMPTS[0]) == EXAMPLES


def test_a_prompt_alone_or_a_short_beginning_is_not() -> None:
    assert table(PROMPTS[0]).worth_saving(PROMPTS[0]) is None
    assert table("one two", "one three").worth_saving("one two") is None


def test_a_prompt_asked_again_elsewhere_is_worth_saving() -> None:
    slots = table(PROMPTS[0])
    slots.take(PROMPTS[0])
    assert slots.worth_saving(PROMPTS[0]) is None
    slots.take(PROMPTS[0])
    assert slots.worth_saving(PROMPTS[0]) == PROMPTS[0].removesuffix("Answer:")


def test_what_is_saved_is_not_saved_again() -> None:
    slots = table(*PROMPTS)
    file = slots.save(EXAMPLES)
    assert slots.worth_saving(PROMPTS[1]) is None
    assert slots.saved(PROMPTS[1]) == (EXAMPLES, file)
    slots.drop(EXAMPLES)
    assert slots.saved(PROMPTS[1]) is None


def test_a_slot_that_knows_the_beginning_is_taken_and_needs_no_restoring() -> None:
    slots = table(*PROMPTS)
    first = slots.take(PROMPTS[0])
    assert first is not None
    assert slots.is_worth_restoring(EXAMPLES, first, PROMPTS[0])
    slots.give_back(first, PROMPTS[0])
    again = slots.take(PROMPTS[1])
    assert again is first
    assert not slots.is_worth_restoring(EXAMPLES, again, PROMPTS[1])


def test_of_slots_that_know_nothing_the_one_with_least_to_lose_is_taken() -> None:
    slots = table(slots=2)
    slots.slots[0].text = PROMPTS[0]
    taken = slots.take("another")
    assert taken is slots.slots[1]
    assert slots.take("another") is slots.slots[0]
    assert slots.take("another") is None


def test_slots_the_server_chose_are_forgotten_unless_they_are_ours() -> None:
    slots = table(slots=2)
    for slot in slots.slots:
        slot.text = "known"
    ours = slots.take("known")
    slots.forget()
    assert [slot.text for slot in slots.slots if slot is not ours] == [""]
    assert ours is not None
    assert ours.text == "known"


def test_files_are_used_again() -> None:
    slots = table()
    files = {slots.save(f"{i}") for i in range(20)}
    assert len(files) == 8
    assert slots.saved("0") is None


@given(text("ab"), text("ab"), text("ab"))
def test_how_far_texts_are_alike(start: str, one: str, other: str) -> None:
    assert _common(start + one, start + other) == len(commonprefix((start + one, start + other)))  # noqa: RUF071


def test_a_prompt_that_is_announced_twice_is_one() -> None:
    """It shares nothing with itself before it was asked."""
    assert table(PROMPTS[0], PROMPTS[0]).worth_saving(PROMPTS[0]) is None
