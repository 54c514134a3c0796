"""The journal's protocol: where a run's events are kept, in the order they were recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import anyio

from agentrt.errors import JournalError
from agentrt.events import Event, QuestionAnswered, QuestionAsked, TextDelta
from agentrt.guidance import Guidance
from agentrt.owner import Owner, has_died
from agentrt.value import Value

CLAIM: Final = 30.0
"""A claim on a run holds for so many seconds, and is renewed thrice as often."""
ALL: Final = 1_000_000
"""So many runs are all that a store holds."""


class RunSummary(Value):
    """Describe one recorded run.

    status: `running`, `waiting` for people, or its stop reason. cost: in pico-dollars. questions: how many are open.
    target: what the shell ran, `FILE:NAME`. parent: the run it was forked from. owner, until: who drives it now, and
    until when that holds unless it is renewed (seconds since the epoch). worked: how many seconds it was worked on up
    to the `latest` event of that; what lies between two parts of a run, such as waiting for people, is not in it.
    due: when a waiting run may go on: 0 once a question it waits for is answered, else when the first of them is
    answered by itself; None if only people can tell.
    """

    run_id: str
    name: str
    status: str
    started: float
    ended: float | None = None
    tokens: int = 0
    cost: int = 0
    questions: int = 0
    target: str | None = None
    parent: str | None = None
    owner: str | None = None
    until: float = 0.0
    worked: float = 0.0
    latest: float = 0.0
    due: float | None = None

    def is_driven(self, now: float) -> bool:
        """Say whether somebody drives the run: his claim holds, and he has not died."""
        return self.owner is not None and self.until > now and not has_died(self.owner)


class OpenQuestion(Value):
    """Hold a question that a run has asked of people and nobody has answered yet."""

    run_id: str
    name: str
    asked: QuestionAsked


class Note(Value):
    """Hold a text that agents keep beyond a run; `at` is when it was written, in seconds since the epoch."""

    name: str
    text: str
    at: float


class Notes(Protocol):
    """Keep notes in spaces, whoever writes them and in whichever run; every method raises `JournalError`."""

    async def notes(self, space: str) -> list[Note]:
        """Return the notes of a space, in the order of their names."""
        ...

    async def write_note(self, space: str, name: str, text: str | None) -> None:
        """Keep a note durably in place of the one of that name; None takes it away."""
        ...


class Journal(Notes, Protocol):
    """Keep the events of runs: the truth of what each has done; and notes.

    Every method raises `JournalError` where the store cannot be read or written, and for a run it does not hold. A
    store may serve many runs of one process at once, and many processes.
    """

    async def claim(self, run_id: str, owner: str, *, seconds: float, new: bool = False) -> int:
        """Become the one writer of a run for so long; return the epoch, which grows with every claim.

        `new` makes the run and raises `JournalError` if there is one of that id. Raises `RunTaken` while somebody
        else's claim holds.
        """
        ...

    async def renew(self, run_id: str, epoch: int, *, seconds: float) -> None:
        """Hold a claim for so long from now on; raises `RunTaken` if another has claimed the run since."""
        ...

    async def release(self, run_id: str, epoch: int) -> None:
        """Give a claim back, so that others need not wait for its end; does nothing if it is lost already."""
        ...

    async def append(self, run_id: str, epoch: int, events: Sequence[Event]) -> None:
        """Keep the events durably, all or none, after those appended before.

        Raises `RunTaken`, and keeps nothing, if another has claimed the run since this epoch.
        """
        ...

    async def answer(self, run_id: str, answered: QuestionAnswered) -> None:
        """Append the answer to a question, whoever drives the run.

        Raises `QuestionClosed`, and keeps nothing, unless that question is open: never asked, answered already, or of
        a run that has ended.
        """
        ...

    async def runs(self, limit: int = 50, *, status: str | None = None) -> list[RunSummary]:
        """Return the newest runs, newest first."""
        ...

    async def run(self, run_id: str) -> RunSummary:
        """Return one run's summary."""
        ...

    async def events(self, run_id: str) -> list[Event]:
        """Return a run's events in the order they were appended."""
        ...

    async def questions(self, run_id: str | None = None) -> list[OpenQuestion]:
        """Return the open questions of a run, or of all, oldest first."""
        ...

    async def guidance(self, name: str, limit: int = 100) -> list[Guidance]:
        """Return the newest answers that were to be kept, in all runs of what is called `name`, oldest first."""
        ...

    async def aclose(self) -> None:
        """Release the store."""
        ...


class JournalWriter:
    """Observe a run and append its events, in their order and in groups, while the run goes on.

    `run` is the one task that appends; events that come while it writes form the next group. Where the journal
    fails, `on_failure` is called once: a run that cannot be recorded must not go on. Nobody else may write to the run
    before this writer is closed, or its process dead.
    """

    def __init__(self, journal: Journal, run_id: str, owner: Owner, epoch: int) -> None:
        self.error: JournalError | None = None
        self.on_failure: Callable[[], object] = lambda: None
        self._journal = journal
        self._run_id = run_id
        self._owner = owner
        self.epoch = epoch
        self._pending: list[Event] = []
        self._recorded = self._kept = 0
        self._news, self._progress = anyio.Event(), anyio.Event()
        self._closing = False

    @classmethod
    async def claim(cls, journal: Journal, run_id: str, *, new: bool) -> JournalWriter:
        """Become the one writer of a run; raises `RunTaken` while another is."""
        owner = Owner()
        return cls(journal, run_id, owner, await journal.claim(run_id, owner.name, seconds=CLAIM, new=new))

    def __call__(self, event: Event) -> None:
        if not isinstance(event, TextDelta):
            self._pending.append(event)
            self._recorded += 1
            self._news.set()

    async def flush(self) -> None:
        """Wait until everything recorded so far is kept; raises `JournalError`."""
        until = self._recorded
        while self._kept < until and self.error is None:
            await self._progress.wait()
        if self.error is not None:
            raise self.error

    async def release(self) -> None:
        """Give the claim back of a run that is not going to go on here."""
        try:
            with anyio.CancelScope(shield=True):
                await self._journal.release(self._run_id, self.epoch)
        finally:
            self._owner.end()

    def close(self) -> None:
        """Let `run` end once everything is written."""
        self._closing = True
        self._news.set()

    async def run(self) -> None:
        """Append until closed, and give the claim back. Cancelling the run around does not cut off what it recorded."""
        try:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._hold, name="agentrt claim")
                    while self._pending or not self._closing:
                        await self._news.wait()
                        self._news = anyio.Event()
                        await self._append()
                    tasks.cancel_scope.cancel()
                if self.error is None:
                    await self._attempt(lambda: self._journal.release(self._run_id, self.epoch))
        finally:
            self._owner.end()

    async def _append(self) -> None:
        events, self._pending = self._pending, []
        if events and self.error is None:
            await self._attempt(lambda: self._journal.append(self._run_id, self.epoch, events))
        if self.error is None:
            self._kept += len(events)
        self._progress.set()
        self._progress = anyio.Event()

    async def _hold(self) -> None:
        """Renew the claim as long as the run goes on."""
        while self.error is None:
            await anyio.sleep(CLAIM / 3)
            await self._attempt(lambda: self._journal.renew(self._run_id, self.epoch, seconds=CLAIM))

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever stops the journal stops the run, as the one error it raises
            self.error = error if isinstance(error, JournalError) else _broken(error)
            self._news.set()
            self.on_failure()


def _broken(cause: Exception) -> JournalError:
    error = JournalError(f"the journal failed: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
