"""A real model is recorded once and replayed after; what does not match says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentrt.testing.cassette
from agentrt import (
    Agent,
    Model,
    ModelRequest,
    ModelResponse,
    ModelSettings,
    Price,
    RateLimited,
    RequestRefused,
    StepFailed,
    run,
    tool,
)
from agentrt.messages import UserMessage
from agentrt.testing import CassetteMismatch, FunctionModel, ScriptedModel, call, recorded, run_virtual
from agentrt.testing.tape import Tape

pytestmark = pytest.mark.anyio
PRICE = Price(3, 5, 1, above=(100_000, Price(6, 9)))


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTRT_RECORD", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "talk.jsonl"


def ask(words: str = "how are you", **settings: Any) -> ModelRequest:
    return ModelRequest(messages=(UserMessage(words),), settings=ModelSettings(**settings))


async def generate(model: Model, request: ModelRequest) -> tuple[ModelResponse, list[str]]:
    pieces: list[str] = []
    return await model.generate(request, pieces.append), pieces


def written(path: Path) -> str:
    return path.read_text(encoding="utf-8")


async def say(model: Model, *words: str) -> list[str]:
    return [(await generate(model, ask(w)))[0].message.text for w in words]


@tool
async def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a word"


def reader(model: Model | None = None) -> Agent[object, str]:
    return Agent("reader", model=model, tools=[look_up])


async def test_an_agent_is_replayed_as_it_was_recorded(path: Path) -> None:
    """Answers, calls of tools, usage and money: without the model, which nobody asks again."""
    real = ScriptedModel([call("look_up", word="owl"), "A bird."], name="test/real", price=PRICE)
    before = await run(reader(), "What is an owl?", model=recorded(path, real))
    with recorded(path) as model:
        after = await run(reader(), "What is an owl?", model=model)
    assert (after.output, after.usage) == ("A bird.", before.usage) == (before.output, before.usage)
    assert after.usage.cost > 0
    assert (model.name, model.price, len(real.requests)) == ("test/real", PRICE, 2)


async def test_a_stream_comes_in_the_same_pieces(path: Path) -> None:
    """As they came from the model, with what it said of the answer."""
    request = ask(max_tokens=2)
    response, pieces = await generate(recorded(path, ScriptedModel(["one two three"])), request)
    again, replayed = await generate(recorded(path), request)
    assert replayed == pieces == ["one", " two"]
    assert (again.message, again.usage, again.finish_reason) == (response.message, response.usage, "length")


async def test_the_file_is_a_line_for_each_request_in_the_order_asked(path: Path) -> None:
    """However long each answer took; no key and no header can get there, for it holds what was said."""

    async def reply(request: ModelRequest) -> str:
        await anyio.sleep(10 if request.messages[0].text == "a" else 1)
        return request.messages[0].text.upper()

    model = recorded(path, FunctionModel(reply))
    async with anyio.create_task_group() as tasks:
        for words in "abc":
            tasks.start_soon(say, model, words)
            await anyio.sleep(0.1)
    lines = written(path).splitlines()
    assert lines[0] == '{"cassette": 1, "model": "test/function", "price": {"input": 0, "output": 0}}'
    assert [line[:55] for line in lines[1:]] == [
        f'{{"request": {{"messages": [{{"role": "user", "text": "{w}"}}]}}'[:55] for w in "abc"
    ]


@settings(max_examples=20)
@given(order=st.permutations("aabbc"), seed=st.integers(0, 99))
def test_requests_may_come_in_any_order(order: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Side by side, served in any order; each gets an answer of its own."""
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    answers: dict[str, list[str]] = {}

    async def main() -> None:
        await say(recorded(path, ScriptedModel(["a1", "b1", "a2", "c1", "b2"])), *"abacb")
        with recorded(path) as model:
            async with anyio.create_task_group() as tasks:
                for words in order:
                    tasks.start_soon(one, model, words)

    async def one(model: Model, words: str) -> None:
        answers.setdefault(words, []).extend(await say(model, words))

    run_virtual(main, seed=seed)
    assert {w: sorted(said) for w, said in answers.items()} == {"a": ["a1", "a2"], "b": ["b1", "b2"], "c": ["c1"]}


async def test_equal_requests_get_their_answers_in_recorded_order(path: Path) -> None:
    """Whatever is asked between them."""
    await say(recorded(path, ScriptedModel(["first", "other", "second"])), "a", "b", "a")
    assert await say(recorded(path), "a", "a", "b") == ["first", "second", "other"]


async def test_a_request_that_was_not_recorded_is_a_mismatch_with_a_diff(path: Path) -> None:
    """Within a run, too, where it is the cause of the step's failure; `check` repeats it."""
    await run(reader(), "What is\nan owl?", model=recorded(path, ScriptedModel(["A bird."])))
    model = recorded(path)
    with pytest.raises(StepFailed, match=r"this was not recorded") as failed:
        await run(reader(), "What is\nan eagle?", model=model)
    assert isinstance(failed.value.cause, CassetteMismatch)
    assert [line.strip("+- ") for line in str(failed.value).splitlines() if line[:4] in ("-   ", "+   ")] == [
        'an owl?"', 'an eagle?"',
    ]  # fmt: skip
    assert str(path) in str(failed.value)
    with pytest.raises(CassetteMismatch, match="--agentrt-record=all"):
        model.check()


