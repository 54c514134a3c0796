"""The span tree of a run: parents, links, attributes and outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    Graph,
    ModelSettings,
    Node,
    Passage,
    Price,
    Query,
    Retriever,
    StepFailed,
    Usage,
    collect,
    run,
    tool,
)
from agentrt.events import (
    BudgetOverrun,
    BudgetWaited,
    Event,
    StepFinished,
    UsageRecorded,
)
from agentrt.join import Join
from agentrt.messages import AssistantMessage, ToolCall
from agentrt.model import ModelResponse
from agentrt.testing import FunctionEmbedder, FunctionModel, ScriptedModel, call
from agentrt.tracing import spans as spans_module
from agentrt.tracing import steps as steps_module
from tests.tracing.chats import chat_run

if TYPE_CHECKING:
    from tests.tracing.conftest import Spans

pytestmark = pytest.mark.anyio


async def increment(value: int) -> int:
    return value + 1


async def double(value: int) -> int:
    return value * 2


async def count_up(n: int) -> list[int]:
    return list(range(n))


async def fail(value: object) -> None:
    raise ValueError("no luck")


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def adder(name: str = "test/adder", **options: object) -> Agent[object, str]:
    """Return an agent that calls `add` once and then answers."""
    model = ScriptedModel([AssistantMessage("", (ToolCall("call-7", "add", '{"a": 1, "b": 2}'),)), "3"], name=name)
    return Agent("adder", model=model, tools=[add], **options)


def fan(work: Callable[..., object], join: object = collect) -> Graph[int, object]:
    """Return a graph that works on every number below its input and joins the results."""
    graph: Graph[int, object] = Graph("fan", input=int, output=object)
    graph.edge(START, count_up)
    graph.edge(count_up, work, each=True)
    graph.edge(work, total, join=join)
    graph.edge(total, END)
    return graph


async def total(values: list[int]) -> int:
    return sum(values)


def chain(*nodes: object, name: str = "chain") -> Graph[object, object]:
    graph: Graph[object, object] = Graph(name)
    graph.chain(START, *nodes, END)
    return graph


async def test_a_chain_is_a_root_with_linked_nodes(spans: Spans) -> None:
    """Nodes are siblings below the root, and each is linked to the one it follows."""
    result = await run(chain(increment, double), 1)
    assert spans.tree() == ["invoke_workflow chain", "  node double", "  node increment"]
    assert spans.links(spans.one("node double")) == [("chain/increment", "edge")]
    assert spans.one("node double").attributes["agentrt.edge.source"] == "chain/increment"
    assert spans.one("node increment").links == ()
    assert {s.attributes["agentrt.run.id"] for s in spans.all} == {result.run_id}


async def test_nodes_carry_no_genai_attributes(spans: Spans) -> None:
    """Only operations have `gen_ai.*`, or Jaeger draws nodes as generic AI."""
    await run(chain(adder()), "1 + 2?")
    names = {s.name: [a for a in s.attributes if a.startswith("gen_ai.")] for s in spans.all}
    assert names.pop("node adder") == []
    assert all(names.values())


async def test_branches_are_siblings_and_a_join_links_to_all(spans: Spans) -> None:
    """A fork's branches lie side by side below the root, and the join names each of them."""
    await run(fan(double), 3)
    assert spans.tree() == ["invoke_workflow fan", "  node count_up", *["  node double"] * 3, "  node total"]
    join = spans.one("node total")
    assert spans.links(join) == [(f"fan/double[{i}]", "join") for i in range(3)]
    assert join.attributes["agentrt.join.sources"] == ("fan/double[0]", "fan/double[1]", "fan/double[2]")
    assert (join.attributes["agentrt.join.expected"], join.attributes["agentrt.join.arrived"]) == (3, 3)
    assert [spans.links(s) for s in spans.named("node double")] == [[("fan/count_up", "edge")]] * 3


async def test_a_wide_join_links_to_128(spans: Spans) -> None:
    """Beyond what the SDK keeps of a span's links, attributes say how many there were."""
    await run(fan(double), 200)
    join = spans.one("node total")
    assert (len(join.links), join.dropped_links, join.attributes["agentrt.join.arrived"]) == (128, 0, 200)


