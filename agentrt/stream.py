"""Streams: a run's events, handed to a reader who may be slow, or gone, without the run noticing.

The run puts events into a bounded buffer and never waits; the reader takes them out. What does not fit is dropped,
text first, and the reader is told where and how much. Journals and observers get every event by other ways.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

from agentrt.errors import DefinitionError
from agentrt.events import Event, EventsDropped, RunCancelled, RunFailed, RunFinished, TextDelta

if TYPE_CHECKING:
    from agentrt.result import Result
    from agentrt.statistics import RunStatistics

T = TypeVar("T")
DEFAULT_BUFFER: Final = 10_000
CHARACTERS_PER_EVENT: Final = 100
"""A buffer of n events holds at most n times so many characters of streamed text."""
_LONGEST_MERGE: Final = 4_096
"""Text grows by merging to about this length, so that dropping one piece never drops an hour's worth."""
_NEVER: Final = 1 << 62


class _Text:
    """Hold adjacent pieces of text from one step as one."""

    __slots__ = ("first", "length", "number", "pieces")

    def __init__(self, number: int, event: TextDelta) -> None:
        self.number = number
        self.first = event
        self.pieces = [event.text]
        self.length = len(event.text)

    def event(self) -> TextDelta:
        if len(self.pieces) == 1:
            return self.first
        return TextDelta(path=self.first.path, at=self.first.at, text="".join(self.pieces))


class EventBuffer:
    """Keep events in order for a reader, at most `events` of them and `characters` of text.

    Adjacent pieces of text of one step become one. Beyond a bound the oldest text is dropped, then the oldest of the
    rest, so the last event that is no text is always kept. `EventsDropped` stands where the first of the missing
    events stood.
    """

    def __init__(self, events: int, characters: int) -> None:
        self.dropped = 0
        self._most_events = events
        self._most_characters = characters
        self._text: deque[_Text] = deque()
        self._rest: deque[tuple[int, Event]] = deque()
        self._next = 0
        self._characters = 0
        self._missing = 0
        self._gap = _NEVER
        self._gap_at = 0.0

    def __len__(self) -> int:
        return len(self._text) + len(self._rest)

    def put(self, event: Event) -> None:
        """Append an event, dropping what then no longer fits."""
        if isinstance(event, TextDelta):
            self._put_text(event)
        else:
            self._rest.append((self._next, event))
            self._next += 1
        while len(self) > self._most_events or self._characters > self._most_characters:
            self._drop()

    def take(self) -> Event | None:
        """Return the next event, or None if there is none now."""
        text = self._text[0].number if self._text else _NEVER
        other = self._rest[0][0] if self._rest else _NEVER
        if self._gap < text and self._gap < other:
            return self._report()
        if text < other:
            taken = self._text.popleft()
            self._characters -= taken.length
            return taken.event()
        return self._rest.popleft()[1] if self._rest else None

    def statistics(self) -> Mapping[str, int]:
        """Return how many events and characters of text are kept, and how many events were ever dropped."""
        return {"events": len(self), "characters": self._characters, "dropped": self.dropped}

    def _put_text(self, event: TextDelta) -> None:
        self._characters += len(event.text)
        last = self._text[-1] if self._text else None
        adjacent = last is not None and last.number == self._next - 1
        if last is not None and adjacent and last.first.path == event.path and last.length < _LONGEST_MERGE:
            last.pieces.append(event.text)
            last.length += len(event.text)
            return
        self._text.append(_Text(self._next, event))
        self._next += 1

    def _drop(self) -> None:
        if self._text:
            text = self._text.popleft()
            self._characters -= text.length
            number, at, count = text.number, text.first.at, len(text.pieces)
        else:
            number, event = self._rest.popleft()
            at, count = event.at, 1
        self._missing += count
        self.dropped += count
        if number < self._gap:
            self._gap, self._gap_at = number, at

    def _report(self) -> EventsDropped:
        report = EventsDropped(at=self._gap_at, count=self._missing)
        self._missing, self._gap = 0, _NEVER
        return report


class Feed(Generic[T]):
    """Be the run's end of a stream: it takes every event, and in the end the outcome, and never waits."""

    def __init__(self, buffer: int) -> None:
        if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
            raise DefinitionError(f"stream(buffer={buffer!r}): keep at least one event, as a whole number")
        self.buffer = EventBuffer(buffer, buffer * CHARACTERS_PER_EVENT)
        self.closing = False
        """The run has recorded its last event."""
        self.over = False
        self.outcome: Result[T] | Exception | None = None
        self._news: anyio.Event | None = None

    def put(self, event: Event) -> None:
        """Observe the run; call it in the thread of the event loop."""
        self.buffer.put(event)
        if isinstance(event, RunFinished | RunFailed | RunCancelled):
            self.closing = True
        self._tell()

    def finish(self, outcome: Result[T] | Exception | None) -> None:
        """End the stream with the run's result or error; None if the run was cancelled."""
        self.outcome = outcome
        self.over = True
        self._tell()

    async def wait_news(self) -> None:
        """Wait for an event or for the end."""
        if self._news is None:
            self._news = anyio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


class Stream(Generic[T]):
    """Iterate over a run's events as they happen, nested agents' too; `result` is there when they end.

    A reader that falls behind gets neighbouring pieces of text as one and, where the buffer overflows, an
    `EventsDropped` in place of what is missing; the last events and the result always come.
    """

    def __init__(self, feed: Feed[T], statistics: Callable[[], RunStatistics]) -> None:
        self._feed = feed
        self._statistics = statistics
        self.told = False
        """Somebody has asked for the result and knows how the run ended."""

    def __repr__(self) -> str:
        now = self._statistics()
        state = "has ended" if self._feed.over else "goes on"
        return f"<Stream {now.run_id} {state}: {now.running} running, {now.queued} queued, {now.events:,} events>"

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        feed = self._feed
        while (event := feed.buffer.take()) is None:
            if feed.over:
                raise StopAsyncIteration
            await feed.wait_news()
        return event

    async def text(self) -> AsyncIterator[TextDelta]:
        """Iterate over the pieces of text alone, each with the `path` of the model call that wrote it."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event

    @property
    def result(self) -> Result[T]:
        """Return the run's result once its events have ended; raises what `run` would raise."""
        outcome = self._feed.outcome
        self.told = self.told or outcome is not None
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            return outcome
        if self._feed.over:
            raise RuntimeError("there is no result: the run was cancelled, as it is when its stream is left early")
        raise RuntimeError("the run goes on: read the stream to its end before asking for the result")

    @property
    def dropped(self) -> int:
        """Return how many events the reader has missed or will miss so far."""
        return self._feed.buffer.dropped

    def statistics(self) -> RunStatistics:
        """Return what the run is doing now; after its end, what it did."""
        return self._statistics()
