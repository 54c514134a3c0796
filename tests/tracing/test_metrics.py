"""What is measured of a run, in memory."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics.export import Histogram

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Graph,
    Passage,
    Price,
    Query,
    Retriever,
    StepFailed,
    collect,
    resume,
    run,
    tool,
)
from agentrt.embedding import Embeddings
from agentrt.events import (
    BudgetWaited,
    CacheHit,
    ErrorInfo,
    Event,
    RateLimitWaited,
    StepCancelled,
    StepFinished,
    StepRetried,
    StepStarted,
)
from agentrt.messages import AssistantMessage
from agentrt.model import ModelResponse
from agentrt.people import approve
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionEmbedder, FunctionModel, ScriptedModel, call
from agentrt.tracing import conventions as c
from agentrt.tracing import run_metrics, run_observers
from agentrt.usage import Usage
from tests.tracing.chats import chat_run

if TYPE_CHECKING:
    from tests.tracing.conftest import Measures

pytestmark = pytest.mark.anyio


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def adder() -> Agent[object, str]:
    return Agent("adder", model=ScriptedModel([call("add", a=1, b=2), "3"], name="test/m"), tools=[add])


def chain(*nodes: object) -> Graph[object, object]:
    graph: Graph[object, object] = Graph("chain")
    graph.chain(START, *nodes, END)
    return graph


async def test_operations_are_timed_by_what_they_are(measures: Measures) -> None:
    """Model calls, tools, agents and the run each have their histogram, with the conventions' attributes."""
    await run(chain(adder()), "1 + 2?")
    counts = {name: [p.count for p in measures.points(name)] for name in (c.INFERENCE_DURATION, c.TOOL_DURATION)}
    assert counts == {c.INFERENCE_DURATION: [2], c.TOOL_DURATION: [1]}
    (chat,), (agent,) = measures.points(c.INFERENCE_DURATION), measures.points(c.AGENT_DURATION)
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "test",
        "gen_ai.request.model": "m",
    }
    assert agent.attributes["gen_ai.agent.name"] == "adder"
    (workflow,) = measures.points(c.WORKFLOW_DURATION)
    assert (workflow.attributes["gen_ai.workflow.name"], workflow.count) == ("chain", 1)


async def test_histograms_have_the_conventions_buckets(measures: Measures) -> None:
    """Seconds, from a hundredth doubled for calls, up to two hours for runs."""
    await run(chain(adder()), "1 + 2?")
    found = measures.all()
    for name, first, last in ((c.INFERENCE_DURATION, 0.01, 81.92), (c.WORKFLOW_DURATION, 1.0, 7200.0)):
        metric = found[name]
        assert metric.unit == "s"
        assert isinstance(metric.data, Histogram)
        (point,) = metric.data.data_points
        assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (first, last)
    assert len(found[c.INFERENCE_DURATION].data.data_points[0].explicit_bounds) == 14


async def test_tokens_and_cost_equal_the_bill(measures: Measures) -> None:
    """The counters add up to what the result says."""
    model = FunctionModel(lambda request: "so it is", name="test/m", price=Price.per_million(input=1, output=2))
    usage = (await run(Agent("a", model=model), "is it?")).usage
    (read,), (written,) = measures.points(c.INFERENCE_INPUT_TOKENS), measures.points(c.INFERENCE_OUTPUT_TOKENS)
    assert (read.value, written.value) == (usage.input_tokens, usage.output_tokens)
    assert measures.points(c.COST_METRIC)[0].value == pytest.approx(usage.usd)
    assert read.attributes["gen_ai.request.model"] == "m"


async def test_errors_are_told_by_type(measures: Measures) -> None:
    """A failed tool and a failed run have `error.type`; a run that is cancelled has none."""

    @tool
    async def broken(a: int) -> int:
        """Break."""
        raise ValueError("no luck")

    with pytest.raises(StepFailed):
        await run(broken, 1)
    (point,), (workflow,) = measures.points(c.TOOL_DURATION), measures.points(c.WORKFLOW_DURATION)
    assert point.attributes["error.type"] == workflow.attributes["error.type"] == "ValueError"


