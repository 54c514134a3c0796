"""Guardrails: nodes before and after a node, that may refuse what goes in or comes out."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    BudgetTooSmall,
    Context,
    DefinitionError,
    Graph,
    GraphError,
    GuardrailTripped,
    StepFailed,
    collect,
    guarded,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.function import FunctionNode
from agentrt.messages import ToolMessage
from agentrt.testing import ScriptedModel, call
from agentrt.tool import as_tool

pytestmark = pytest.mark.anyio


async def no_secrets(text: str) -> str | None:
    return "it holds a key" if "sk-" in text else None


def polite(text: str) -> bool:
    return "please" in text


async def shout(text: str) -> str:
    """Shout."""
    return text.upper()


def trip(error: pytest.ExceptionInfo[StepFailed]) -> tuple[str, str, str, str]:
    """Return where it tripped, and at what, and why."""
    cause = error.value.cause
    assert isinstance(cause, GuardrailTripped)
    return error.value.path, cause.guardrail, cause.node, cause.reason


async def test_what_passes_passes() -> None:
    """The guardrails are steps below the node, in order, and the node keeps its name."""
    record: list[Any] = []
    node = guarded(shout, before=[no_secrets, polite], after=[no_secrets])
    assert (await run(node, "please", observers=[record.append])).output == "PLEASE"
    paths = [e.path for e in record if isinstance(e, ev.StepStarted)]
    assert paths == ["shout", "shout/no_secrets", "shout/polite", "shout/no_secrets#2"]


async def test_a_guardrail_refuses_an_input() -> None:
    """With its reason, before the node starts and before the next guardrail."""
    model = ScriptedModel([])
    node = guarded(Agent("writer", model=model), before=[no_secrets, polite])
    with pytest.raises(StepFailed) as error:
        await run(node, "my sk-123")
    assert trip(error) == ("writer", "no_secrets", "writer", "it holds a key")
    assert "writer: no_secrets tripped at writer: it holds a key" in str(error.value)
    assert model.requests == []


async def test_a_guardrail_refuses_an_output() -> None:
    """False needs no reason."""
    with pytest.raises(StepFailed) as error:
        await run(guarded(Agent("writer", model=ScriptedModel(["no"])), after=[polite]), "hi")
    assert trip(error) == ("writer", "polite", "writer", "refused")


async def test_a_guardrail_may_raise() -> None:
    """Whatever it names is kept, what it leaves out is filled in; other errors are its own."""

    async def strict(text: str) -> None:
        raise GuardrailTripped("no")

    async def named(text: str) -> None:
        raise GuardrailTripped("no", guardrail="policy 7", node="everything")

    async def broken(text: str) -> None:
        raise LookupError("down")

    with pytest.raises(StepFailed) as error:
        await run(guarded(shout, before=[strict]), "hi")
    assert trip(error) == ("shout", "strict", "shout", "no")
    with pytest.raises(StepFailed, match="policy 7 tripped at everything: no"):
        await run(guarded(shout, before=[named]), "hi")
    with pytest.raises(StepFailed, match="LookupError: down") as error:
        await run(guarded(shout, before=[broken]), "hi")
    assert error.value.path == "shout/broken"


async def test_an_agent_can_be_a_guardrail_and_take_the_context() -> None:
    """Any node can; what it spends counts."""
    judge = Agent("judge", model=ScriptedModel(['{"result": false}']), output=bool)

    async def cheap(text: str, ctx: Context) -> bool:
        return ctx.budget.remaining["model_calls"] > 0

    with pytest.raises(StepFailed) as error:
        await run(guarded(shout, before=[cheap, judge]), "hi", budget=Budget(model_calls=1))
    assert trip(error) == ("shout", "judge", "shout", "refused")
    with pytest.raises(BudgetTooSmall) as denied:
        await run(guarded(shout, before=[judge]), "hi", budget=Budget(model_calls=0))
    assert denied.value.path == "shout/judge"


async def test_a_guardrail_s_answer_is_clear() -> None:
    """Anything else is neither yes nor no."""

    async def vague(text: str) -> int:
        return 1

    with pytest.raises(StepFailed, match="guardrail 'vague' returned int"):
        await run(guarded(shout, before=[vague]), "hi")


async def test_a_tripped_guardrail_of_a_tool_is_told_to_the_model() -> None:
    """As any error of a tool; the tool is described and called as it was without guardrails."""

    @tool
    async def look(text: str, times: int = 1) -> str:
        """Look."""
        return text * times

    async def short(arguments: dict[str, Any]) -> bool:
        return len(arguments["text"]) < 5

    tools = [guarded(shout, before=[no_secrets]), guarded(look, before=[short])]
    calls = [call("shout", text="hi"), call("shout", text="sk-1"), call("look", text="ab", times=2)]
    calls.append(call("look", text="abcdef"))
    with ScriptedModel([calls, "done"]) as model:
        assert (await run(Agent("a", model=model, tools=tools), "go")).output == "done"
    told = [m.text for m in model.requests[1].messages if isinstance(m, ToolMessage)]
    assert told == [
        "HI",
        "GuardrailTripped: no_secrets tripped at shout: it holds a key",
        "abab",
        "GuardrailTripped: short tripped at look: refused",
    ]
    assert [t.parameters["required"] for t in model.requests[0].tools] == [["text"], ["text"]]


async def test_guarded_nodes_stand_in_graphs() -> None:
    """In forks, with the branch's conversation, and with the graph inside them validated."""
    agent = Agent("a", model=ScriptedModel(["one", "two"]), history="branch")
    graph = Graph("g", input=list, output=list)
    node = guarded(agent, before=[no_secrets])
    graph.edge(START, node, each=True)
    graph.edge(node, node, times=1)
    graph.edge(node, END, join=collect)
    assert (await run(graph, ["x"])).output == ["two"]
    assert [m.text for m in agent.model.requests[1].messages] == ["x", "one", "one"]  # type: ignore[union-attr]
    bad = Graph("bad")
    bad.edge(shout, shout)
    outer = Graph("outer")
    outer.chain(START, guarded(bad), END)
    with pytest.raises(GraphError, match="bad: shout: cannot be reached"):
        outer.validate()
    with pytest.raises(GraphError):
        await run(guarded(bad), 1)


