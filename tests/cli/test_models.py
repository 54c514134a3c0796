"""`agentrt models`, and the weights a run needs."""

from pathlib import Path

import pytest

from agentrt.cli.models import fetch_missing
from agentrt.cli.source import load
from agentrt.models import weights
from tests.cli.conftest import Shell, Write, document


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTRT_CACHE", str(tmp_path / "cache"))


def test_list_says_what_is_installed_and_what_model_takes(shell: Shell) -> None:
    """The embedded models are listed with how to get them, and what else --model takes."""
    listed = shell("models").stdout
    assert "local/smollm2-135m  no: agentrt models pull smollm2-135m" in listed
    assert "PROVIDER/MODEL" in listed
    assert shell("models", "list").stdout == listed


def test_list_as_json(shell: Shell) -> None:
    """--json prints a list for programs."""
    (model,) = document(shell("models", "list", "--json"))
    assert (model["name"], model["installed"]) == ("local/smollm2-135m", False)


def test_pull_fetches_once(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pull prints where the weights are, with or without the provider's name."""
    monkeypatch.setattr(weights, "pull", lambda name: tmp_path / f"{name}.gguf")
    for name in ("smollm2-135m", "local/smollm2-135m"):
        assert shell("models", "pull", name).stdout.replace("\n", "") == f"{tmp_path}/smollm2-135m.gguf"


def test_pull_of_an_unknown_model(shell: Shell) -> None:
    """A name that is not in the list says which are."""
    result = shell("models", "pull", "gpt")
    assert (result.exit_code, "use local/smollm2-135m" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("body", "model", "fetched"),
    [
        ('Agent("a")', None, ["smollm2-135m"]),
        ('Agent("a", model="openai/gpt-5")', None, []),
        ('Agent("a", model="openai/gpt-5")', "local/smollm2-135m", ["smollm2-135m"]),
        ('Agent("a", model=model)', None, []),
        ('Agent("a", model=model, tools=[Agent("b", description="B.")])', None, ["smollm2-135m"]),
        ('Graph("g")\ndel Agent', None, []),
        ('Graph("g")', None, ["smollm2-135m"]),
    ],
)
def test_weights_are_fetched_before_the_run(
    write: Write, monkeypatch: pytest.MonkeyPatch, body: str, model: str | None, fetched: list[str]
) -> None:
    """A run that will need an embedded model gets it first; one that may make agents as it goes is taken to need it."""
    pulled: list[str] = []
    monkeypatch.setattr(weights, "pull", pulled.append)
    monkeypatch.setattr("agentrt.cli.models.resolve_model", lambda name: None)
    source = load(write(f"main = {body}"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    fetch_missing(source, model)
    assert pulled == fetched


def test_nothing_is_fetched_for_a_model_that_cannot_run(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the weights would be of no use; the model itself tells what to install."""
    pulled: list[str] = []
    monkeypatch.setattr(weights, "pull", pulled.append)
    source = load(write('main = Agent("a")'))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fetch_missing(source, None)
    assert pulled == []
