"""Draws of one prompt share a request, and nobody's cancellation or error hurts anybody else."""

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentrt.errors import ModelUnavailable, RateLimited
from agentrt.messages import AssistantMessage, UserMessage
from agentrt.model import ModelRequest, ModelResponse, ModelSettings, is_unbilled
from agentrt.models.coalesce import Coalescer, Draw
from agentrt.usage import Usage

pytestmark = pytest.mark.anyio


def ask(seed: int | None = None, text: str = "why?", max_tokens: int = 8) -> ModelRequest:
    return ModelRequest(messages=(UserMessage(text),), settings=ModelSettings(max_tokens=max_tokens, seed=seed))


def answer(text: str, prompt: int = 0) -> ModelResponse:
    return ModelResponse(message=AssistantMessage(text), usage=Usage(input_tokens=prompt, output_tokens=1))


def ignore(_text: str) -> None: ...


class FakeServer:
    """Answer each draw with its seed, once the gate is open; keep what was asked."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.asked: list[tuple[int | None, int]] = []
        self.cancelled = 0
        self.gate = anyio.Event()
        self.fails: list[Exception] = []
        if is_open:
            self.gate.set()

    async def send(self, request: ModelRequest, draws: Sequence[Draw]) -> None:
        self.asked.append((request.settings.seed, len(draws)))
        try:
            await self.gate.wait()
        except BaseException:
            self.cancelled += 1
            raise
        if self.fails:
            raise self.fails.pop()
        for i, draw in enumerate(draws):
            draw.text(f"{draw.seed}")
            draw.finish(answer(f"{draw.seed}", prompt=10 if i == 0 else 0))


async def gather(coalescer: Coalescer, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
    responses: dict[int, ModelResponse] = {}

    async def one(i: int, request: ModelRequest) -> None:
        responses[i] = await coalescer.generate(request, ignore)

    async with anyio.create_task_group() as tasks:
        for i, request in enumerate(requests):
            tasks.start_soon(one, i, request)
    return [responses[i] for i in range(len(requests))]


async def until_asked(server: FakeServer, times: int) -> None:
    while len(server.asked) < times:
        await checkpoint()


async def test_concurrent_draws_are_one_request() -> None:
    """Each caller gets its own answer, and the prompt is charged once."""
    server = FakeServer()
    responses = await gather(Coalescer(server.send, most=8), [ask(seed) for seed in range(5)])
    assert server.asked == [(0, 5)]
    assert [r.message.text for r in responses] == ["0", "1", "2", "3", "4"]
    assert sum(r.usage.input_tokens for r in responses) == 10


async def test_a_lone_request_is_sent_alone() -> None:
    server = FakeServer()
    assert (await Coalescer(server.send, most=8).generate(ask(7), ignore)).message.text == "7"
    assert server.asked == [(7, 1)]


async def test_other_prompts_and_other_settings_do_not_share() -> None:
    server = FakeServer()
    await gather(Coalescer(server.send, most=8), [ask(0), ask(1, text="how?"), ask(2, max_tokens=9)])
    assert len(server.asked) == 3


async def test_a_request_has_at_most_so_many_draws() -> None:
    server = FakeServer()
    await gather(Coalescer(server.send, most=4), [ask(seed) for seed in range(10)])
    assert [n for _, n in server.asked] == [4, 4, 2]


async def test_only_consecutive_seeds_share_where_asked() -> None:
    """An answer then does not depend on who else was asking."""
    server = FakeServer()
    responses = await gather(
        Coalescer(server.send, most=8, slots=8, consecutive=True), [ask(s) for s in (5, 90, 4, 91, 6)]
    )
    assert sorted(server.asked) == [(4, 3), (90, 2)]
    assert [r.message.text for r in responses] == ["5", "90", "4", "91", "6"]


async def test_equal_seeds_are_asked_for_apart_and_no_seeds_together() -> None:
    server = FakeServer()
    coalescer = Coalescer(server.send, most=8, consecutive=True)
    await gather(coalescer, [ask(3), ask(3), ask(None), ask(None)])
    assert sorted(server.asked, key=str) == [(3, 1), (3, 1), (None, 2)]


async def test_callers_that_come_a_little_later_still_join() -> None:
    """Whoever comes while the loop is busy with others joins; there is no timer."""
    server = FakeServer()
    coalescer = Coalescer(server.send, most=8)

    async def late(i: int) -> None:
        for _ in range(3 * i):
            await checkpoint()
        await coalescer.generate(ask(i), ignore)

    async with anyio.create_task_group() as tasks:
        for i in range(4):
            tasks.start_soon(late, i)
    assert server.asked == [(0, 4)]


async def test_a_follower_that_is_cancelled_leaves_the_others_alone() -> None:
    server = FakeServer(is_open=False)
    coalescer = Coalescer(server.send, most=8)
    texts: list[str] = []
    got: list[str] = []

    async def one(seed: int) -> None:
        got.append((await coalescer.generate(ask(seed), texts.append)).message.text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, 0)
        async with anyio.create_task_group() as others:
            others.start_soon(one, 1)
            await until_asked(server, 1)
            others.cancel_scope.cancel()
        server.gate.set()
    assert server.asked == [(0, 2)]
    assert server.cancelled == 0
    assert got == texts == ["0"]


async def test_when_the_leader_is_cancelled_another_caller_asks_again() -> None:
    server = FakeServer(is_open=False)
    coalescer = Coalescer(server.send, most=8)
    got: list[str] = []

    async def one(seed: int) -> None:
        got.append((await coalescer.generate(ask(seed), ignore)).message.text)

    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as first:
            first.start_soon(one, 0)
            await checkpoint()
            for seed in (1, 2):
                tasks.start_soon(one, seed)
            await until_asked(server, 1)
            first.cancel_scope.cancel()
        await until_asked(server, 2)
        server.gate.set()
    assert server.asked == [(0, 3), (1, 2)]
    assert server.cancelled == 1
    assert sorted(got) == ["1", "2"]


async def test_cancelling_all_cancels_the_request() -> None:
    server = FakeServer(is_open=False)
    coalescer = Coalescer(server.send, most=8, slots=8)
    async with anyio.create_task_group() as tasks:
        for seed in range(4):
            tasks.start_soon(coalescer.generate, ask(seed), ignore)
        await until_asked(server, 1)
        tasks.cancel_scope.cancel()
    assert server.cancelled == len(server.asked) == 1
    server.gate.set()
    assert (await coalescer.generate(ask(9), ignore)).message.text == "9"


async def test_an_error_reaches_every_caller() -> None:
    server = FakeServer()
    server.fails = [RateLimited("slow down", retry_after=2.5)]
    coalescer = Coalescer(server.send, most=8)
    caught: list[RateLimited] = []

    async def one(seed: int) -> None:
        with pytest.raises(RateLimited, match="slow down") as failure:
            await coalescer.generate(ask(seed), ignore)
        caught.append(failure.value)

    async with anyio.create_task_group() as tasks:
        for seed in range(3):
            tasks.start_soon(one, seed)
    assert [e.retry_after for e in caught] == [2.5] * 3
    assert len(set(map(id, caught))) == 3


async def test_what_was_answered_before_an_error_is_kept() -> None:
    async def send(_request: ModelRequest, draws: Sequence[Draw]) -> None:
        draws[0].finish(answer("kept"))
        raise ModelUnavailable("gone")

    coalescer = Coalescer(send, most=8)
    outcomes: list[str] = []

    async def one(seed: int) -> None:
        try:
            outcomes.append((await coalescer.generate(ask(seed), ignore)).message.text)
        except ModelUnavailable:
            outcomes.append("gone")

    async with anyio.create_task_group() as tasks:
        for seed in range(2):
            tasks.start_soon(one, seed)
    assert sorted(outcomes) == ["gone", "kept"]


async def test_a_request_that_ends_early_is_an_error() -> None:
    async def send(_request: ModelRequest, _draws: Sequence[Draw]) -> None: ...

    with pytest.raises(ModelUnavailable, match="before it was complete"):
        await Coalescer(send, most=8).generate(ask(1), ignore)


async def test_draws_under_way_never_exceed_the_slots_and_waiting_requests_can_be_joined() -> None:
    under_way = most = 0
    asked: list[int] = []

    async def send(_request: ModelRequest, draws: Sequence[Draw]) -> None:
        nonlocal under_way, most
        asked.append(len(draws))
        under_way += len(draws)
        most = max(most, under_way)
        for _ in range(20):
            await checkpoint()
        under_way -= len(draws)
        for draw in draws:
            draw.finish(answer("x"))

    requests = [ask(seed, text=f"{prompt}") for seed in range(3) for prompt in range(6)]
    await gather(Coalescer(send, most=8, slots=8), requests)
    assert most <= 8
    assert sum(asked) == 18
    assert len(asked) == 6


async def test_a_caller_cancelled_while_it_waits_for_slots_gives_back_what_it_took() -> None:
    server = FakeServer(is_open=False)
    coalescer = Coalescer(server.send, most=4, slots=4)
    async with anyio.create_task_group() as tasks:
        for seed in range(3):
            tasks.start_soon(coalescer.generate, ask(seed), ignore)
        await until_asked(server, 1)
        async with anyio.create_task_group() as waiting:
            for seed in range(4):
                waiting.start_soon(coalescer.generate, ask(seed, text="other"), ignore)
            for _ in range(50):
                await checkpoint()
            waiting.cancel_scope.cancel()
        server.gate.set()
    await gather(coalescer, [ask(seed, text="last") for seed in range(4)])
    assert server.asked[-1] == (0, 4)


async def test_equal_greedy_draws_take_one_slot() -> None:
    """What must be the same answer is asked for once, so that a panel of greedy agents does not fill the slots."""
    sent: list[int] = []
    all_there = anyio.Event()

    async def send(request: ModelRequest, draws: Sequence[Draw]) -> None:
        sent.append(len(draws))
        if len(sent) == 4:
            all_there.set()
        await all_there.wait()
        for draw in draws:
            draw.finish(answer("same"))

    coalescer = Coalescer(send, most=4, slots=4, share_greedy=True)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for i in range(12):
                settings = ModelSettings(temperature=0.0)
                tasks.start_soon(
                    coalescer.generate, ModelRequest(messages=(), prompt=f"{i // 3}", settings=settings), ignore
                )
    assert sent == [3, 3, 3, 3]


async def test_what_is_cancelled_before_it_is_sent_is_not_billed() -> None:
    """One waits for a slot, with whoever joined it; the other is under way."""
    server, ended = FakeServer(is_open=False), {}
    coalescer = Coalescer(server.send, most=8, slots=1)

    async def one(text: str, seed: int) -> None:
        try:
            await coalescer.generate(ask(seed, text), ignore)
        except BaseException as error:
            ended[text, seed] = is_unbilled(error)
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "sent", 0)
        await until_asked(server, 1)
        tasks.start_soon(one, "waits", 0)
        tasks.start_soon(one, "waits", 1)
        for _ in range(20):
            await checkpoint()
        tasks.cancel_scope.cancel()
    assert ended == {("sent", 0): False, ("waits", 0): True, ("waits", 1): True}


async def test_near_twins_go_alone() -> None:
    """What cannot be hashed still tells requests apart: the same words, for another schema."""
    server = FakeServer()
    asked = [replace(ask(seed=i), output_schema={"type": kind}) for i, kind in enumerate(("object", "array", "object"))]
    responses = await gather(Coalescer(server.send, most=8), asked)
    assert sorted(server.asked) == [(0, 2), (1, 1)]
    assert [r.message.text for r in responses] == ["0", "1", "2"]


async def test_a_mistake_of_the_sender_is_everybodys_error() -> None:
    """As it is: it is none of a model's."""
    server = FakeServer()
    server.fails = [KeyError("choices")]
    coalescer = Coalescer(server.send, most=8)
    failed: list[Exception] = []

    async def one(seed: int) -> None:
        try:
            await coalescer.generate(ask(seed), ignore)
        except KeyError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        for seed in range(3):
            tasks.start_soon(one, seed)
    assert len(failed) == 3
