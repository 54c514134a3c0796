"""Cassettes: a real model is asked once, and its answers are replayed from a file ever after."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self, TypeAlias, cast, get_args

import anyio.lowlevel

from agentrt.model import Model, ModelRequest, ModelResponse, resolve_model
from agentrt.testing.interaction import LASTING, Answer, Interaction, difference, key, plain, prompt_key
from agentrt.testing.tape import Tape
from agentrt.usage import Price

Mode: TypeAlias = Literal["once", "none", "all"]
_MODES: Final = get_args(Mode)
_AGAIN: Final = "if the change is meant, record it again: AGENTRT_RECORD=all, or pytest --agentrt-record=all"


class CassetteMismatch(AssertionError):
    """Say that what was asked is not what was recorded."""


class Cassette(ABC):
    """Be a model in the place of another, which a file remembers.

    Use it as a context manager, or call `check`, to be told of what was recorded and nobody asked for. `async with`
    closes, too, a model that was given by name; a run does not.
    """

    name: str
    recording: bool

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name} at {str(self.path)!r}>"

    @property
    @abstractmethod
    def price(self) -> Price | None: ...

    @abstractmethod
    async def count_tokens(self, request: ModelRequest) -> int: ...

    @abstractmethod
    def max_output(self, request: ModelRequest, input_tokens: int) -> int: ...

    @abstractmethod
    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    @abstractmethod
    def check(self) -> None:
        """Raise `CassetteMismatch` unless what was asked is what was recorded, no more and no less."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.check()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
        self.__exit__(kind, error, traceback)


def recorded(path: str | os.PathLike[str], model: Model | str | None = None, *, mode: Mode | None = None) -> Cassette:
    """Return a model that records another one in a file or, once there is a recording, replays it.

    path: JSON lines, the first one about the model, then one for each request with its answer. Keys and headers
        never get there: it holds what was said.
    model: the one to record, or its name, which is resolved only when recording; None to replay only.
    mode: "once" records if there is no file, "none" never does, "all" records anew; without it the environment
        variable `AGENTRT_RECORD` says, else it is "once".

    A replay wants the same requests, as often, in any order; equal ones get their answers in recorded order. A
    request that was not recorded raises `CassetteMismatch` with a diff against the nearest one that was.
    """
    file, named = Path(path), model if isinstance(model, str) or model is None else model.name
    chosen = _mode(mode)
    if chosen == "all" or (chosen == "once" and not file.exists()):
        if model is None:
            raise CassetteMismatch(f"{file}: there is nothing to replay; say which model to record")
        return Recorder(file, model)
    if not file.exists():
        raise CassetteMismatch(f"{file}: not recorded yet; record it: AGENTRT_RECORD=once, or --agentrt-record=once")
    tape = _read(file)
    if named not in (None, tape.name):
        raise CassetteMismatch(f"{file}: recorded from {tape.name}, not from {named}; {_AGAIN}")
    return Player(file, tape)


def _mode(mode: Mode | None) -> Mode:
    chosen = mode or os.environ.get("AGENTRT_RECORD") or "once"
    if chosen not in _MODES:
        raise ValueError(f"AGENTRT_RECORD={chosen!r}: a cassette's mode is one of {', '.join(_MODES)}")
    return cast(Mode, chosen)