async def test_denials_are_counted_by_dimension(measures: Measures) -> None:
    """What a budget refused is counted, and the run's error says so."""
    with pytest.raises(BudgetExceeded):
        await run(Agent("a", model=ScriptedModel([])), "hi", budget=Budget(tokens=3))
    (denial,) = measures.points(c.BUDGET_DENIALS)
    assert (denial.value, dict(denial.attributes)) == (1, {"agentrt.budget.dimension": "tokens"})
    assert measures.points(c.WORKFLOW_DURATION)[0].attributes["error.type"] == "budget_exceeded"


async def test_a_subgraph_is_timed_and_the_root_graph_once(measures: Measures) -> None:
    """The graph that is run is the run; graphs inside are workflows of their own."""

    async def same(n: int) -> int:
        return n

    inner: Graph[int, int] = Graph("inner")
    inner.chain(START, same, END)
    await run(chain(inner), 1)
    names = [(p.attributes["gen_ai.workflow.name"], p.count) for p in measures.points(c.WORKFLOW_DURATION)]
    assert names == [("chain", 1), ("inner", 1)]


def replay(*events: Event) -> None:
    """Measure a run of one chat in which these events happen."""
    observe = run_metrics()
    assert observe is not None
    for event in chat_run(*events):
        observe(event)


def retried(model: str | None = None, delay: float = 2.0) -> StepRetried:
    return StepRetried(path="g/m", at=2.0, attempt=1, error=ErrorInfo("RateLimited", "slow"), delay=delay, model=model)


def test_attempts_are_timed_one_by_one(measures: Measures) -> None:
    """A failed attempt has its error, the next begins after the delay and may ask another model."""
    replay(retried(model="other/n"), StepFinished(path="g/m", at=4.5, output=""))
    failed, done = sorted(measures.points(c.INFERENCE_DURATION), key=lambda p: p.sum, reverse=True)
    assert (failed.sum, failed.attributes["error.type"]) == (1.0, "RateLimited")
    assert (done.sum, done.attributes["gen_ai.request.model"]) == (0.5, "n")
    (retries,) = measures.points(c.RETRIES)
    assert (retries.value, retries.attributes["agentrt.node.name"]) == (1, "m")


def test_an_attempt_that_never_began_is_not_timed(measures: Measures) -> None:
    """A step cancelled while it waits to be tried again has one attempt."""
    replay(retried(delay=60.0), StepCancelled(path="g/m", at=3.0))
    assert [p.sum for p in measures.points(c.INFERENCE_DURATION)] == [1.0]


def test_waits_and_cache_hits_are_told_by_model(measures: Measures) -> None:
    """What held a call back has a histogram each; a hit is counted."""
    replay(
        RateLimitWaited(path="g/m", at=1.5, seconds=0.5),
        BudgetWaited(path="g/m", at=1.5, seconds=0.25),
        CacheHit(path="g/m", at=1.5, model="test/m"),
        StepFinished(path="g/m", at=2.0, output=""),
    )
    (limited,), (waited,), (hit,) = map(measures.points, (c.RATELIMIT_DURATION, c.BUDGET_WAIT_DURATION, c.CACHE_HITS))
    assert (limited.sum, waited.sum, hit.value) == (0.5, 0.25, 1)
    assert hit.attributes["gen_ai.request.model"] == "m"
    assert measures.points(c.INFERENCE_DURATION) == []  # no model was asked


async def test_nothing_is_kept_of_a_run_that_ended(measures: Measures) -> None:
    """Instruments are shared by runs, open steps are not."""
    observers = [run_metrics(), run_metrics()]
    await run(adder(), "1 + 2?", observers=[o for o in observers if o])
    assert observers[0] is not None
    assert observers[0]._open == {}  # type: ignore[attr-defined]
    assert observers[0]._to is observers[1]._to  # type: ignore[union-attr]


async def test_a_cancelled_run_is_timed_without_an_error(measures: Measures) -> None:
    """Cancellation is no error."""

    async def sleep(n: int) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0):
        await run(chain(sleep), 1)
    assert c.ERROR_TYPE not in measures.points(c.WORKFLOW_DURATION)[0].attributes


