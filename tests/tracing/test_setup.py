"""Spans over the wire, what is lost on the way, and a collector that is not there."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agentrt import END, START, AgentrtError, Graph, collect, run
from agentrt.tracing import Tracing, configure, endpoints, export, requested
from agentrt.tracing.export import CountingExporter, CountingProcessor, CountingProvider
from tests.tracing.receivers import GrpcReceiver, HttpReceiver, Receiver, metrics_of, spans_of, text_attributes

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_provider")]

NOWHERE = "http://127.0.0.1:1"


async def count_up(n: int) -> list[int]:
    return list(range(n))


async def double(value: int) -> int:
    return value * 2


async def total(values: list[int]) -> int:
    return sum(values)


def fan() -> Graph[int, int]:
    graph = Graph("fan", input=int, output=int)
    graph.edge(START, count_up)
    graph.edge(count_up, double, each=True)
    graph.edge(double, total, join=collect)
    graph.edge(total, END)
    return graph


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [r for r in caplog.records if r.levelno >= logging.WARNING]


def seen(condition: Callable[[], bool]) -> bool:
    """Wait for what threads do that nobody waits for any more."""
    ends = time.monotonic() + 20
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


@pytest.fixture(params=[("grpc", GrpcReceiver), ("http/protobuf", HttpReceiver)], ids=["grpc", "http"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Let the standard environment name a collector on the loopback."""
    protocol, kind = request.param
    with kind() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


async def test_a_run_arrives_whole_with_its_links(collector: Receiver) -> None:
    """Over gRPC and HTTP the collector gets every span, and the join's links lead to the branches."""
    async with configure():
        await run(fan(), 5)
    spans = {s.name: s for s in spans_of(collector)}
    assert len(spans_of(collector)) == 8
    branches = {s.span_id for s in spans_of(collector) if s.name == "node double"}
    links = spans["node total"].links
    assert {link.span_id for link in links} == branches
    assert [text_attributes(link.attributes) for link in links] == [{"agentrt.link.type": "join"}] * 5
    assert {s.trace_id for s in spans.values()} == {spans["invoke_workflow fan"].trace_id}
    assert spans["node total"].parent_span_id == spans["invoke_workflow fan"].span_id


async def test_metrics_arrive_beside_the_spans(collector: Receiver) -> None:
    """What is measured is sent at the end, to the same collector, from the same service."""
    async with configure():
        await run(fan(), 5)
    (point,) = metrics_of(collector)["gen_ai.invoke_workflow.duration"].histogram.data_points
    assert (point.count, text_attributes(point.attributes)["gen_ai.workflow.name"]) == (1, "fan")
    assert list(point.explicit_bounds) == [1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200]
    resource = collector.measures[0].resource_metrics[0].resource
    assert text_attributes(resource.attributes)["service.name"] == "agentrt"


