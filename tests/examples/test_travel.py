"""The trip that asks a person, from the question to the hotel."""

from __future__ import annotations

import pytest

from agentrt import resume, run
from agentrt.people import answer, approve, inbox
from agentrt.stores import MemoryJournal
from examples import travel

pytestmark = pytest.mark.anyio


async def test_a_trip_is_asked_about_approved_and_booked() -> None:
    """It parks for each question, does the rest meanwhile, and pays what was approved."""
    journal = MemoryJournal()
    result = await run(travel.main, "Lisbon", journal=journal)
    assert [q.asked.prompt for q in await inbox(journal)] == ["How many nights in Lisbon?"]
    await answer(journal, result.run_id, 3)
    result = await resume(travel.main, result.run_id, journal=journal)
    (question,) = await inbox(journal)
    assert question.asked.about["arguments"] == {"hotel": "Alfama Rooms", "amount": 240}
    await approve(journal, result.run_id, edit={"amount": 200})
    result = await resume(travel.main, result.run_id, journal=journal)
    assert result.output == ["Booked: paid 200 to Alfama Rooms.", "Lisbon: sun"]


async def test_a_cheap_trip_needs_no_approval() -> None:
    """The policy looks at the amount."""
    journal = MemoryJournal()
    result = await run(travel.main, "Lisbon", journal=journal)
    await answer(journal, result.run_id, 1)
    assert (await resume(travel.main, result.run_id, journal=journal)).output[0] == "Booked: paid 80 to Alfama Rooms."