async def test_branches_from_start_are_not_linked_to_their_parent(spans: Spans) -> None:
    """A fork at START follows nothing but the graph itself."""
    graph = Graph("both", input=int, output=list[int])
    graph.edge(START, [increment, double])
    graph.edge([increment, double], END, join=collect)
    await run(graph, 1)
    assert [len(s.links) for s in spans.all] == [0, 0, 0]
    assert "agentrt.edge.source" not in spans.one("node double").attributes


async def test_an_agent_holds_its_chats_and_tools(spans: Spans) -> None:
    """Chats and tools lie below the agent, which lies below its node."""
    await run(chain(adder()), "1 + 2?")
    assert spans.tree() == [
        "invoke_workflow chain",
        "  node adder",
        "    invoke_agent adder",
        "      chat adder",
        "      chat adder",
        "      execute_tool add",
    ]


async def test_a_chat_tells_what_was_asked_and_answered(spans: Spans) -> None:
    """The conventions' attributes of a model call are there, its usage too."""
    await run(adder(settings=ModelSettings(temperature=0.5, seed=3)), "1 + 2?")
    chat = spans.named("chat adder")[1]
    assert chat.kind is SpanKind.CLIENT
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "test",
        "gen_ai.request.model": "adder",
        "gen_ai.request.max_tokens": 4096,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.0,
        "gen_ai.usage.output_tokens": 1,
        "agentrt.step.path": "adder/chat#2",
    }
    assert expected.items() <= dict(chat.attributes).items()
    assert [e.name for e in chat.events] == ["agentrt.stream.first_chunk"]


@pytest.mark.parametrize(
    ("name", "span", "provider", "kind"),
    [
        ("local/smollm2-135m", "chat smollm2-135m", "local", SpanKind.INTERNAL),
        ("bedrock/claude", "chat claude", "aws.bedrock", SpanKind.CLIENT),
        ("nobody", "chat nobody", "nobody", SpanKind.CLIENT),
    ],
)
async def test_a_model_name_gives_span_provider_and_kind(
    spans: Spans, name: str, span: str, provider: str, kind: SpanKind
) -> None:
    """The provider is called what the conventions call it; a model in this process is no client."""
    await run(Agent("a", model=ScriptedModel(["hello"], name=name)), "hi")
    chat = spans.one(span)
    assert (chat.attributes["gen_ai.provider.name"], chat.kind) == (provider, kind)


async def test_a_tool_tells_its_call(spans: Spans) -> None:
    """The tool's span carries what the model calls the call, and the agent's name."""
    await run(adder(), "1 + 2?")
    expected = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": "Add two numbers.",
        "gen_ai.tool.call.id": "call-7",
        "gen_ai.agent.name": "adder",
    }
    assert expected.items() <= dict(spans.one("execute_tool add").attributes).items()


async def test_any_node_a_model_calls_is_a_tool(spans: Spans) -> None:
    """A node of the user's own class, used as a tool, has the span of one."""

    class Oracle(Node[str, str]):
        async def invoke(self, ctx: Context, value: str, /) -> str:
            return "yes"

    model = ScriptedModel([call("oracle", input="?"), "yes"])
    await run(Agent("a", model=model, tools=[Oracle("oracle", input=str, description="Knows.")]), "?")
    assert "gen_ai.tool.call.id" in spans.one("execute_tool oracle").attributes


async def test_a_run_that_is_not_sampled_leaves_no_spans(no_provider: None) -> None:
    """The sampler decides at the root; what user code starts inside follows it."""
    seen: list[trace.SpanContext] = []

    async def look(i: int) -> int:
        seen.append(trace.get_current_span().get_span_context())
        return i

    provider = TracerProvider(sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)
    assert (await run(chain(look), 1)).output == 1
    assert [(context.is_valid, context.trace_flags.sampled) for context in seen] == [(True, False)]
    provider.shutdown()