async def test_metrics_can_be_switched_off(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_METRICS_EXPORTER=none leaves the spans, and OTEL_TRACES_EXPORTER=none the metrics."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    async with configure():
        await run(fan(), 1)
    assert (len(spans_of(collector)), collector.measures) == (4, [])
    monkeypatch.delenv("OTEL_METRICS_EXPORTER")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    async with configure() as tracing:
        await run(fan(), 1)
        assert await tracing.flush()
    assert (len(spans_of(collector)), len(metrics_of(collector)) > 0) == (4, True)


async def test_metrics_are_measured_again_after_shutdown(collector: Receiver) -> None:
    """A process can be measured, then not, then again, without what was before."""
    for _ in range(2):
        async with configure() as tracing:
            await run(fan(), 1)
            assert await tracing.flush()
            (point,) = metrics_of(collector)["gen_ai.invoke_workflow.duration"].histogram.data_points
            assert point.count == 1
        await run(fan(), 1)


@pytest.mark.parametrize("kind", [GrpcReceiver, HttpReceiver])
async def test_a_collector_of_traces_alone_is_asked_once(
    kind: type[GrpcReceiver | HttpReceiver], caplog: pytest.LogCaptureFixture
) -> None:
    """Jaeger takes no metrics: its refusal ends the sending, and nobody is warned, whoever refused before."""
    protocol: endpoints.Protocol = "grpc" if kind is GrpcReceiver else "http/protobuf"
    for _ in range(2):
        with kind(takes_metrics=False) as receiver:
            async with configure(endpoint=receiver.endpoint, protocol=protocol) as tracing:
                await run(fan(), 1)
                assert await tracing.flush()
                assert await tracing.flush()
            assert (receiver.refused, len(spans_of(receiver))) == (1, 4)
    assert warnings(caplog) == []


async def test_a_meter_provider_of_the_users_own_stays(collector: Receiver) -> None:
    """What runs do is measured there, and not sent by `configure`."""
    reader = InMemoryMetricReader()
    own = MeterProvider([reader])
    metrics.set_meter_provider(own)
    async with configure():
        await run(fan(), 1)
    assert metrics.get_meter_provider() is own
    assert reader.get_metrics_data() is not None
    assert (len(spans_of(collector)), collector.measures) == (4, [])
    own.shutdown()


@pytest.mark.parametrize(
    ("environment", "traces", "metrics_"),
    [
        ({}, True, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": NOWHERE}, False, True),
        ({"OTEL_METRICS_EXPORTER": "None"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, False, True),
    ],
)
def test_the_environment_says_what_is_sent(
    environment: dict[str, str], traces: bool, metrics_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal is not sent where it is switched off, nor where only the other one has an endpoint."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (endpoints.wanted("traces", None), endpoints.wanted("metrics", None)) == (traces, metrics_)


async def test_metrics_alone_that_do_not_arrive_are_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only metrics are sent and nobody listens, one line tells."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    async with configure(endpoint=NOWHERE, protocol="grpc") as tracing:
        await run(fan(), 1)
        assert not await tracing.flush()
    (line,) = warnings(caplog)
    assert line.getMessage().startswith(f"metrics do not reach {NOWHERE}")


async def test_flush_sends_what_has_ended(collector: Receiver) -> None:
    """Flushing does not end tracing: what comes later is sent too."""
    async with configure() as tracing:
        await run(fan(), 1)
        assert await tracing.flush()
        assert len(spans_of(collector)) == 4
        await run(fan(), 1)
        assert tracing.flush_sync()
        assert len(spans_of(collector)) == 8


async def test_the_service_is_named(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is `agentrt` unless the environment says otherwise."""
    with configure():
        await run(fan(), 1)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    names = [text_attributes(r.resource.attributes)["service.name"] for r in collector.requests[0].resource_spans]
    assert names == ["agentrt"]
    assert CountingProvider(None).resource.attributes["service.name"] == "mine"
    assert CountingProvider("given").resource.attributes["service.name"] == "given"


async def test_configure_again_after_shutdown(collector: Receiver) -> None:
    """A process can be traced, then not, then again."""
    for expected in (4, 8):
        with configure():
            await run(fan(), 1)
        assert len(spans_of(collector)) == expected
        await run(fan(), 1)
    assert len(spans_of(collector)) == 8


def test_http_endpoints_get_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint passed by hand is completed as one from the environment is."""
    with HttpReceiver() as receiver, configure(endpoint=receiver.endpoint, protocol="http/protobuf"):
        trace.get_tracer("t").start_span("s").end()
        assert trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
    assert receiver.paths == {"/v1/traces"}


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, GrpcExporter),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4317"}, GrpcExporter),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "jaeger:4317"}, GrpcExporter),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318"}, HttpExporter),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://cloud/otlp/v1/traces"}, HttpExporter),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, HttpExporter),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, GrpcExporter),
    ],
)
def test_the_environment_chooses_the_protocol(
    environment: dict[str, str], kind: type[SpanExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is named wins; else port 4318 and the path of traces mean HTTP, and everything else gRPC."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    exporter = endpoints.span_exporter(endpoints.protocol_of("traces", None, None), None)
    exporter.shutdown()
    assert type(exporter) is kind
    assert requested() is any("ENDPOINT" in name for name in environment)


def test_an_unknown_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what there is, and no provider is left behind."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(AgentrtError, match=r"http/json.*grpc or http/protobuf"):
        configure()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


async def test_a_provider_of_the_users_own_stays(caplog: pytest.LogCaptureFixture) -> None:
    """`configure` leaves it alone, says so, and hands back something that does nothing."""
    own = TracerProvider()
    trace.set_tracer_provider(own)
    async with configure() as tracing:
        assert trace.get_tracer_provider() is own
        assert await tracing.flush()
    assert "configure() leaves it" in caplog.text
    own.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_no_collector_is_one_line_and_no_hang(
    protocol: endpoints.Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody listens the run is not hurt, the wait is bounded, and one line tells."""
    began = time.monotonic()
    async with configure(endpoint=NOWHERE, protocol=protocol, timeout=0.1) as tracing:
        assert (await run(fan(), 3)).output == 6
        assert not await tracing.flush()
    assert time.monotonic() - began < 8
    assert seen(lambda: (tracing.dropped, len(warnings(caplog))) == (6, 1))
    (line,) = warnings(caplog)
    assert line.getMessage().startswith(f"spans do not reach {NOWHERE}")


def test_the_exporters_may_log_again_afterwards() -> None:
    """Shutting down takes the filter off the exporters' loggers."""
    log = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    before = list(log.filters)
    with configure(endpoint=NOWHERE, timeout=0.1):
        assert [f for f in log.filters if f not in before]
    assert [f for f in log.filters if f not in before] == []


class Stuck(SpanExporter):
    """Take nothing until released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.names: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.release.wait()
        self.names += [s.name for s in spans]
        return SpanExportResult.SUCCESS


def counted(inner: SpanExporter, most_queued: int) -> CountingProvider:
    """Install a provider with a small queue before an exporter."""
    provider = CountingProvider(None)
    provider.export_to(CountingExporter(inner, "nowhere"), most_queued=most_queued, most_in_batch=2)
    trace.set_tracer_provider(provider)
    return provider


async def test_evicted_spans_are_counted_and_told_on_the_root() -> None:
    """What a full queue evicts is counted exactly, and the root says how many it were."""
    stuck = Stuck()
    provider = counted(stuck, most_queued=4)
    tracer = provider.get_tracer("t")
    for _ in range(2):
        tracer.start_span("first").end()
    assert stuck.entered.wait(20)
    await run(fan(), 5)
    assert provider.dropped == 4
    stuck.release.set()
    provider.shutdown()
    assert stuck.names == ["first", "first", "node double", "node double", "node total", "invoke_workflow fan"]


async def test_the_root_tells_the_spans_its_own_run_lost() -> None:
    """A run without losses says zero: those of other runs are not its own, whenever they happen."""
    ended: list[ReadableSpan] = []

    class Keep(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            ended.extend(spans)
            return SpanExportResult.FAILURE if len(ended) == 1 else SpanExportResult.SUCCESS

    provider = counted(Keep(), most_queued=100)
    provider.get_tracer("t").start_span("lost").end()
    provider.force_flush()

    async def lose(n: int) -> int:
        ended.clear()
        provider.get_tracer("t").start_span("lost", attributes={"agentrt.run.id": "other"}).end()
        provider.force_flush()
        return n

    await run(lose, 1)
    provider.shutdown()
    assert (provider.dropped, provider.dropped_of("other")) == (2, 1)
    assert ended[-1].attributes["agentrt.spans.dropped"] == 0


def test_unsampled_spans_are_no_losses() -> None:
    """What the sampler leaves out is neither sent nor counted."""
    stuck = Stuck()
    processor = CountingProcessor(CountingExporter(stuck, "nowhere"), most_queued=2, most_in_batch=1)
    unsampled = ReadableSpan("x", trace.SpanContext(1, 1, is_remote=False))
    for _ in range(5):
        processor.on_end(unsampled)
    processor.shutdown()
    assert (processor.dropped, stuck.names) == (0, [])


def test_what_is_left_is_sent_at_exit() -> None:
    """A script that forgets to shut down still sends its spans."""
    script = (
        "from agentrt import run_sync, tracing\n"
        "def double(i: int) -> int: return 2 * i\n"
        "tracing.configure(endpoint='{}', protocol='http/protobuf')\n"
        "run_sync(double, 4)\n"
    )
    with HttpReceiver() as receiver:
        code = script.format(receiver.endpoint)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert {s.name for s in spans_of(receiver)} == {"invoke_workflow double", "node double"}


def test_without_a_provider_the_sdk_is_not_imported() -> None:
    """A run that nobody traces makes no spans and loads no SDK."""
    script = (
        "import sys\n"
        "from agentrt import run_sync\n"
        "def double(i: int) -> int: return 2 * i\n"
        "assert run_sync(double, 4).output == 8\n"
        "from agentrt.tracing import run_observer\n"
        "assert run_observer('x') is None\n"
        "assert not [m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'grpc'))]\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


def test_an_inert_tracing_shuts_down() -> None:
    """What holds nothing has lost nothing."""
    with Tracing(None, None, 1) as tracing:
        assert tracing.flush_sync()
    assert tracing.dropped == 0


async def test_what_is_set_up_twice_sends_once(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has nothing of its own to send, and its end does not end the first."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    with configure() as first:
        with configure() as second:
            assert (first.signal, second.signal) == ("metrics", "")
        await run(fan(), 1)
    (point,) = metrics_of(collector)["gen_ai.invoke_workflow.duration"].histogram.data_points
    assert point.count == 1


def test_after_shutdown_the_meter_provider_does_nothing(collector: Receiver) -> None:
    """Whoever holds it still may flush it and measure, and close it again."""
    with configure():
        provider = metrics.get_meter_provider()
    provider.get_meter("mine").create_counter("c").add(1)
    assert provider.force_flush(1)  # type: ignore[attr-defined]
    provider.shutdown(1)  # type: ignore[attr-defined]
    assert collector.measures == []


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("off", ["TRACES", "METRICS"])
async def test_a_collector_that_never_answers_is_given_up(
    protocol: endpoints.Protocol, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither flushing nor closing waits longer than the time-out, for spans or for metrics."""
    monkeypatch.setenv(f"OTEL_{off}_EXPORTER", "none")
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        async with configure(endpoint=endpoint, protocol=protocol, timeout=0.1) as tracing:
            await run(fan(), 1)
            assert not await tracing.flush()
    assert time.monotonic() - began < 8  # HTTP itself waits for ten
    assert seen(lambda: tracing.dropped == (0 if off == "TRACES" else 4))


async def test_the_runs_whose_losses_are_told_are_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that loses spans for ever not every run is remembered; the sum is."""
    monkeypatch.setattr(export, "MOST_RUNS", 2)
    losses = export.Losses()
    for run_id in ("a", "a", "b", "c"):
        losses.add(run_id)
    assert [losses.of(run_id) for run_id in "abc"] == [0, 1, 1]
