"""Handoffs: a conversation goes from agent to agent, along edges."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    DefinitionError,
    Graph,
    GraphError,
    Handoff,
    collect,
    guarded,
    handoff,
    keep_last,
    run,
    tool,
    without_tools,
)
from agentrt import events as ev
from agentrt.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from agentrt.testing import FunctionModel, ScriptedModel, call

pytestmark = pytest.mark.anyio


@tool
async def look_up(order: int) -> str:
    """Look up an order."""
    return f"order {order}: paid"


def desk(triage: Any, *others: Any) -> Graph[str, str]:
    """Build a graph in which a customer meets triage first and whoever answers ends it."""
    graph = Graph("desk", input=str, output=str)
    graph.edge(START, triage)
    graph.edge((triage, *others), END)
    return graph


def over(to: str, reason: str = "money") -> ToolCall:
    return call(f"transfer_to_{to}", reason=reason)


async def test_an_agent_hands_its_conversation_over() -> None:
    """The other goes on with it, under its own instructions, and its answer is the graph's."""
    first = ScriptedModel([call("look_up", order=7), [over("billing", "they want a refund")]])
    second = ScriptedModel(["refunded"])
    triage = Agent("triage", model=first, instructions="sort", tools=[look_up], handoffs=["billing"])
    billing = Agent("billing", model=second, instructions="bill", description="Knows about money.")
    record: list[Any] = []
    result = await run(desk(triage, billing), "my order 7?", observers=[record.append])
    assert result.output == "refunded"
    assert second.requests[0].messages == (
        SystemMessage("bill"),
        UserMessage("my order 7?"),
        AssistantMessage("", (ToolCall("call-1", "look_up", '{"order": 7}'),)),
        ToolMessage("call-1", "look_up", "order 7: paid"),
        UserMessage("(triage handed the conversation over to billing: they want a refund)"),
    )
    paths = [e.path for e in record if isinstance(e, ev.StepStarted) and e.kind == "agent"]
    assert paths == ["desk/triage", "desk/billing"]


async def test_the_model_is_offered_a_tool_for_each() -> None:
    """Described in the target's words, or those of the handoff."""
    model = ScriptedModel(["done"])
    triage = Agent("triage", model=model, handoffs=["billing", handoff("refunds", description="Only for refunds.")])
    billing = Agent("billing", description="Knows about money.")
    await run(desk(triage, billing, Agent("refunds", description="x")), "hi")
    assert [(t.name, t.description) for t in model.requests[0].tools] == [
        ("transfer_to_billing", "Hand the conversation over to billing. Knows about money."),
        ("transfer_to_refunds", "Hand the conversation over to refunds. Only for refunds."),
    ]
    assert model.requests[0].tools[0].parameters["required"] == ["reason"]


async def test_outside_a_graph_there_is_nobody_to_hand_over_to() -> None:
    """So an agent that is run alone, or is a tool, gives what its type says."""
    model = ScriptedModel([over("billing"), "done"])
    triage = Agent("triage", model=model, handoffs=["billing"], description="sorts")
    assert (await run(triage, "hi")).output == "done"
    assert model.requests[0].tools == ()
    assert "unknown tool" in model.requests[1].messages[-1].text


async def test_what_goes_over_can_be_filtered() -> None:
    """By any function of the messages; what it tears apart is left out."""

    def torn(messages: Any) -> list[Message]:
        return [m for m in messages if not isinstance(m, AssistantMessage)]

    for history, kept in [(keep_last(1), []), (torn, ["my order?"]), (without_tools, ["my order?"])]:
        first = ScriptedModel([call("look_up", order=7), over("billing")])
        second = ScriptedModel(["refunded"])
        triage = Agent("triage", model=first, tools=[look_up], handoffs=[handoff("billing", history=history)])
        await run(desk(triage, Agent("billing", model=second)), "my order?")
        assert [m.text for m in second.requests[0].messages[:-1]] == kept