async def test_usage_adds_up_on_agents_and_the_root(spans: Spans) -> None:
    """An agent's span has the sum of its chats, the root the run's totals."""
    result = await run(chain(adder()), "1 + 2?")
    chats, agent = spans.named("chat adder"), spans.one("invoke_agent adder")
    root = spans.one("invoke_workflow chain")
    for name, used in (("input_tokens", result.usage.input_tokens), ("output_tokens", result.usage.output_tokens)):
        assert sum(c.attributes[f"gen_ai.usage.{name}"] for c in chats) == used
        assert agent.attributes[f"gen_ai.usage.{name}"] == root.attributes[f"agentrt.usage.{name}"] == used
    assert root.attributes["agentrt.usage.tool_calls"] == 1


async def test_an_agent_that_is_run_lies_below_the_run(spans: Spans) -> None:
    """The root is the run, whatever is run; only a graph is that same span."""
    await run(Agent("solo", model=ScriptedModel(["hello"]), description="Greets."), "hi")
    assert spans.tree() == ["invoke_workflow solo", "  invoke_agent solo", "    chat scripted"]
    assert spans.one("invoke_agent solo").attributes["gen_ai.agent.description"] == "Greets."


async def test_instructions_are_not_a_description(spans: Spans) -> None:
    """What an agent is instructed is content, and stays out of spans."""
    await run(Agent("solo", model=ScriptedModel(["hello"]), instructions="Be secret."), "hi")
    assert "gen_ai.agent.description" not in spans.one("invoke_agent solo").attributes


async def test_a_subgraph_is_a_workflow_below_its_node(spans: Spans) -> None:
    """A graph in a graph has its own nodes below it."""
    await run(chain(increment, chain(double, name="inner"), name="outer"), 1)
    assert spans.tree() == [
        "invoke_workflow outer",
        "  node increment",
        "  node inner",
        "    invoke_workflow inner",
        "      node double",
    ]


async def test_calls_by_code_have_no_node_span_around_operations(spans: Spans) -> None:
    """What a function calls lies right below it: functions as nodes, the rest as what they are."""

    async def code(n: int, ctx: Context) -> int:
        await ctx.map(double, [1, 2])
        await ctx.run(add, {"a": 1, "b": 2}, key="a")
        return n

    await run(chain(code), 1)
    below = ["    execute_tool add", "    node double", "    node double"]
    assert spans.tree() == ["invoke_workflow chain", "  node code", *below]


async def test_a_retrieval_tells_source_and_k(spans: Spans) -> None:
    """A retriever has the span of the conventions."""

    class Shelf:
        embedder = None

        async def search(self, query: str | Query, k: int) -> list[Passage]:
            return [Passage(text="A book.", source="shelf")][:k]

    await run(chain(Retriever("library", Shelf(), k=5)), "books?")
    span = spans.one("retrieval library")
    assert (span.attributes["gen_ai.data_source.id"], span.attributes["gen_ai.retrieval.top_k"]) == ("library", 5)
    assert "gen_ai.retrieval.query.text" not in span.attributes


async def test_an_embedding_tells_model_dimensions_and_tokens(spans: Spans) -> None:
    """The call for a query's vector is below its retrieval, with the span of the conventions and its bill."""

    class Shelf:
        embedder = FunctionEmbedder(
            lambda _: [1.0, 0], 2, name="openai/small", price=Price.per_million(input=1, output=0)
        )

        async def search(self, query: str | Query, k: int) -> list[Passage]:
            return []

    await run(chain(Retriever("library", Shelf())), "two books?")
    assert spans.tree()[-2:] == ["    retrieval library", "      embeddings small"]
    span = spans.one("embeddings small")
    expected = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.embeddings.dimension.count": 2,
        "gen_ai.usage.input_tokens": 2,
        "agentrt.cost.usd": 2e-6,
    }
    assert expected.items() <= dict(span.attributes).items()
    assert span.kind is SpanKind.CLIENT


async def test_a_failure_is_an_error_on_the_step_and_the_root(spans: Spans) -> None:
    """The failed node and the root say what failed, and the root where."""
    with pytest.raises(StepFailed):
        await run(chain(increment, fail), 1)
    node, root = spans.one("node fail"), spans.one("invoke_workflow chain")
    for span in (node, root):
        assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "ValueError")
    assert node.attributes["agentrt.node.outcome"] == "failed"
    assert (root.attributes["agentrt.run.status"], root.attributes["agentrt.error.path"]) == ("failed", "chain/fail")
    assert spans.one("node increment").status.status_code is StatusCode.UNSET


