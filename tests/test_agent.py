"""Agents: the loop of model and tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    DefinitionError,
    Graph,
    Index,
    MaxTurns,
    ModelRequest,
    ModelSettings,
    Passage,
    Query,
    Retriever,
    StepFailed,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from agentrt.testing import FunctionModel, ScriptedModel, call, text

pytestmark = pytest.mark.anyio


class Verdict(BaseModel):
    ok: bool
    reason: str = ""


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def fails(x: str) -> str:
    """Fail."""
    raise LookupError(f"no {x}")


def last_texts(model: FunctionModel) -> list[str]:
    """Return what the tools answered before the last request."""
    return [m.text for m in model.requests[-1].messages if isinstance(m, ToolMessage)]


async def test_an_agent_asks_and_answers() -> None:
    """Instructions, input, answer."""
    with ScriptedModel(["hello"]) as model:
        agent = Agent("a", model=model, instructions="be brief")
        assert (await run(agent, "hi")).output == "hello"
    assert model.requests[0].messages == (SystemMessage("be brief"), UserMessage("hi"))


async def test_instructions_may_depend_on_the_input() -> None:
    """A function of the input; what is not text is shown as JSON."""
    model = ScriptedModel(["x"])
    await run(Agent("a", model=model, instructions=lambda v: f"about {v['topic']}"), {"topic": "rain"})
    assert [m.text for m in model.requests[0].messages] == ["about rain", '{"topic":"rain"}']


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("output", "reply", "expected"),
    [
        (Verdict, '{"ok": true}', Verdict(ok=True)),
        (list[str], '{"result": ["a"]}', ["a"]),
        (int, '{"result": 4}', 4),
        (int | None, '{"result": null}', None),
        (Point, '{"x": 1}', Point(1)),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
async def test_structured_output(output: Any, reply: str, expected: Any) -> None:
    """The model is given a schema of an object, and its answer is read as the type."""
    model = ScriptedModel([reply])
    assert (await run(Agent("a", model=model, output=output), "go")).output == expected
    schema = model.requests[0].output_schema
    assert schema is not None
    assert schema["type"] == "object"


async def test_a_mapping_s_schema_lets_its_keys_be() -> None:
    """Else a model held to it could only answer {}."""
    model = ScriptedModel(['{"a": 1}'])
    await run(Agent("a", model=model, output=dict[str, int]), "go")
    assert (model.requests[0].output_schema or {})["additionalProperties"] == {"type": "integer"}


async def test_validation_errors_are_fed_back() -> None:
    """One line a mistake, and the second answer counts."""
    with ScriptedModel(['{"ok": "maybe"}', '{"ok": false}']) as model:
        assert (await run(Agent("a", model=model, output=Verdict), "go")).output == Verdict(ok=False)
    *_, answer, correction = model.requests[1].messages
    assert answer == AssistantMessage('{"ok": "maybe"}')
    assert "- ok: Input should be a valid boolean" in correction.text


async def test_an_answer_that_was_cut_is_told_so() -> None:
    """The correction asks for a shorter one."""
    model = ScriptedModel(['{"ok": true, "reason": "much too long a reason"}', '{"ok": true}'])
    agent = Agent("a", model=model, output=Verdict, settings=ModelSettings(max_tokens=4))
    await run(agent, "go")
    assert "cut off at the token limit" in model.requests[1].messages[-1].text


async def test_parallel_tool_calls_keep_the_model_s_order() -> None:
    """Numbered in that order before any starts; answered in that order."""
    events: list[Any] = []
    with ScriptedModel([[call("add", a=1, b=1), call("add", a=2, b=2)], [call("add", a=3, b=3)], "done"]) as model:
        await run(Agent("a", model=model, tools=[add]), "go", observers=[events.append])
    assert last_texts(model) == ["2", "4", "6"]
    paths = [e.path for e in events if isinstance(e, ev.StepStarted) and e.kind == "tool"]
    assert paths == ["a/add", "a/add#2", "a/add#3"]
    assert [e.path for e in events if isinstance(e, ev.StepStarted) and e.kind == "chat"] == [
        "a/chat", "a/chat#2", "a/chat#3",
    ]  # fmt: skip


async def test_what_a_tool_raises_is_told_to_the_model() -> None:
    """Errors, bad arguments and unknown tools; the run goes on."""
    calls = [call("fails", x="luck"), call("add", a="one", b=2), call("add", a=1), call("nothing")]
    with ScriptedModel([calls, "sorry"]) as model:
        assert (await run(Agent("a", model=model, tools=[add, fails]), "go")).output == "sorry"
    answers = [m for m in model.requests[1].messages if isinstance(m, ToolMessage)]
    assert all(m.failed for m in answers)
    assert [m.call_id for m in answers] == ["call-1", "call-2", "call-3", "call-4"]
    assert answers[0].text == "LookupError: no luck"
    assert answers[1].text.startswith("the arguments do not fit: a: Input should be a valid integer")
    assert answers[2].text == "the arguments do not fit: b: Field required"
    assert answers[3].text == "unknown tool; there are: add, fails"


@pytest.mark.parametrize("arguments", ["", "{", "[]", "null", '{"a": 1, "b": 2, "c": 3}', '"text"'])
async def test_arguments_that_are_no_object_are_told_to_the_model(arguments: str) -> None:
    """Whatever a small model writes."""
    from agentrt.messages import ToolCall

    with ScriptedModel([ToolCall("1", "add", arguments), "done"]) as model:
        await run(Agent("a", model=model, tools=[add]), "go")
    assert last_texts(model)[0].startswith("the arguments do not fit: ")


class Shelf:
    embedder = None

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        return [Passage(text=Query.of(query).text, source="s")][:k]


def words() -> Graph[str, int]:
    async def length(text: str) -> int:
        return len(text)

    graph = Graph("words", input=str, output=int, description="count")
    graph.chain(START, length, END)
    return graph


async def test_agents_graphs_and_retrievers_are_tools() -> None:
    """One rule: an input that is no object is the field `input`."""
    index: Index = Shelf()
    helper = Agent("helper", model=ScriptedModel(["helped"]), description="helps")
    names = ("shelf", "words", "helper")
    with ScriptedModel([[call(n, input="four") for n in names], "done"]) as model:
        await run(Agent("a", model=model, tools=[Retriever("shelf", index, untrusted=False), words(), helper]), "go")
    assert json.loads(last_texts(model)[0])[0]["text"] == "four"
    assert last_texts(model)[1:] == ["4", "helped"]
    assert all(t.parameters["required"] == ["input"] for t in model.requests[0].tools)


async def test_an_input_that_is_an_object_gives_the_fields() -> None:
    """An agent with a pydantic input takes that model's fields."""
    helper = Agent("helper", input=Verdict, model=ScriptedModel(["helped"]), description="helps")
    with ScriptedModel([call("helper", ok=True), "done"]) as model:
        await run(Agent("a", model=model, tools=[helper]), "go")
    assert set(model.requests[0].tools[0].parameters["properties"]) == {"ok", "reason"}
    assert last_texts(model) == ["helped"]