async def test_agents_hand_back_and_forth() -> None:
    """A cycle; each keeps its conversation on the branch and hears only what is new."""
    first = ScriptedModel([over("billing", "pay"), "all done"])
    second = ScriptedModel([AssistantMessage("paid.", (over("triage", "back"),))])
    triage = Agent("triage", model=first, handoffs=[handoff("billing", history=keep_last(0))], history="branch")
    billing = Agent("billing", model=second, handoffs=["triage"], history="branch")
    graph = desk(triage, billing)
    assert (await run(graph, "hi")).output == "all done"
    assert [m.text for m in second.requests[0].messages] == ["(triage handed the conversation over to billing: pay)"]
    assert [m.text for m in first.requests[1].messages] == [
        "hi",
        "(triage handed the conversation over to billing: pay)",
        "paid.",
        "(billing handed the conversation over to triage: back)",
    ]


async def test_a_conversation_that_comes_back_whole_is_not_doubled() -> None:
    """What the branch's agent knows, it knows."""
    first = ScriptedModel([call("look_up", order=1), over("billing", "pay"), over("billing", "pay"), "all done"])
    second = ScriptedModel([over("triage", "back")] * 2)
    triage = Agent("triage", model=first, tools=[look_up], handoffs=["billing"], history="branch")
    billing = Agent("billing", model=second, handoffs=["triage"], history="branch")
    assert (await run(desk(triage, billing), "hi")).output == "all done"
    there, back = (f"({a} handed the conversation over to {b}: {r})" for a, b, r in
                   [("triage", "billing", "pay"), ("billing", "triage", "back")])  # fmt: skip
    assert [m.text for m in first.requests[-1].messages] == ["hi", "", "order 1: paid", there, back, there, back]


async def test_endless_handoffs_end_with_the_budget() -> None:
    """Nobody need count them."""

    def reply(request: Any) -> ToolCall:
        return over(request.tools[0].name.removeprefix("transfer_to_"))

    a, b = (Agent(n, model=FunctionModel(reply), handoffs=[o]) for n, o in [("a", "b"), ("b", "a")])
    with pytest.raises(BudgetExceeded):
        await run(desk(a, b), "hi", budget=Budget(steps=50))


async def test_branches_of_a_fork_hand_over_by_themselves() -> None:
    """Each its own conversation, and each joins by whoever answers it."""

    def sort(request: Any) -> Any:
        text = request.messages[-1].text
        return over("billing") if "money" in text else f"{text}: sorted"

    triage = Agent("triage", model=FunctionModel(sort), handoffs=["billing"])
    billing = Agent("billing", model=FunctionModel(lambda r: f"{r.messages[0].text}: billed"))
    graph = Graph("desk", input=list, output=list)
    graph.edge(START, triage, each=True)
    graph.edge((triage, billing), END, join=collect)
    questions = ["money 0", "door 1", "money 2"]
    assert (await run(graph, questions)).output == ["money 0: billed", "door 1: sorted", "money 2: billed"]


async def test_tools_beside_a_handoff_are_used_first_and_the_first_handoff_counts() -> None:
    """Their results go over; the other handoffs do not."""
    first = ScriptedModel([[over("refunds", "a"), call("look_up", order=7), over("billing", "b")]])
    second = ScriptedModel(["refunded"])
    triage = Agent("triage", model=first, tools=[look_up], handoffs=["billing", "refunds"])
    await run(desk(triage, Agent("billing"), Agent("refunds", model=second)), "hi")
    assert [(m.role, m.text) for m in second.requests[0].messages] == [
        ("user", "hi"),
        ("assistant", ""),
        ("tool", "order 7: paid"),
        ("user", "(triage handed the conversation over to refunds: a)"),
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"), [('{"reason": "x"}', "x"), ("{}", ""), ("", ""), ("please", "please"), ('["y"]', "['y']")]
)
async def test_a_reason_in_a_wrong_form_is_a_reason(arguments: str, reason: str) -> None:
    """Small models write what they like."""
    seen: list[Handoff] = []

    async def person(given: Handoff) -> str:
        seen.append(given)
        return "answered"

    model = ScriptedModel([ToolCall("1", "transfer_to_person", arguments)])
    await run(desk(Agent("triage", model=model, handoffs=["person"]), person), "hi")
    assert [(h.source, h.to, h.reason, h.input) for h in seen] == [("triage", "person", reason, "hi")]