async def test_cancelled_branches_are_no_errors(spans: Spans) -> None:
    """What `first` cancels ends with the outcome `cancelled`."""

    others = anyio.Event()

    async def race(i: int) -> int:
        if i == 2:
            others.set()
        await (others.wait() if i == 0 else anyio.sleep_forever())
        return i

    await run(fan(race, Join(collect, first=1)), 3)
    outcomes = sorted(s.attributes["agentrt.node.outcome"] for s in spans.named("node race"))
    assert outcomes == ["cancelled", "cancelled", "done"]
    assert all(s.status.status_code is StatusCode.UNSET for s in spans.all)
    join = spans.one("node total").attributes
    assert (join["agentrt.join.arrived"], join["agentrt.join.expected"]) == (1, 3)


async def test_a_cancelled_run_ends_its_root(spans: Spans) -> None:
    """Cancelling the caller ends every span, as cancelled and not as an error."""
    with anyio.move_on_after(0) as scope:
        await run(chain(anyio_sleep), 1)
    assert scope.cancelled_caught
    root = spans.one("invoke_workflow chain")
    assert (root.attributes["agentrt.run.status"], root.status.status_code) == ("cancelled", StatusCode.UNSET)
    assert spans.one("node anyio_sleep").attributes["agentrt.node.outcome"] == "cancelled"


async def anyio_sleep(value: int) -> None:
    await anyio.sleep_forever()


async def test_a_denial_is_told_on_the_refused_step_and_the_root(spans: Spans) -> None:
    """The chat that was refused has the event; the root says that the budget is exceeded."""
    with pytest.raises(BudgetExceeded):
        await run(Agent("a", model=ScriptedModel([])), "hi", budget=Budget(tokens=3))
    (denial,) = spans.one("chat scripted").events
    assert denial.name == "agentrt.budget.denied"
    assert (denial.attributes["agentrt.budget.dimension"], denial.attributes["agentrt.budget.scope"]) == ("tokens", "a")
    root = spans.one("invoke_workflow a").attributes
    assert (root["error.type"], root["agentrt.run.status"]) == ("budget_exceeded", "budget_exceeded")
    assert (root["agentrt.budget.tokens.limit"], root["agentrt.budget.tokens.used"]) == (3, 0)


async def test_a_step_refused_before_it_began_is_told_on_the_one_around(spans: Spans) -> None:
    """A step without a span leaves its denial on the nearest open one, with its path."""
    await run(chain(increment, double), 1, budget=Budget(steps=2, on_exhausted="partial"))
    denial = spans.one("invoke_workflow chain").events[0]
    assert (denial.name, denial.attributes["agentrt.step.path"]) == ("agentrt.budget.denied", "chain/double")


async def test_a_clamp_is_told_on_the_chat(spans: Spans) -> None:
    """The chat says what it wanted and what it was given, which is what was asked of the model."""
    model = FunctionModel(lambda request: "hello", name="test/model")
    await run(Agent("a", model=model), "hi", budget=Budget(tokens=1000))
    chat = spans.one("chat model")
    clamp = next(e for e in chat.events if e.name == "agentrt.budget.clamped")
    granted = model.requests[0].settings.max_tokens
    assert (clamp.attributes["agentrt.budget.wanted"], clamp.attributes["agentrt.budget.granted"]) == (4096, granted)
    assert chat.attributes["gen_ai.request.max_tokens"] == granted < 1000


async def test_a_dropped_branch_is_told_on_the_graph(spans: Spans) -> None:
    """A join that drops errors goes on; the graph's span tells which branch died of what."""

    async def odd(i: int) -> int:
        if i == 1:
            raise ValueError("odd one out")
        return i

    await run(fan(odd, Join(collect, errors="drop")), 3)
    root = spans.one("invoke_workflow fan")
    (death,) = root.events
    assert (death.name, death.attributes["error.type"]) == ("agentrt.branch.died", "ValueError")
    assert death.attributes["agentrt.step.path"] == "fan/odd[1]"
    assert (root.attributes["agentrt.branches.died"], root.status.status_code) == (1, StatusCode.UNSET)