async def test_a_plain_function_is_a_tool() -> None:
    """Also one that stands in a graph elsewhere."""

    async def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    with ScriptedModel([call("shout", text="hey"), "done"]) as model:
        await run(Agent("a", model=model, tools=[shout]), "go")
    assert last_texts(model) == ["HEY"]


async def test_turns_are_limited() -> None:
    """Then the agent raises, in its own name."""
    model = FunctionModel(lambda request: call("add", a=1, b=1))
    with pytest.raises(StepFailed) as error:
        await run(Agent("a", model=model, tools=[add], max_turns=3), "go")
    assert isinstance(error.value.cause, MaxTurns)
    assert len(model.requests) == 3


async def test_a_denial_is_never_shown_to_the_model() -> None:
    """E1: one by a budget of the agent, or around it."""
    sub = Agent("sub", model=ScriptedModel([]), description="helps", instructions="at length " * 200)
    for own, around, scope in [(Budget(tokens=300), None, "outer/a"), (None, Budget(tokens=300), "outer")]:
        with ScriptedModel([call("sub", input="x")]) as model:
            agent = Agent("a", model=model, tools=[sub], budget=own)

            outer = Graph("outer")
            outer.chain(START, agent, END)
            with pytest.raises(BudgetExceeded) as error:
                await run(outer, "go", budget=around)
        assert (error.value.scope, error.value.path) == (scope, "outer/a/sub/chat")


async def test_a_tool_s_own_budget_is_the_tool_s_error() -> None:
    """The model goes on without it; a tool whose calls are used up is not offered again."""
    sub = Agent("sub", model=ScriptedModel([]), description="helps", budget=Budget(tokens=1))
    calls = [call("sub", input="x"), call("add", a=1, b=1), call("add", a=2, b=2), call("add", a=3, b=3)]
    with ScriptedModel([calls, "done"]) as model:
        assert (await run(Agent("a", model=model, tools=[sub, add.limit(calls=2)]), "go")).output == "done"
    assert last_texts(model) == [
        "this tool may use no more tokens; go on without it",
        "2",
        "4",
        "this tool may use no more calls; go on without it",
    ]
    assert [[t.name for t in r.tools] for r in model.requests] == [["sub", "add"], ["sub"]]


async def test_tool_calls_are_counted() -> None:
    """`tool_calls` of a budget; steps and model calls too."""
    model = ScriptedModel([[call("add", a=1, b=1)] * 2, "done"])
    usage = (await run(Agent("a", model=model, tools=[add]), "go")).usage
    assert (usage.tool_calls, usage.model_calls, usage.steps) == (2, 2, 5)
    with pytest.raises(BudgetExceeded, match="tool_calls"):
        await run(Agent("a", model=ScriptedModel([[call("add", a=1, b=1)] * 2]), tools=[add]), "go",
                  budget=Budget(tool_calls=1))  # fmt: skip