async def test_the_first_input_is_what_typed_agents_and_guardrails_see() -> None:
    """A handoff between agents of one input type keeps to it."""
    seen: list[object] = []

    async def look(value: dict[str, int]) -> None:
        seen.append(value)

    def instruct(value: dict[str, int]) -> str:
        return f"order {value['order']}"

    model = ScriptedModel(["done"])
    billing = Agent("billing", input=dict[str, int], model=model, instructions=instruct)
    first = ScriptedModel([over("billing")])
    triage = guarded(Agent("triage", input=dict[str, int], model=first, handoffs=["billing"]), after=[look])
    graph = Graph("desk", input=dict[str, int], output=str)
    graph.edge(START, triage)
    guarded_billing = guarded(billing, before=[look])
    graph.edge((triage, guarded_billing), END)
    assert (await run(graph, {"order": 7})).output == "done"
    assert model.requests[0].messages[0] == SystemMessage("order 7")
    assert seen == [{"order": 7}]


async def test_a_graph_takes_a_conversation_over() -> None:
    """For the agent it begins with."""
    inner = Graph("billing", input=str, output=str)
    model = ScriptedModel(["done"])
    inner.chain(START, Agent("clerk", model=model), END)
    triage = Agent("triage", model=ScriptedModel([over("billing")]), handoffs=["billing"])
    assert (await run(desk(triage, inner), "hi")).output == "done"
    assert [m.text for m in model.requests[0].messages] == [
        "hi",
        "(triage handed the conversation over to billing: money)",
    ]


def test_names_that_lead_nowhere_are_problems() -> None:
    """All at once, each with what to do; and so is a node that takes something else."""

    async def count(number: int) -> str:
        return str(number)

    graph = desk(Agent("triage", handoffs=["biling", "refunds", "count", "billing"]), Agent("billing"), count)
    with pytest.raises(GraphError) as error:
        graph.validate()
    problems = error.value.problems
    assert len(problems) == 3
    assert problems[0] == (
        "triage: hands off to 'biling', which is no node of this graph; add an edge out of it, or name one of "
        "billing, count"
    )
    assert "'refunds'" in problems[1]
    assert problems[2] == "triage -> count: gives Handoff, but count takes int"


def test_a_node_reached_only_by_a_handoff_is_reached() -> None:
    """Edges underneath: seen in the drawing, on networkx and in validation."""
    graph = desk(Agent("triage", handoffs=["billing"]), Agent("billing"))
    graph.validate()
    assert [repr(e) for e in graph.edges] == ["START -> triage", "triage -> billing", "triage -> END", "billing -> END"]
    assert '-->|"hands off"|' in graph.to_mermaid()
    assert graph.to_networkx().number_of_edges() == 4
    other = desk(Agent("triage"), Agent("billing"))
    with pytest.raises(GraphError, match="billing"):
        other.validate()


def test_names_are_told_apart() -> None:
    """From tools and from each other; and a list is a list."""
    with pytest.raises(DefinitionError, match="of one name"):
        Agent("a", handoffs=["b", handoff("b")])
    with pytest.raises(DefinitionError, match=r"\['billing'\]"):
        Agent("a", handoffs="billing")


async def test_a_handoff_is_in_the_record() -> None:
    """As JSON."""
    record: list[Any] = []
    triage = Agent("triage", model=ScriptedModel([over("billing")]), handoffs=["billing"])
    await run(desk(triage, Agent("billing", model=ScriptedModel(["ok"]))), "hi", observers=[record.append])
    ended = next(e for e in record if isinstance(e, ev.StepFinished) and e.path == "desk/triage")
    assert json.loads(ev.to_json(ended))["output"]["to"] == "billing"