async def test_the_root_lies_below_the_callers_span(spans: Spans) -> None:
    """A run in a traced request is part of its trace."""
    with spans.provider.get_tracer("app").start_as_current_span("request"):
        await run(chain(increment), 1)
    assert spans.tree() == ["request", "  invoke_workflow chain", "    node increment"]


async def test_a_steps_span_is_current_while_it_runs(spans: Spans) -> None:
    """Spans of user code, also in threads, and runs inside runs lie below their step; afterwards nothing is current."""

    def query(i: int) -> int:
        spans.provider.get_tracer("app").start_span("query").end()
        return i

    async def nested(i: int) -> int:
        return (await run(chain(query, name="inner"), i)).output

    await run(chain(nested, name="outer"), 1)
    inner = ["    invoke_workflow inner", "      node query", "        query"]
    assert spans.tree() == ["invoke_workflow outer", "  node nested", *inner]
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_branches_in_one_worker_do_not_inherit_each_other(spans: Spans) -> None:
    """What a branch calls lies below that branch, whoever's task runs it."""

    async def calls(i: int, ctx: Context) -> int:
        await anyio.lowlevel.checkpoint()
        return await ctx.run(double, i)

    await run(fan(calls), 4, concurrency=2)
    parents = {s.context.span_id: s.attributes["agentrt.node.path"] for s in spans.named("node calls")}
    found = {s.attributes["agentrt.node.path"]: parents[s.parent.span_id] for s in spans.named("node double")}
    assert found == {f"fan/calls[{i}]/double": f"fan/calls[{i}]" for i in range(4)}


async def test_a_wait_in_the_queue_is_told_and_drawn_if_long(spans: Spans) -> None:
    """A node begins when it could have run; a wait of some length is a span of its own."""

    async def double(i: int) -> int:
        await anyio.sleep(2)
        return 2 * i

    await run(fan(double), 2, concurrency=1)
    node = spans.named("node double")[1]
    (wait,) = [s for s in spans.named("queue double") if s.parent.span_id == node.context.span_id]
    assert wait.start_time == node.start_time <= wait.end_time <= node.end_time
    assert (wait.end_time - wait.start_time) / 1e6 == pytest.approx(2000, abs=0.01)
    assert node.attributes["agentrt.queue.wait_ms"] == pytest.approx(2000, abs=0.01)