async def test_what_waits_for_people_is_timed_when_it_is_done(measures: Measures) -> None:
    """Each part of the run is timed, those that ended in waiting told apart; steps that waited once they have ended."""

    @tool(approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    journal = MemoryJournal()
    agent = Agent("clerk", model=ScriptedModel([call("pay", amount=1), "done"]), tools=[pay])
    observers = [run_metrics()]
    await run(agent, "?", journal=journal, run_id="r", observers=[o for o in observers if o])
    assert observers[0] is not None
    assert observers[0]._open == {}  # type: ignore[attr-defined]
    (workflow,) = measures.points(c.WORKFLOW_DURATION)
    assert (workflow.attributes["agentrt.run.status"], "error.type" in workflow.attributes) == ("waiting", False)
    assert [measures.points(name) for name in (c.AGENT_DURATION, c.TOOL_DURATION)] == [[], []]
    await approve(journal, "r")
    await resume(agent, "r", journal=journal)
    statuses = [p.attributes.get("agentrt.run.status") for p in measures.points(c.WORKFLOW_DURATION)]
    assert sorted(statuses, key=str) == [None, "waiting"]
    counts = [[p.count for p in measures.points(name)] for name in (c.AGENT_DURATION, c.TOOL_DURATION)]
    assert counts == [[1], [1]]


def test_without_a_provider_nothing_is_installed(no_provider: None) -> None:
    """No provider, or one that does nothing, means no observer at all."""
    assert list(run_observers("r")) == []
    metrics.set_meter_provider(metrics.NoOpMeterProvider())
    assert list(run_observers("r")) == []


def test_without_a_provider_the_api_of_metrics_is_not_imported() -> None:
    """A process without metrics does not pay for their import."""
    script = (
        "import sys\n"
        "from agentrt import run_sync\n"
        "def double(i: int) -> int: return 2 * i\n"
        "assert run_sync(double, 4).output == 8\n"
        "assert 'opentelemetry.metrics' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


async def test_waits_for_a_slot_are_measured(measures: Measures) -> None:
    """Each step that had to wait, for as long as it did."""

    async def count_up(n: int) -> list[int]:
        return list(range(n))

    async def work(n: int) -> int:
        await anyio.sleep(10)
        return n

    graph: Graph[int, list[int]] = Graph("fan")
    graph.edge(START, count_up)
    graph.edge(count_up, work, each=True)
    graph.edge(work, END, join=collect)
    await run(graph, 3, concurrency=1)
    (queued,) = measures.points(c.QUEUE_DURATION)
    assert (queued.count, queued.sum) == (2, pytest.approx(30))


async def test_what_the_conventions_do_not_time_is_not_timed(measures: Measures) -> None:
    """They have no histogram of retrievals; an answer that came whole has no first chunk."""

    class Shelf:
        embedder = None

        async def search(self, query: str | Query, k: int) -> list[Passage]:
            return []

    await run(Retriever("shelf", Shelf()), "why?")
    replay(StepFinished(path="g/m", at=2.0, output=ModelResponse(message=AssistantMessage("so"), usage=Usage())))
    counts = {name: len(measures.points(name)) for name in (c.INFERENCE_DURATION, c.TOOL_DURATION, c.AGENT_DURATION)}
    assert counts == {c.INFERENCE_DURATION: 1, c.TOOL_DURATION: 0, c.AGENT_DURATION: 0}
    assert measures.points(c.INFERENCE_FIRST_CHUNK) == []


def test_a_cache_hit_in_a_function_is_counted(measures: Measures) -> None:
    """A function may ask a model itself; nobody measures functions, so the hit has no model."""
    replay(
        StepStarted(path="g/f", at=1.0, name="f", kind="node", input=""), CacheHit(path="g/f", at=1.0, model="test/m")
    )
    (hit,) = measures.points(c.CACHE_HITS)
    assert (hit.value, dict(hit.attributes)) == (1, {})


async def test_embeddings_are_timed_as_calls_of_models(measures: Measures) -> None:
    """Their duration and tokens are measured under their own operation."""
    given = FunctionEmbedder(lambda _: [1.0], 1, name="openai/small", price=Price.per_million(input=1, output=0))
    await run(Embeddings(given), ["two words"])
    (timed,) = measures.points(c.INFERENCE_DURATION)
    assert (timed.count, timed.attributes[c.OPERATION_NAME]) == (1, "embeddings")
    (read,) = measures.points(c.INFERENCE_INPUT_TOKENS)
    assert (read.value, read.attributes[c.REQUEST_MODEL]) == (2, "small")
