"""What progress is counted from."""

from agentrt.cli.tally import Tally
from agentrt.events import ErrorInfo, RunFinished, RunStarted, StepFailed, StepFinished, StepStarted, UsageRecorded
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
