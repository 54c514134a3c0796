"""The limiter: decides when a call of a model may start. It is told the time and waits for nothing itself.

Calls start in order of arrival. A call starts when both buckets, requests and tokens a minute, hold enough and the
concurrency has room; a provider's `retry_after` holds back everyone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

MINUTE: Final = 60.0
_SLACK: Final = 1e-6
"""What a bucket may lack: time is a float, and a wait of exactly the missing seconds can end a hair too early."""
_FIRST, _MOST = 4.0, 1024.0


class Bucket:
    """Hold what may be used now: it begins full, and a minute fills it from empty."""

    def __init__(self, per_minute: int) -> None:
        self.size = per_minute
        self._level = float(per_minute)
        self._rate = per_minute / MINUTE

    def fill(self, seconds: float) -> None:
        self._level = min(self.size, self._level + seconds * self._rate)

    def wait(self, amount: int) -> float:
        """Return in how many seconds there is enough; a call larger than the bucket needs it full."""
        missing = min(amount, self.size) - self._level
        return 0.0 if missing <= _SLACK * self.size else missing / self._rate

    def take(self, amount: int) -> None:
        """Use, or with a negative amount give back; what a call used beyond its estimate is owed."""
        self._level = min(self.size, self._level - amount)


class Adaptive:
    """Find how many calls a provider takes at once.

    Doubles every round of calls until the first refusal; each refusal halves, and each round after it adds one.
    """

    def __init__(self) -> None:
        self.limit = _FIRST
        self._gentle = _MOST
        self._cut_at = float("-inf")

    def succeeded(self, in_flight: int) -> None:
        if in_flight * 2 < self.limit:  # what was not tried is not known to work
            return
        self.limit = min(_MOST, self.limit + (1.0 if self.limit < self._gentle else 1.0 / self.limit))

    def refused(self, started: float, now: float) -> None:
        """Halve, once for all calls that were under way together."""
        if started <= self._cut_at:
            return
        self._cut_at = now
        self.limit = self._gentle = max(1.0, self.limit / 2)

    def shift(self, seconds: float) -> None:
        self._cut_at += seconds


@dataclass(slots=True, order=True)
class Place:
    """Hold the place of one call. `notify` is called when it has come to the head of the queue, or may start sooner."""

    number: int
    tokens: int = field(compare=False)
    notify: Callable[[], None] = field(default=lambda: None, compare=False)
    waits: bool = field(default=False, compare=False)
    started: float = field(default=0.0, compare=False)


class Limiter:
    """Decide who starts when. Every method takes the time in seconds, from any clock that does not run backwards.

    A clock that does was changed for another (a new event loop): then what is left of every wait begins anew.
    """

    def __init__(
        self, *, rpm: int | None = None, tpm: int | None = None, concurrency: int | Adaptive | None = None
    ) -> None:
        self._requests = None if rpm is None else Bucket(rpm)
        self._tokens = None if tpm is None else Bucket(tpm)
        self._concurrency = concurrency
        self._queue: list[Place] = []
        self._numbers = 0
        self._waiting = self._in_flight = 0
        self._started = self._refused = 0
        self._now = float("-inf")
        self._closed_until = float("-inf")

    @property
    def counts_tokens(self) -> bool:
        return self._tokens is not None

    def arrive(self, tokens: int) -> Place:
        """Return the place of a call that will use at most so many tokens; it keeps the place if it is tried again."""
        self._numbers += 1
        return Place(self._numbers, tokens)

    def queue(self, place: Place) -> None:
        """Let a call wait for its start."""
        place.waits = True
        self._waiting += 1
        heapq.heappush(self._queue, place)

    def start(self, place: Place, now: float) -> float:
        """Start a waiting call if it may, and return 0; else return after how many seconds to ask again.

        Infinity says: when notified.
        """
        self._advance(now)
        if self._queue[0] is not place:
            return float("inf")
        if (wait := self._wait(place)) > 0:
            return wait
        self._leave(place)
        place.started = now
        self._in_flight += 1
        self._started += 1
        self._take(place, requests=1, tokens=place.tokens)
        self._notify()
        return 0.0

    def withdraw(self, place: Place) -> None:
        """Give up a call that waits; nothing of it is left."""
        self._leave(place)
        self._notify()

    def finish(self, place: Place, now: float, tokens: int) -> None:
        """End a call that used so many tokens; what it did not use of its estimate is given back."""
        self._end(place, now, tokens)
        if isinstance(self._concurrency, Adaptive):
            self._concurrency.succeeded(self._in_flight + 1)
        self._notify()

    def refuse(self, place: Place, now: float, retry_after: float | None = None) -> None:
        """End a call that the provider refused, asking to slow down; nobody starts for `retry_after` seconds."""
        self._end(place, now, 0)
        self._refused += 1
        if isinstance(self._concurrency, Adaptive):
            self._concurrency.refused(place.started, now)
        if retry_after is not None:
            self._closed_until = max(self._closed_until, now + retry_after)
        self._notify()

    def fail(self, place: Place, now: float, *, billed: bool) -> None:
        """End a call that failed otherwise; if it may be billed, all its tokens count as used."""
        self._end(place, now, place.tokens if billed else 0)
        self._notify()

    def unsent(self, place: Place, now: float) -> None:
        """End a call that never reached the provider: neither a request nor tokens are used."""
        self._end(place, now, 0)
        self._take(place, requests=-1, tokens=0)
        self._notify()

    def statistics(self) -> Mapping[str, float]:
        """Return how many calls wait, are in flight, have started and were refused, and how many may be at once."""
        return {
            "waiting": self._waiting,
            "in_flight": self._in_flight,
            "started": self._started,
            "refused": self._refused,
            "concurrency": self._room_for,
        }

    @property
    def _room_for(self) -> float:
        limit = self._concurrency
        if isinstance(limit, Adaptive):
            return int(limit.limit)
        return float("inf") if limit is None else limit

    def _wait(self, place: Place) -> float:
        if self._in_flight >= self._room_for:
            return float("inf")
        buckets = ((self._requests, 1), (self._tokens, place.tokens))
        return max(self._closed_until - self._now, *(b.wait(n) if b is not None else 0.0 for b, n in buckets))

    def _take(self, place: Place, *, requests: int, tokens: int) -> None:
        if self._requests is not None:
            self._requests.take(requests)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def _end(self, place: Place, now: float, tokens: int) -> None:
        self._advance(now)
        self._in_flight -= 1
        self._take(place, requests=0, tokens=tokens - place.tokens)

    def _advance(self, now: float) -> None:
        passed = now - self._now
        if passed < 0 and self._closed_until > float("-inf"):
            self._closed_until += passed
        if passed < 0 and isinstance(self._concurrency, Adaptive):
            self._concurrency.shift(passed)
        for bucket in (self._requests, self._tokens):
            if bucket is not None and passed > 0:
                bucket.fill(passed)
        self._now = now

    def _leave(self, place: Place) -> None:
        """Take a call out of the queue; places left in its middle are dropped once they come to its head."""
        place.waits = False
        self._waiting -= 1
        while self._queue and not self._queue[0].waits:
            heapq.heappop(self._queue)

    def _notify(self) -> None:
        if self._queue:
            self._queue[0].notify()
