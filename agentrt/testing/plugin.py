"""The pytest plugin: virtual time and interleavings by marker; cassettes, scripted models, recorded runs as fixtures.

It changes nothing for tests that use none of these. Async tests are run by anyio's own plugin, which comes with anyio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, Unpack, cast

import pytest

from agentrt.function import Runnable
from agentrt.model import Model
from agentrt.options import ReplayOptions
from agentrt.result import Result
from agentrt.testing.cassette import Cassette, Mode, recorded
from agentrt.testing.models import Reply, ScriptedModel
from agentrt.testing.records import RecordMismatch, replay_record
from agentrt.testing.virtual import run_virtual, virtual_backend

T = TypeVar("T")
_BACKEND: Final = "anyio_backend"
_VIRTUAL: Final = "virtual"
_ORDER: Final = "order"
_INTERLEAVINGS: Final = 20
_checked = pytest.StashKey[list[ScriptedModel | Cassette]]()
_renewed = pytest.StashKey[set[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--agentrt-record`."""
    parser.getgroup("agentrt").addoption(
        "--agentrt-record",
        choices=("once", "none", "all"),
        help="record cassettes once (the default, unless AGENTRT_RECORD says otherwise), never, or all of them anew",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.stash[_renewed] = set()
    for marker in (
        "virtual_time: run an async test in virtual time: sleeps, deadlines and back-off take no real time",
        f"interleavings(n={_INTERLEAVINGS}): run an async test n times in virtual time, each time in another order "
        "of whatever is ready",
    ):
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give marked async tests backends of their own, in the place of what the `anyio_backend` fixture returns."""
    item = metafunc.definition
    orders = item.get_closest_marker("interleavings")
    if orders is None and item.get_closest_marker("virtual_time") is None:
        return
    if _BACKEND in metafunc.fixturenames:
        backends = [pytest.param(virtual_backend(seed), id=name) for name, seed in _seeds(orders)]
        item.add_marker(pytest.mark.parametrize(_BACKEND, backends))
    elif orders is not None and orders in item.own_markers:
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.interleavings is for async tests that anyio's plugin runs "
            "(@pytest.mark.anyio); in any other call run_virtual(function, seed=…)"
        )


def _seeds(orders: pytest.Mark | None) -> list[tuple[str, int | None]]:
    if orders is None:
        return [(_VIRTUAL, None)]
    n = orders.kwargs.get("n", orders.args[0] if orders.args else _INTERLEAVINGS)
    return [(f"{_ORDER}{seed}", seed) for seed in range(n)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Check scripts and cassettes of a test that has passed: what nobody asked for makes it fail."""
    yield
    for model in item.stash.get(_checked, []):
        model.check()


class ScriptedModels:
    """Make scripted models; each is checked when the test has passed."""

    def __init__(self, made: list[ScriptedModel | Cassette]) -> None:
        self._made = made

    def __call__(self, *replies: Reply, **options: Any) -> ScriptedModel:
        model = ScriptedModel(replies, **options)
        self._made.append(model)
        return model


class Cassettes:
    """Make the cassettes of one test, `cassettes/MODULE/TEST.jsonl` beside its file; each is checked at its end."""

    def __init__(self, item: pytest.Item, made: list[ScriptedModel | Cassette]) -> None:
        self._item = item
        self._made = made

    def __call__(self, model: Model | str | None = None, *, name: str = "", mode: Mode | None = None) -> Cassette:
        """Return the test's cassette of a model; give several of one test a `name` each."""
        path = self.path(name)
        model = recorded(path, model, mode=self._mode(path, mode))
        self._made.append(model)
        return model

    def path(self, name: str = "") -> Path:
        """Return where a cassette is; the interleavings of one test share it."""
        test = self._item.path
        safe = re.sub(rf"(?<=[\[-])({_VIRTUAL}|{_ORDER}\d+)(?=[\]-])", "", self._item.name)
        stem = re.sub(r"[^\w.=+-]+", "-", safe).strip("-") + (f".{name}" if name else "")
        return test.parent / "cassettes" / test.stem / f"{stem}.jsonl"

    def _mode(self, path: Path, mode: Mode | None) -> Mode | None:
        """Return how to use a cassette; recorded anew, it is so once a session, however many tests share it."""
        config = self._item.config
        chosen = mode or cast("Mode | None", config.getoption("--agentrt-record"))
        if chosen != "all":
            return chosen
        if path in config.stash[_renewed]:
            return "none"
        config.stash[_renewed].add(path)
        return chosen


class ReplayRun(Protocol):
    """Go through the run in a file again, as `replay_record` does; a path is relative to the test's file."""

    def __call__(
        self, node: Runnable[T], path: str | os.PathLike[str], /, **options: Unpack[ReplayOptions]
    ) -> Coroutine[Any, Any, Result[T]]: ...


class ReplayRunSync(Protocol):
    """Do the same in a test that is not async, in virtual time."""

    def __call__(
        self, node: Runnable[T], path: str | os.PathLike[str], /, **options: Unpack[ReplayOptions]
    ) -> Result[T]: ...


@pytest.fixture
def scripted_model(request: pytest.FixtureRequest) -> ScriptedModels:
    """Make models that answer from a script: `scripted_model("first reply", "second reply")`."""
    return ScriptedModels(_of(request.node))


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Cassettes:
    """Make models that are recorded once and replayed ever after: `cassette("openai/gpt-5-mini")`."""
    return Cassettes(request.node, _of(request.node))


@pytest.fixture
def replay_run(request: pytest.FixtureRequest) -> ReplayRun:
    """Go through a recorded run again: `result = await replay_run(graph, "runs/brief.jsonl")`."""
    folder = request.path.parent

    async def replay(node: Runnable[T], path: str | os.PathLike[str], /, **options: Unpack[ReplayOptions]) -> Result[T]:
        __tracebackhide__ = True
        return await replay_record(node, folder / path, **options)

    return replay


@pytest.fixture
def replay_run_sync(replay_run: ReplayRun) -> ReplayRunSync:
    """Go through a recorded run again: `result = replay_run_sync(graph, "runs/brief.jsonl")`."""

    def replay(node: Runnable[T], path: str | os.PathLike[str], /, **options: Unpack[ReplayOptions]) -> Result[T]:
        __tracebackhide__ = True
        try:
            return run_virtual(partial(replay_run, node, path, **options))
        except (RecordMismatch, OSError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - the frames between are those of the event loop

    return replay


def _of(item: pytest.Item) -> list[ScriptedModel | Cassette]:
    return item.stash.setdefault(_checked, [])
