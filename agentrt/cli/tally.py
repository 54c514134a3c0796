"""What a run is doing now, counted from its events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from agentrt.events import (
    CacheHit,
    Ending,
    Event,
    RateLimitWaited,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
    StepFailed,
    StepRetried,
    StepStarted,
    UsageRecorded,
)
from agentrt.usage import Usage


class Tally:
    """Observe a run: which nodes run, how many steps are done, what is spent of each limit.

    `limits` are the run's caps by dimension, `worked` the seconds of its earlier parts. Times are seconds since the
    epoch.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.limits = dict(limits)
        self.run_id: str | None = None
        self.name = ""
        self.worked = 0.0
        self.started: float | None = None
        self.done = 0
        self.failed = 0
        self.retries = 0
        self.cached = 0
        self.held_back = 0.0
        self.usage = Usage()
        self.closing: RunFinished | RunFailed | RunCancelled | RunParked | None = None
        self.finished: Counter[str] = Counter()
        self._open: dict[str, StepStarted] = {}
        self._again: dict[str, float] = {}
        self._again_steps = 0
        self._running: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._start(event)
        elif isinstance(event, Ending):
            self._end(event)
        elif isinstance(event, UsageRecorded):
            self.usage += event.usage
        elif isinstance(event, StepRetried):
            self._retry(event)
        elif isinstance(event, RateLimitWaited):
            self.held_back += event.seconds
        elif isinstance(event, CacheHit):
            self.cached += 1
        elif isinstance(event, RunStarted | RunResumed):
            self.closing = None
            self.run_id, self.name, self.started = event.run_id, event.name, event.at
        elif isinstance(event, RunFinished | RunFailed | RunCancelled | RunParked):
            self.closing, self.usage = event, event.usage

    def _start(self, event: StepStarted) -> None:
        self._open[event.path] = event
        self._running[event.name] += 1
        self._call(event)

    def _call(self, event: StepStarted) -> None:
        if event.kind == "chat":
            self._calls["model_calls"] += 1
        elif event.kind == "tool" or self._kind(event.path.rpartition("/")[0]) == "agent":
            self._calls["tool_calls"] += 1

    def _end(self, event: Ending) -> None:
        if (begun := self._open.pop(event.path, None)) is None:
            return
        self._again.pop(event.path, None)
        self._running[begun.name] -= 1
        self.finished[begun.name] += 1
        self.done += 1
        self.failed += isinstance(event, StepFailed)

    def _retry(self, event: StepRetried) -> None:
        """Note a failed attempt; the next one is charged as the first was."""
        self.retries += 1
        self._again[event.path] = event.at + event.delay
        if (begun := self._open.get(event.path)) is not None:
            self._call(begun)
            self._again_steps += begun.kind != "chat"  # a model that is asked again is the same step

    def _kind(self, path: str) -> str:
        step = self._open.get(path)
        return step.kind if step else ""

    def running(self) -> dict[str, int]:
        """Return how many steps of each node run now, without the run's own node, model calls last."""
        counts = {name: n for name, n in self._running.items() if n > 0 and name not in (self.name, "chat")}
        if self._running["chat"] > 0:
            counts["chat"] = self._running["chat"]
        return counts

    def retrying(self, now: float) -> int:
        """Return how many steps wait to be tried again."""
        return sum(until > now for until in self._again.values())

    def spent(self, now: float) -> dict[str, float]:
        """Return what is spent of each capped dimension, in its unit."""
        known: dict[str, float] = {
            "usd": self.usage.usd,
            "tokens": self.usage.tokens,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "steps": self.done + len(self._open) + self._again_steps,
            "seconds": self.elapsed(now),
            "model_calls": self._calls["model_calls"],
            "tool_calls": self._calls["tool_calls"],
        }
        return {name: known[name] for name in self.limits if name in known}

    def elapsed(self, now: float) -> float:
        """Return how long the run has been going, or went."""
        end = self.closing.at if self.closing else now
        return end - self.started if self.started is not None else 0.0
