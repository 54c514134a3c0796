"""Tasks that work for each other, cancelled at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import anyio
import pytest

from agentrt.stores.combiner import Combiner
from tests.steploop import StepLoop, run_stepwise

TASKS = 5
LATE = 2
"""How many of the tasks come while others are at work."""


class Log:
    """Do jobs in steps, each group once however often that is begun, and none beside another."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.combiner = Combiner(self._begin)
        self._busy = False

    @property
    def done(self) -> list[int]:
        return [job for group in self.groups for job in group]

    def _begin(self, jobs: Sequence[int]) -> _Work:
        return _Work(self, list(jobs))


class _Work:
    def __init__(self, log: Log, jobs: list[int]) -> None:
        self._log = log
        self._jobs = jobs
        self._steps = 3

    async def __call__(self) -> None:
        assert not self._log._busy
        self._log._busy = True
        try:
            while self._steps:
                await asyncio.sleep(0)
                self._steps -= 1
                if self._steps == 1:
                    self._log.groups.append(self._jobs)
            await asyncio.sleep(0)
        finally:
            self._log._busy = False


async def several(log: Log, tasks: list[asyncio.Task[None]]) -> list[BaseException | None]:
    """Ask for a job in each of several tasks, some of them later, and return how the tasks ended."""
    tasks += [asyncio.create_task(log.combiner.do(i)) for i in range(TASKS - LATE)]
    for i in range(TASKS - LATE, TASKS):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(log.combiner.do(i)))
    with anyio.fail_after(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_one_group() -> None:
    """In the order asked; but for the first, which waits for nobody."""
    log = Log()
    run_stepwise(lambda: several(log, []), StepLoop())
    assert log.groups == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize("cancelled", [(0,), (1,), (0, 1), (1, 2), (0, 1, 2), (3,), (0, 4), (1, 2, 3, 4)])
def test_whoever_is_cancelled_leaves_the_others(cancelled: tuple[int, ...]) -> None:
    """At whatever moment: their jobs are done, once and in order; his own is done or not; and nobody hangs."""
    for at in count(1):
        log = Log()
        tasks: list[asyncio.Task[None]] = []

        def cancel(tasks: list[asyncio.Task[None]] = tasks) -> None:
            for task in tasks:
                if tasks.index(task) in cancelled:
                    task.cancel()

        loop = StepLoop(at, cancel)
        outcomes = run_stepwise(lambda log=log, tasks=tasks: several(log, tasks), loop)
        assert log.done == sorted(set(log.done)), at
        for i, outcome in enumerate(outcomes):
            assert outcome is None or i in cancelled, (at, i)
            assert i in log.done or outcome is not None, (at, i)
        if loop.steps < at:
            return


def test_a_group_that_nobody_waits_for_is_given_up() -> None:
    """The next is begun all the same."""
    log = Log()

    async def main() -> None:
        first = asyncio.create_task(log.combiner.do(1))
        await asyncio.sleep(0)
        first.cancel()
        await log.combiner.do(2)

    anyio.run(main)
    assert log.groups == [[2]]


def test_an_error_of_the_work_is_everybodys() -> None:
    """Who waits for the same work meets it too, and whoever comes later does not."""
    begun: list[Sequence[int]] = []

    def begin(jobs: Sequence[int]) -> object:
        async def work() -> None:
            begun.append(jobs)
            await asyncio.sleep(0)
            if 1 in jobs:
                raise ZeroDivisionError

        return work

    async def main() -> list[BaseException | None]:
        combiner: Combiner[int] = Combiner(begin)  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*(combiner.do(i) for i in range(3)), return_exceptions=True)
        await combiner.do(3)
        return outcomes

    assert [type(o) for o in anyio.run(main)] == [type(None), ZeroDivisionError, ZeroDivisionError]


def test_rest_is_when_nobody_waits() -> None:
    """Neither now, nor where others come meanwhile; at once where nobody does."""
    log = Log()

    async def main() -> None:
        await log.combiner.rest()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.combiner.do, 1)
            tasks.start_soon(log.combiner.do, 2)
            await anyio.lowlevel.checkpoint()
            with anyio.CancelScope() as impatient:
                impatient.cancel()
                await log.combiner.rest()
            await log.combiner.rest()
            assert log.done == [1, 2]

    anyio.run(main)