def _read(file: Path) -> Tape:
    try:
        return Tape.parse(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


class Player(Cassette):
    """Replay a tape."""

    recording = False

    def __init__(self, path: Path, tape: Tape) -> None:
        super().__init__(path)
        self.name = tape.name
        self._tape = tape
        self._left: dict[str, deque[Interaction]] = defaultdict(deque)
        self._counted: dict[str, Interaction] = {}
        self._missed: list[str] = []
        for interaction in tape.interactions:
            self._left[key(interaction.request)].append(interaction)
            self._counted.setdefault(prompt_key(interaction.request), interaction)

    @property
    def price(self) -> Price | None:
        return self._tape.price

    async def count_tokens(self, request: ModelRequest) -> int:
        tokens = self._prompt(request).input_tokens
        return self._miss(plain(request)) if tokens is None else tokens

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        most = self._prompt(request).max_output
        return self._miss(plain(request)) if most is None else most

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer as recorded, piece by piece."""
        await anyio.lowlevel.checkpoint()
        asked = plain(request)
        left = self._left.get(key(asked))
        if not left:
            self._miss(asked)
        interaction = left.popleft()
        for piece in interaction.pieces:
            on_text(piece)
        if isinstance(interaction.answer, ModelResponse):
            return interaction.answer
        raise interaction.answer

    async def aclose(self) -> None:
        """Release nothing."""

    def check(self) -> None:
        if self._missed:
            raise CassetteMismatch(self._missed[0])
        unasked = [i for left in self._left.values() for i in left]
        if unasked:
            raise CassetteMismatch(
                f"{self.path}: {len(unasked)} of {len(self._tape.interactions)} recorded requests were not made; "
                f"{_AGAIN}\n" + "\n".join(f"  {key(i.request)[:200]}" for i in unasked)
            )

    def _prompt(self, request: ModelRequest) -> Interaction:
        asked = plain(request)
        return self._counted.get(prompt_key(asked)) or self._miss(asked)

    def _miss(self, asked: dict[str, Any]) -> NoReturn:
        """Raise, and remember it: a join may drop the failure of a step."""
        times = sum(key(i.request) == key(asked) for i in self._tape.interactions)
        if times:
            reason = f"asked once more than the {times} times that were recorded:\n{key(asked)[:500]}"
        else:
            reason = f"this was not recorded; against what is nearest:\n{difference(asked, self._tape.interactions)}"
        self._missed.append(f"{self.path}: {reason}\n{_AGAIN}")
        raise CassetteMismatch(self._missed[-1])


class Recorder(Cassette):
    """Pass every request to a model and write down what it answers, at once: an answer may have cost money."""

    recording = True

    def __init__(self, path: Path, model: Model | str) -> None:
        super().__init__(path)
        self._opened = resolve_model(model) if isinstance(model, str) else None
        self._model = self._opened or cast(Model, model)
        self.name = self._model.name
        self._before = _read(path).interactions if path.exists() else ()
        self._taken: list[Interaction | None] = []
        self._counted: dict[str, int] = {}
        self._most: dict[str, int] = {}

    @property
    def price(self) -> Price | None:
        return self._model.price

    async def count_tokens(self, request: ModelRequest) -> int:
        tokens = self._counted[prompt_key(plain(request))] = await self._model.count_tokens(request)
        return tokens

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        most = self._most[prompt_key(plain(request))] = self._model.max_output(request, input_tokens)
        return most

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer as the model does; its answer's place on the tape is taken when it is asked."""
        place, pieces = len(self._taken), list[str]()
        self._taken.append(None)

        def note(piece: str) -> None:
            pieces.append(piece)
            on_text(piece)

        try:
            response = await self._model.generate(request, note)
        except LASTING as error:
            self._note(place, request, error, pieces)
            raise
        self._note(place, request, response, pieces)
        return response

    async def aclose(self) -> None:
        """Close the model if it was given by name."""
        if self._opened is not None:
            await self._opened.aclose()

    def check(self) -> None:
        """Find nothing wrong: what is asked is what is recorded."""

    def _note(self, place: int, request: ModelRequest, answer: Answer, pieces: list[str]) -> None:
        asked = plain(request)
        prompt = prompt_key(asked)
        self._taken[place] = Interaction(
            request=asked,
            answer=answer,
            pieces=tuple(pieces),
            input_tokens=self._counted.get(prompt),
            max_output=self._most.get(prompt),
        )
        tape = Tape(self.name, self.price, tuple(i for i in self._taken if i is not None))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(tape.in_order_of(self._before).dump(), encoding="utf-8")
        fresh.replace(self.path)