async def test_a_long_run_is_several_traces(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a number of spans the root is ended and another trace begun, with a link back and links across."""
    monkeypatch.setattr(spans_module, "MOST_SPANS", 4)
    await run(fan(double), 6)
    roots = sorted(spans.named("invoke_workflow fan"), key=lambda s: s.attributes["agentrt.run.segment"])
    assert [s.attributes["agentrt.run.status"] for s in roots] == ["continued", "done"]
    assert [link.context for link in roots[1].links] == [roots[0].context]
    assert len({s.context.trace_id for s in spans.all}) == 2
    assert spans.links(spans.one("node total")) == [(f"fan/double[{i}]", "join") for i in range(6)]


async def test_nothing_is_kept_of_steps_that_ended(spans: Spans) -> None:
    """After a run the observer holds no open step."""
    observers: list[spans_module.RunSpans] = []

    def observe(run_id: str) -> spans_module.RunSpans:
        observer = spans_module.run_observer(run_id)
        assert isinstance(observer, spans_module.RunSpans)
        observers.append(observer)
        return observer

    await run(chain(adder()), "hi", observers=[observe("twice")])
    assert len(spans.named("chat adder")) == 4
    assert observers[0]._open == {}


def replay(spans: Spans, *events: Event) -> None:
    """Trace a run of one chat in which these events happen."""
    observer = spans_module.run_observer("r")
    assert observer is not None
    for event in chat_run(*events, StepFinished(path="g/m", at=2.0, output="")):
        observer(event)


def test_a_bill_tells_subsets_and_cost(spans: Spans) -> None:
    """Cached and reasoning tokens are parts of the sums; what is uncertain says so."""
    usage = Usage(input_tokens=9, cached_tokens=4, output_tokens=5, reasoning_tokens=2, cost=10**9, uncertain=14)
    replay(spans, UsageRecorded(path="g/m", at=1.5, usage=usage))
    expected = {
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "agentrt.cost.usd": 0.001,
        "agentrt.usage.uncertain_tokens": 14,
    }
    assert expected.items() <= dict(spans.one("chat m").attributes).items()


def test_waits_and_overruns_are_events_of_the_chat(spans: Spans) -> None:
    """What the budget did carries its own time and numbers."""
    wait = BudgetWaited(path="g/m", at=1.25, seconds=0.2)
    replay(spans, wait, BudgetOverrun(path="g/m", at=1.5, reserved=10, billed=12))
    waited, overrun = spans.one("chat m").events
    assert (waited.name, waited.timestamp) == ("agentrt.budget.waited", 1_250_000_000)
    assert waited.attributes["agentrt.budget.seconds"] == 0.2
    assert (overrun.name, overrun.attributes["agentrt.budget.billed"]) == ("agentrt.budget.overrun", 12)


async def test_links_are_bounded_by_what_a_graph_remembers(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest predecessors are forgotten first; the join's attributes name them still."""
    monkeypatch.setattr(steps_module, "MOST_PREDECESSORS", 3)
    await run(fan(double), 6)
    join = spans.one("node total")
    assert (len(join.links), len(join.attributes["agentrt.join.sources"])) == (3, 6)


async def test_a_model_call_tells_how_it_sampled_and_what_the_cache_took(spans: Spans) -> None:
    """Every setting that was made, and tokens written to a cache under both names of the conventions."""
    used = Usage(input_tokens=30, cache_write_tokens=20, cached_tokens=5, output_tokens=2, reasoning_tokens=1)
    model = FunctionModel(lambda request: ModelResponse(message=AssistantMessage("so"), usage=used))
    settings = ModelSettings(max_tokens=50, temperature=0.5, top_p=0.9, seed=7, stop=("\n", "END"))
    await run(Agent("a", model=model, settings=settings), "why?")
    attributes = spans.one("chat function").attributes
    assert {
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("\n", "END"),
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 1,
    }.items() <= dict(attributes).items()


async def test_what_code_publishes_is_in_no_span(spans: Spans) -> None:
    """It is content, for whoever reads the events."""

    async def speak(value: int, ctx: Context) -> int:
        ctx.emit("secret")
        return value

    await run(chain(speak), 1)
    assert not any("secret" in str(s.to_json()) for s in spans.all)


async def test_dead_branches_are_counted_beyond_those_that_are_told(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A span takes so many events; the number is an attribute."""
    monkeypatch.setattr(spans_module, "MOST_EVENTS", 2)
    await run(fan(fail, join=Join(lambda values: values, errors="drop")), 5)
    root = spans.one("invoke_workflow fan")
    assert (len(root.events), root.attributes["agentrt.branches.died"]) == (2, 5)


@tool(effect="read", untrusted=True)
async def fetch(url: str) -> str:
    """Fetch a page."""
    return url


async def test_what_comes_from_outside_is_marked(spans: Spans) -> None:
    """On the span of the step that read it, and on those of the steps that were given it."""
    model = ScriptedModel([call("fetch", url="a"), "done"])
    await run(Agent("a", model=model, tools=[fetch, add]), "go")
    assert (spans.one("execute_tool fetch").attributes or {})["agentrt.untrusted.output"] == ("fetch",)
    first, second = (s.attributes or {} for s in spans.named("chat scripted"))
    assert "agentrt.untrusted" not in first
    assert second["agentrt.untrusted"] == ("fetch",)


async def test_a_refused_call_is_told_on_its_span(spans: Spans) -> None:
    model = ScriptedModel([call("fetch", url="a"), "done"])
    await run(Agent("a", model=model, tools=[fetch, add]), "go", allow=["add"])
    (event,) = spans.one("execute_tool fetch").events
    assert event.name == "agentrt.call.refused"
    assert (event.attributes or {})["agentrt.call.tool"] == "fetch"