async def test_a_tool_may_end_the_turn_with_its_result() -> None:
    """stop_at: without another request."""
    with ScriptedModel([call("add", a=2, b=3)]) as model:
        assert (await run(Agent("a", model=model, tools=[add], stop_at=[add]), "go")).output == "5"
    with pytest.raises(DefinitionError, match="stop_at"):
        Agent("a", tools=[add], stop_at=[fails])


async def test_two_tools_need_two_names() -> None:
    """And each needs a description."""
    with pytest.raises(DefinitionError, match="two tools named"):
        Agent("a", tools=[add, add])
    with pytest.raises(DefinitionError, match="needs a description"):
        Agent("a", tools=[Agent("mute")])


async def test_the_run_s_model_takes_the_place_of_all() -> None:
    """`run(model=)` before what the agent names."""
    other = ScriptedModel(["from the other"])
    agent = Agent("a", model=ScriptedModel([]))
    assert (await run(agent, "go", model=other)).output == "from the other"


def wrapping_up(agent_replies: list[Any], **options: Any) -> tuple[Agent[Any, Any], ScriptedModel]:
    """Build an agent that may call tools once, and then wraps up."""
    model = ScriptedModel(agent_replies)
    budget = Budget(tool_calls=1, on_exhausted="wrap_up")
    return Agent("a", model=model, tools=[add], budget=budget, **options), model


async def test_an_agent_wraps_up_with_what_it_has() -> None:
    """One call, without tools, with every open call answered, and held to the schema."""
    calls = [call("add", a=1, b=1), call("add", a=2, b=2)]
    agent, model = wrapping_up([calls[0], calls, '{"ok": true}'], output=Verdict, instructions="judge")
    assert (await run(agent, "go")).output == Verdict(ok=True)
    model.check()
    last = model.requests[-1]
    assert (last.tools, last.output_schema) == ((), model.requests[0].output_schema)
    assert [(m.role, m.text) for m in last.messages[-4:]] == [
        ("assistant", ""),
        ("tool", "no result: the budget is used up"),
        ("tool", "no result: the budget is used up"),
        ("user", "The budget is used up. Use no tools: give your final answer now, with what you have."),
    ]
    assert last.messages[:4] == model.requests[1].messages


@pytest.mark.parametrize("reply", ["I think so", call("add", a=1, b=1)])
async def test_a_last_answer_that_does_not_fit_is_an_error(reply: Any) -> None:
    """There is no second one."""
    agent, model = wrapping_up([[call("add", a=1, b=1)] * 2, reply], output=Verdict)
    with pytest.raises(StepFailed, match="as the budget was used up") as error:
        await run(agent, "go")
    assert isinstance(error.value.cause, MaxTurns)
    model.check()


async def test_a_conversation_that_was_wrapped_up_goes_on() -> None:
    """With history="branch": its instructions once, at the front."""
    replies = [[call("add", a=1, b=1)] * 2, "first", [call("add", a=1, b=1)] * 2, "second"]
    agent, model = wrapping_up(replies, history="branch", instructions="work")
    graph = Graph("g", input=str)
    graph.edge(START, agent)
    graph.edge(agent, agent, times=1)
    graph.edge(agent, END)
    assert (await run(graph, "go")).output == "second"
    roles = [m.role for m in model.requests[-1].messages]
    turn = ["user", "assistant", "tool", "tool", "user"]
    assert roles == ["system", *turn, "assistant", *turn]


class Lines:
    """Write one line a message; what begins with = is a call of `add`."""

    stop = ("\n",)

    def write(self, messages: Any, tools: Any) -> str:
        return "\n".join(m.text for m in messages)

    def read(self, text: str, messages: Any) -> AssistantMessage:
        calls = (call("add", a=1, b=len(messages)),) if text.startswith("=") else ()
        return AssistantMessage(text, calls)

    def answer(self, messages: Any) -> str:
        return str(messages[-1].text)


async def test_a_format_asks_for_raw_completion() -> None:
    """The prompt is the text, the stop strings are sent, the continuation is read by the format."""
    with ScriptedModel(["= something", "answer"]) as model:
        assert (await run(Agent("a", model=model, tools=[add], format=Lines()), "go")).output == "answer"
    assert [r.prompt for r in model.requests] == ["go", "go\n= something\n2"]
    assert model.requests[0].settings.stop == ("\n",)


async def test_requests_of_a_turn_hold_the_whole_conversation() -> None:
    """In order: question, call, result."""
    seen: list[ModelRequest] = []

    def reply(request: ModelRequest) -> Any:
        seen.append(request)
        return text("done") if len(seen) == 2 else call("add", a=1, b=2)

    await run(Agent("a", model=FunctionModel(reply), tools=[add]), "go")
    assert [m.role for m in seen[1].messages] == ["user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_turns": 0}, "max_turns=0 leaves no turn to answer in"),
        ({"max_repeats": 1}, "max_repeats=1 leaves no tool to be used; None lets all"),
        ({"history": "all"}, 'history=\'all\': write "fresh" or "branch"'),
    ],
)
def test_options_that_leave_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    """Where they are written."""
    with pytest.raises(DefinitionError, match=f"agent 'a': {says}"):
        Agent("a", **options)
