"""Book a trip: a run that asks a person before it pays, and survives a kill.

    agentrt run examples/travel.py "Lisbon"        # parks: it asks how many nights
    agentrt inbox                                  # what it asks, and what to type
    agentrt answer last 3
    agentrt resume last                            # from any process; parks again: may it pay 240?
    agentrt approve last --edit '{"amount": 200}'
    agentrt resume last                            # what was done is not done again

Kill it at any moment (kill -9) and `agentrt resume last` goes on: finished steps answer from the record, a search that
was cut off is made again, and of a payment that was cut off a person is asked whether it has happened (`settle` it, and
resume once more). Its models are played by functions, so that it runs without a key; put names of real ones in their
place.
"""

from __future__ import annotations

import json

import anyio

from agentrt import END, START, Agent, Context, Graph, collect, tool
from agentrt.messages import AssistantMessage, ToolCall, ToolMessage
from agentrt.model import ModelRequest
from agentrt.testing import FunctionModel

PRICES = {"Alfama Rooms": 80, "Chiado Palace": 210}


@tool(effect="idempotent")
async def search_hotels(city: str) -> list[str]:
    """Search hotels in a city, with their prices a night."""
    await anyio.sleep(1)
    return [f"{name}, {city}: {price} a night" for name, price in PRICES.items()]


@tool(effect="unsafe", approval=lambda call: call["amount"] > 100)
async def pay(hotel: str, amount: int) -> str:
    """Pay a hotel."""
    await anyio.sleep(1)
    return f"paid {amount} to {hotel}"


def travel_agent(request: ModelRequest) -> AssistantMessage:
    """Search, pay for the cheapest hotel, and say so."""
    told = [m for m in request.messages if isinstance(m, ToolMessage)]
    if not told:
        city = request.messages[-1].text.split(" nights in ")[1]
        return AssistantMessage("I look for a hotel.", (ToolCall("1", "search_hotels", json.dumps({"city": city})),))
    if told[-1].name == "search_hotels":
        nights = int(request.messages[1].text.split()[0])
        call = json.dumps({"hotel": "Alfama Rooms", "amount": nights * PRICES["Alfama Rooms"]})
        return AssistantMessage("Alfama Rooms is the cheapest.", (ToolCall("2", "pay", call),))
    return AssistantMessage(f"Booked: {told[-1].text}.")


booker = Agent(
    "booker",
    model=FunctionModel(travel_agent),
    tools=[search_hotels, pay],
    instructions="Book the cheapest hotel and pay for it.",
)


async def plan(city: str, ctx: Context) -> str:
    """Ask how long the trip is to be."""
    nights = await ctx.ask(f"How many nights in {city}?", int, timeout=3 * 24 * 3600, default=2)
    return f"{nights} nights in {city}"


async def weather(city: str) -> str:
    """Say what to pack."""
    return f"{city}: sun"


book = Graph("book", input=str, output=str)
book.chain(START, plan, booker, END)

main = Graph("travel", input=str, output=list[str])
main.edge(START, [book, weather])
main.edge((book, weather), END, join=collect)