async def test_a_guarded_agent_wraps_up_under_its_guardrails() -> None:
    """The last answer is an output like any other."""
    model = ScriptedModel([call("shout", text="a"), "please"])
    agent = Agent("a", model=model, tools=[shout], budget=Budget(tool_calls=0, on_exhausted="wrap_up"))
    assert (await run(guarded(agent, after=[polite]), "hi")).output == "please"
    model = ScriptedModel([call("shout", text="a"), "no"])
    with pytest.raises(StepFailed, match="polite tripped at a"):
        await run(guarded(agent, after=[polite]), "hi", model=model)


async def test_limits_stay_with_a_guarded_tool() -> None:
    """Its calls are counted, its time-out and retries hold."""
    tools = [guarded(as_tool(shout).limit(calls=1), before=[no_secrets])]
    with ScriptedModel([[call("shout", text="a"), call("shout", text="b")], "done"]) as model:
        await run(Agent("a", model=model, tools=tools), "go")
    assert model.requests[1].tools == ()
    assert model.requests[1].messages[-1].text == "this tool may use no more calls; go on without it"


async def test_a_guardrail_needs_a_name() -> None:
    """As every node."""
    with pytest.raises(DefinitionError, match="lambda"):
        guarded(shout, before=[lambda v: True])


async def test_a_guardrail_may_have_the_name_of_a_graph_s_node() -> None:
    """No two steps share a path, else a resumed run would take the guardrail's outcome for the node's."""

    async def check(text: str) -> str:
        return text + "!"

    async def passes(text: str) -> bool:
        return True

    async def last(text: str, ctx: Context) -> str:
        return await ctx.run(check, text)

    graph = Graph("graph", input=str, output=str)
    graph.chain(START, check, last, END)
    node = guarded(graph, before=[FunctionNode(passes, name="check")])
    events: list[ev.Event] = []
    with pytest.raises(BudgetExceeded) as caught:
        await run(node, "x", budget=Budget(steps=4), observers=[events.append])
    assert [e.path for e in events if isinstance(e, ev.StepStarted)] == [
        "graph",
        "graph/check[guardrail]",
        "graph/check",
        "graph/last",
    ]
    assert caught.value.result is not None
    assert (await caught.value.result.resume(budget=Budget(steps=9))).output == "x!!"


def test_a_guardrail_takes_what_it_looks_at() -> None:
    """Told where it is put around the node, as far as plain classes tell."""

    async def counts(n: int) -> bool:
        return n > 0

    with pytest.raises(DefinitionError) as error:
        guarded(shout, before=[polite, counts], after=[counts])
    assert str(error.value) == (
        "guardrail 'counts' takes int, but shout is given str; guardrail 'counts' takes int, but shout gives str"
    )
    guarded(Agent("agent"), before=[counts], after=[polite])  # an agent takes anything
