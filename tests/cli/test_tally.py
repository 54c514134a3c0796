"""What progress is counted from."""

from agentrt.cli.tally import Tally
from agentrt.events import (
    CacheHit,
    ErrorInfo,
    RateLimitWaited,
    RunFinished,
    RunResumed,
    RunStarted,
    StepFailed,
    StepFinished,
    StepRetried,
    StepStarted,
    UsageRecorded,
)
from agentrt.usage import Usage


def begin(path: str, kind: str = "node") -> StepStarted:
    name = path.rpartition("/")[2].partition("[")[0]
    return StepStarted(path=path, at=2.0, name=name, kind=kind, input=None)


def running(limits: dict[str, float] | None = None) -> Tally:
    tally = Tally(limits or {})
    tally(RunStarted(run_id="r", at=1.0, name="g", input=None, limits={}))
    tally(begin("g", "graph"))
    return tally


def test_running_nodes_are_grouped() -> None:
    """Branches of one node are one count; the run's own node is left out, model calls come last."""
    tally = running()
    for path, kind in (("g/a[0]", "agent"), ("g/a[0]/chat", "chat"), ("g/a[1]", "agent"), ("g/b", "node")):
        tally(begin(path, kind))
    assert list(tally.running().items()) == [("a", 2), ("b", 1), ("chat", 1)]
    tally(StepFinished(path="g/a[0]", at=3.0, output=1))
    assert tally.running()["a"] == 1


def test_steps_are_counted_as_they_end() -> None:
    """Done counts every end, failed those with an error."""
    tally = running()
    tally(begin("g/a"))
    tally(StepFailed(path="g/a", at=3.0, error=ErrorInfo("E", "e")))
    assert (tally.done, tally.failed) == (1, 1)


def test_spending_is_told_by_capped_dimension() -> None:
    """Each limit has what is spent of it, in its unit; tools called by agents count whatever their kind."""
    limits = {"usd": 1.0, "tokens": 100, "model_calls": 9, "tool_calls": 9, "steps": 50, "seconds": 60}
    tally = running(limits)
    for path, kind in (("g/a", "agent"), ("g/a/chat", "chat"), ("g/a/add", "tool"), ("g/a/helper", "agent")):
        tally(begin(path, kind))
    tally(UsageRecorded(path="g/a/chat", at=3.0, usage=Usage(input_tokens=30, output_tokens=12, cost=5 * 10**11)))
    assert tally.spent(11.0) == {
        "usd": 0.5, "tokens": 42, "model_calls": 1, "tool_calls": 2, "steps": 5, "seconds": 10.0
    }  # fmt: skip


def test_end_fixes_the_clock_and_the_bill() -> None:
    """After the run the tally says what the run says."""
    tally = running()
    tally(RunFinished(run_id="r", at=4.0, output=1, usage=Usage(input_tokens=7), stop_reason="done"))
    assert (tally.elapsed(99.0), tally.usage.tokens) == (3.0, 7)


def test_retries_are_counted_and_charged() -> None:
    """A step that waits to be tried again says so until it is due or over; every attempt is a call."""
    tally = running({"steps": 50, "model_calls": 9})
    tally(begin("g/chat", "chat"))
    tally(StepRetried(path="g/chat", at=3.0, attempt=1, error=ErrorInfo("E", "e"), delay=2.0))
    assert (tally.retries, tally.retrying(4.0), tally.retrying(5.5)) == (1, 1, 0)
    assert tally.spent(4.0) == {"steps": 2, "model_calls": 2}
    tally(StepFinished(path="g/chat", at=4.0, output=1))
    assert tally.retrying(4.0) == 0


def test_waits_for_limits_and_cache_hits_add_up() -> None:
    """How long calls were held back, and how many were not made."""
    tally = running()
    tally(RateLimitWaited(path="g/a", at=2.0, seconds=1.5))
    tally(RateLimitWaited(path="g/b", at=2.0, seconds=2.0))
    tally(CacheHit(path="g/a", at=2.0, model="m"))
    assert (tally.held_back, tally.cached) == (3.5, 1)


def test_a_resumed_run_goes_on() -> None:
    """What had closed it is forgotten."""
    tally = running()
    tally(RunFinished(run_id="r", at=4.0, output=1, usage=Usage(), stop_reason="partial"))
    tally(RunResumed(run_id="r", at=5.0, name="g", limits={}))
    assert tally.closing is None


def test_a_step_that_began_twice_ends_twice() -> None:
    """A path comes again where an attempt left a step behind; the one that is forgotten counts no more."""
    tally = running()
    for _ in range(2):
        tally(begin("g/a"))
    for _ in range(2):
        tally(StepFinished(path="g/a", at=4.0, output=1))
    assert (tally.done, tally.failed) == (1, 0)
