"""The limiter's decisions, at times the tests say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt.limiter import Adaptive, Limiter, Place

INF = float("inf")


def queued(limiter: Limiter, *tokens: int) -> list[Place]:
    turns = [limiter.arrive(n) for n in tokens]
    for turn in turns:
        limiter.queue(turn)
    return turns


def test_requests_are_a_minutes_worth_then_one_at_a_time() -> None:
    """The bucket begins full and fills as time goes by."""
    limiter = Limiter(rpm=2)
    a, b, c = queued(limiter, 0, 0, 0)
    assert [limiter.start(t, 100) for t in (a, b)] == [0, 0]
    assert limiter.start(c, 100) == pytest.approx(30)
    assert limiter.start(c, 115) == pytest.approx(15)
    assert limiter.start(c, 130) == 0


def test_unused_tokens_are_given_back() -> None:
    """A call takes its worst case at first."""
    limiter = Limiter(tpm=600)
    a, b = queued(limiter, 500, 500)
    assert limiter.start(a, 0) == 0
    assert limiter.start(b, 0) == pytest.approx(40)
    limiter.finish(a, 10, 100)
    assert limiter.start(b, 10) == 0


def test_a_call_larger_than_the_bucket_needs_it_full() -> None:
    """It would wait for ever else; what it used too much is owed."""
    limiter = Limiter(tpm=60)
    a, b = queued(limiter, 600, 1)
    assert limiter.start(a, 0) == 0
    assert limiter.start(b, 0) == pytest.approx(541)


def test_calls_start_in_order_of_arrival() -> None:
    """Even where a later one would fit."""
    limiter = Limiter(tpm=600)
    _, big, small = turns = queued(limiter, 500, 500, 1)
    assert limiter.start(turns[0], 0) == 0
    assert limiter.start(small, 0) == INF
    assert limiter.start(big, 40) == 0
    assert limiter.start(small, 41) == 0


def test_a_call_tried_again_keeps_its_place() -> None:
    """Those that came later have not waited longer."""
    limiter = Limiter(concurrency=1)
    a, b = queued(limiter, 0, 0)
    assert limiter.start(a, 0) == 0
    limiter.refuse(a, 1)
    limiter.queue(a)
    assert (limiter.start(b, 1), limiter.start(a, 1)) == (INF, 0)


def test_nobody_starts_before_retry_after() -> None:
    """Whoever was told to wait."""
    limiter = Limiter()
    a, b = queued(limiter, 0, 0)
    assert limiter.start(a, 0) == 0
    limiter.refuse(a, 1, retry_after=20)
    assert limiter.start(b, 2) == 19
    assert limiter.start(b, 21) == 0


def test_whoever_waits_at_the_head_is_notified() -> None:
    """When room comes free, and when the one before it gives up."""
    limiter, told = Limiter(concurrency=1), list[str]()
    a, b, c = queued(limiter, 0, 0, 0)
    b.notify, c.notify = lambda: told.append("b"), lambda: told.append("c")
    assert limiter.start(a, 0) == 0
    assert limiter.start(b, 0) == INF
    limiter.finish(a, 1, 0)
    assert told == ["b", "b"], "once as it became the head, once as there was room"
    limiter.withdraw(b)
    assert told[-1] == "c"
    assert limiter.start(c, 1) == 0


def test_a_call_never_sent_uses_nothing() -> None:
    """The budget denied it."""
    limiter = Limiter(rpm=1, tpm=10)
    a, b = queued(limiter, 10, 10)
    assert limiter.start(a, 0) == 0
    limiter.unsent(a, 0)
    assert limiter.start(b, 0) == 0


def test_another_clock_starts_the_wait_anew() -> None:
    """A new event loop may count from an earlier time: nothing is forgotten, and nobody waits for the old clock."""
    limiter = Limiter(rpm=1)
    a, b = queued(limiter, 0, 0)
    assert limiter.start(a, 1_000_000) == 0
    limiter.refuse(a, 1_000_000, retry_after=90)
    assert limiter.start(b, 5) == pytest.approx(90)
    assert limiter.start(b, 95) == 0


def test_another_clock_does_not_hide_refusals() -> None:
    """What starts after a refusal is refused for itself, also where the clock counts from an earlier time."""
    limiter = Limiter(concurrency=Adaptive())
    a, b = queued(limiter, 0, 0)
    for place in (a, b):
        assert limiter.start(place, 1_000_000) == 0
    limiter.refuse(a, 1_000_000)
    assert limiter.statistics()["concurrency"] == 2
    limiter.fail(b, 5, billed=False)
    (c,) = queued(limiter, 0)
    assert limiter.start(c, 6) == 0
    limiter.refuse(c, 7)
    assert limiter.statistics()["concurrency"] == 1


def test_concurrency_doubles_until_refused_and_then_grows_slowly() -> None:
    """One refusal halves once, whatever was under way together."""
    adaptive = Adaptive()
    for _ in range(4):
        adaptive.succeeded(in_flight=4)
    assert adaptive.limit == 8
    adaptive.refused(started=0, now=1)
    adaptive.refused(started=0.5, now=1.1)
    assert adaptive.limit == 4
    for _ in range(4):
        adaptive.succeeded(in_flight=4)
    assert 4.9 < adaptive.limit < 5
    for started in range(2, 9):
        adaptive.refused(started, started + 1)
    assert adaptive.limit == 1


def test_concurrency_that_was_not_tried_does_not_grow() -> None:
    """A single call at a time says nothing about many."""
    adaptive = Adaptive()
    adaptive.succeeded(in_flight=1)
    assert adaptive.limit == 4


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "start", "finish", "refuse", "fail", "unsent", "withdraw"]), st.integers(0, 99)
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 9), st.integers(1, 300), st.sampled_from([None, 1, 3, "adaptive"]))
def test_the_limits_hold_whatever_happens(steps: list[tuple[str, int]], rpm: int, tpm: int, most: int | str) -> None:
    """No more calls at once than allowed, at most what the buckets held and gained, in order, and nobody is left."""
    limiter = Limiter(rpm=rpm, tpm=tpm, concurrency=Adaptive() if most == "adaptive" else most)  # type: ignore[arg-type]
    now, waiting, flying, sent = 0.0, list[Place](), list[Place](), 0
    for step, n in steps:
        now += n / 7
        if step == "arrive":
            waiting += queued(limiter, n)
        elif step == "withdraw" and waiting:
            limiter.withdraw(waiting.pop(n % len(waiting)))
        elif step == "start" and waiting:
            turn = waiting[n % len(waiting)]
            room = limiter.statistics()["concurrency"]
            if limiter.start(turn, now) == 0:
                assert turn is waiting.pop(0)
                flying.append(turn)
                sent += 1
                assert len(flying) <= room
        elif flying and step in ("finish", "refuse", "fail", "unsent"):
            turn = flying.pop(n % len(flying))
            if step == "finish":
                limiter.finish(turn, now, n)
            elif step == "refuse":
                limiter.refuse(turn, now, float(n))
            elif step == "fail":
                limiter.fail(turn, now, billed=n % 2 == 0)
            else:
                limiter.unsent(turn, now)
                sent -= 1
        assert sent <= rpm + now * rpm / 60 + 1e-3
    _drain(limiter, waiting, flying, now)


def _drain(limiter: Limiter, waiting: list[Place], flying: list[Place], now: float) -> None:
    """Let everything end: whoever is first is always told a time, or waits for a call under way."""
    while waiting or flying:
        for turn in flying:
            limiter.finish(turn, now, turn.tokens)
        flying.clear()
        if waiting:
            wait = limiter.start(waiting[0], now)
            assert wait < INF
            now += wait
            if wait == 0:
                flying.append(waiting.pop(0))
    stats = limiter.statistics()
    assert (stats["waiting"], stats["in_flight"], limiter._queue) == (0, 0, [])