async def test_other_settings_are_another_request(path: Path) -> None:
    """The prompt can be counted, yet the answer was to something else."""
    await generate(recorded(path, ScriptedModel(["x"])), ask(max_tokens=100))
    with pytest.raises(CassetteMismatch, match=r'\+ *"max_tokens": 200'):
        await generate(recorded(path), ask(max_tokens=200))


async def test_asking_once_more_than_recorded_is_a_mismatch(path: Path) -> None:
    """There is no answer left."""
    await say(recorded(path, ScriptedModel(["x"])), "a")
    model = recorded(path)
    with pytest.raises(CassetteMismatch, match="once more than the 1 times that were recorded"):
        await say(model, "a", "a")


async def test_what_nobody_asked_for_is_a_mismatch(path: Path) -> None:
    """Unless an error is on its way already."""
    await say(recorded(path, ScriptedModel(["x", "y"])), "a", "b")
    with pytest.raises(CassetteMismatch, match="1 of 2 recorded requests were not made"), recorded(path) as model:
        await say(model, "a")
    with pytest.raises(KeyError), recorded(path):
        raise KeyError


async def test_what_would_come_again_is_recorded_and_what_passes_is_not(path: Path) -> None:
    """A refusal is an answer to the request; a rate limit is not."""
    model = recorded(path, ScriptedModel([RateLimited("slow down"), "fine", RequestRefused("no")], name="test/m"))
    for words, error in (("a", RateLimited), ("a", None), ("b", RequestRefused)):
        if error is None:
            await say(model, words)
            continue
        with pytest.raises(error):
            await say(model, words)
    with recorded(path) as replay:
        assert await say(replay, "a") == ["fine"]
        with pytest.raises(RequestRefused, match="no"):
            await say(replay, "b")


async def test_modes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument, else by the environment, else once; what cannot be says what to do."""
    with pytest.raises(CassetteMismatch, match="not recorded yet; record it: AGENTRT_RECORD=once"):
        recorded(path, ScriptedModel([]), mode="none")
    with pytest.raises(CassetteMismatch, match="say which model to record"):
        recorded(path)
    await say(recorded(path, ScriptedModel(["old"])), "a")
    assert not recorded(path, ScriptedModel([])).recording
    monkeypatch.setenv("AGENTRT_RECORD", "all")
    assert await say(recorded(path, ScriptedModel(["new"])), "a") == ["new"]
    assert await say(recorded(path, mode="none"), "a") == ["new"]
    monkeypatch.setenv("AGENTRT_RECORD", "always")
    with pytest.raises(ValueError, match="AGENTRT_RECORD='always': a cassette's mode is one of once, none, all"):
        recorded(path)


async def test_recorded_anew_what_stays_keeps_its_place(path: Path) -> None:
    """So that the diff of two recordings shows what has changed."""
    await say(recorded(path, FunctionModel(lambda r: "x")), "a", "b", "c")
    await say(recorded(path, FunctionModel(lambda r: "x"), mode="all"), "d", "c", "a")
    tape = Tape.parse(written(path))
    assert [i.request["messages"][0]["text"] for i in tape.interactions] == ["a", "c", "d"]


async def test_a_name_is_resolved_only_to_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay needs neither the model's package nor its key; the model that was opened is closed."""
    closed: list[str] = []

    class Opened(FunctionModel):
        async def aclose(self) -> None:
            closed.append(self.name)

    monkeypatch.setattr(agentrt.testing.cassette, "resolve_model", lambda name: Opened(lambda r: "x", name=name))
    async with recorded(path, "openai/gpt-5-mini") as model:
        await say(model, "a")
    monkeypatch.delattr(agentrt.testing.cassette, "resolve_model")
    async with recorded(path, "openai/gpt-5-mini") as model:
        assert (await say(model, "a"), model.name, closed) == (["x"], "openai/gpt-5-mini", ["openai/gpt-5-mini"])
    with pytest.raises(CassetteMismatch, match="recorded from openai/gpt-5-mini, not from openai/gpt-5"):
        recorded(path, "openai/gpt-5")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("hello", "line 1 is none of a cassette's"),
        ('{"cassette": 2, "model": "m", "price": null}', "format 2, and this version reads format 1"),
        ('{"cassette": 1, "model": "m", "price": null}\n{}', "line 2 is none of a cassette's"),
    ],
)
def test_a_broken_file_is_named(path: Path, text: str, problem: str) -> None:
    """With the line that is wrong."""
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"talk\.jsonl: .*{problem}"):
        recorded(path)


@pytest.mark.parametrize("replayed", [False, True])
async def test_a_model_that_was_given_is_not_closed(path: Path, replayed: bool) -> None:
    """It is the giver's, and may record more."""
    closed: list[str] = []

    class Closing(FunctionModel):
        async def aclose(self) -> None:
            closed.append(self.name)

    for _ in range(1 + replayed):
        async with recorded(path, Closing(lambda request: "x")) as model:
            assert await say(model, "a") == ["x"]
    assert closed == []
