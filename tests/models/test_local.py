"""The embedded model, for real."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import anyio
import pytest

from agentrt.errors import ContextOverflow, UnknownModel
from agentrt.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, ToolSpec, UserMessage
from agentrt.model import Model, ModelRequest, ModelResponse, ModelSettings
from agentrt.models import weights
from agentrt.models.local import LocalModel
from agentrt.usage import FREE

pytestmark = [pytest.mark.anyio, pytest.mark.model]

CALCULATOR = ToolSpec(
    "calculator",
    "Evaluate arithmetic.",
    {"type": "object", "properties": {"expression": {"type": "string", "maxLength": 40}}, "required": ["expression"]},
)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def ignore(_text: str) -> None: ...


def prompt(text: str, **settings: object) -> ModelRequest:
    return ModelRequest(messages=(), prompt=text, settings=ModelSettings(**{"max_tokens": 8, **settings}))  # type: ignore[arg-type]


@pytest.fixture
async def model() -> AsyncIterator[LocalModel]:
    await anyio.to_thread.run_sync(weights.pull, "smollm2-135m")
    local = LocalModel("local/smollm2-135m")
    yield local
    await local.aclose()


async def together(count: int, ask: Callable[[int], object]) -> list[ModelResponse]:
    answers: dict[int, ModelResponse] = {}

    async def one(i: int) -> None:
        answers[i] = await ask(i)  # type: ignore[misc]

    async with anyio.create_task_group() as tasks:
        for i in range(count):
            tasks.start_soon(one, i)
    return [answers[i] for i in range(count)]


async def test_it_is_a_model_and_free(model: LocalModel) -> None:
    assert isinstance(model, Model)
    assert model.price == FREE


async def test_chat_streams_and_counts_what_it_is_billed(model: LocalModel) -> None:
    request = ModelRequest(messages=(UserMessage("Say hello."),), settings=ModelSettings(max_tokens=12, temperature=0))
    pieces: list[str] = []
    counted = await model.count_tokens(request)
    response = await model.generate(request, pieces.append)
    assert "".join(pieces) == response.message.text != ""
    assert response.usage.input_tokens == counted
    assert 0 < response.usage.output_tokens <= 12
    assert response.first_chunk is not None


async def test_raw_text_is_continued_up_to_a_stop(model: LocalModel) -> None:
    request = prompt("one, two, three,\none, two, three,\none, two,", temperature=0, stop=("\n",), max_tokens=16)
    counted = await model.count_tokens(request)
    response = await model.generate(request, ignore)
    assert response.message.text == " three,"
    assert response.finish_reason == "stop"
    assert response.usage.input_tokens == counted


async def test_draws_share_one_prompt_and_are_what_each_would_be_alone(model: LocalModel) -> None:
    def ask(seed: int) -> ModelRequest:
        return prompt("My favourite animal is the", temperature=1.0, seed=seed)

    async def draw(i: int) -> ModelResponse:
        await model.count_tokens(ask(i))
        return await model.generate(ask(i), ignore)

    drawn = await together(4, draw)
    assert len({r.id for r in drawn}) == 1
    assert [r.usage.input_tokens > 0 for r in drawn] == [True, False, False, False]
    assert len({r.message.text for r in drawn}) > 1
    alone = [(await model.generate(ask(i), ignore)).message.text for i in range(4)]
    assert [r.message.text for r in drawn] == alone


async def test_each_draw_is_charged_its_own_output(model: LocalModel) -> None:
    drawn = await together(3, lambda i: model.generate(prompt("Q: a colour\nA:", seed=i, stop=("\n",)), ignore))
    for response in drawn:
        assert 0 < response.usage.output_tokens <= 8


async def test_what_prompts_begin_with_is_read_once(model: LocalModel) -> None:
    """Every prompt finds the shared beginning in its slot."""
    examples = "".join(f"Question: what is {i} and {i}?\nAnswer: {2 * i}\n" for i in range(30))
    asked = [prompt(f"{examples}Question: what is {i} and 7?\nAnswer:", temperature=0, stop=("\n",)) for i in range(3)]
    responses = await together(3, lambda i: model.generate(asked[i], ignore))
    for response in responses:
        assert response.usage.cached_tokens > response.usage.input_tokens * 0.9


async def test_tools_are_called_in_a_form_that_can_be_read(model: LocalModel) -> None:
    said = (
        SystemMessage("Use the calculator."),
        UserMessage("What is 2 * 3?"),
        AssistantMessage("", (ToolCall("1", "calculator", '{"expression": "2 * 3"}'),)),
        ToolMessage("1", "calculator", "6"),
        AssistantMessage("6"),
        UserMessage("What is 17 * 3?"),
    )
    request = ModelRequest(messages=said, tools=(CALCULATOR,), settings=ModelSettings(max_tokens=200, temperature=0))
    response = await model.generate(request, ignore)
    (call,) = response.message.tool_calls
    assert call.name == "calculator"
    assert set(json.loads(call.arguments)) == {"expression"}
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize("tools", [(), (CALCULATOR,)])
async def test_an_output_schema_is_kept_to(model: LocalModel, tools: tuple[ToolSpec, ...]) -> None:
    for seed in range(3):
        settings = ModelSettings(max_tokens=300, temperature=1.0, seed=seed)
        request = ModelRequest(
            messages=(UserMessage("Invent a person."),), tools=tools, output_schema=PERSON, settings=settings
        )
        message = (await model.generate(request, ignore)).message
        fields = {"expression"} if message.tool_calls else {"name", "age"}
        assert set(json.loads(message.tool_calls[0].arguments if message.tool_calls else message.text)) == fields


async def test_a_prompt_that_does_not_fit_is_said_to(model: LocalModel) -> None:
    request = prompt("word " * 3000)
    assert model.max_output(request, await model.count_tokens(request)) < 1
    with pytest.raises(ContextOverflow, match="2048"):
        await model.generate(request, ignore)


async def test_cancelling_frees_the_slots(model: LocalModel) -> None:
    """Sixteen long generations are given up; what comes next need not wait for them."""
    started = anyio.Event()
    long = prompt("Once upon a time", max_tokens=1500, temperature=1.0)
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(model.generate, long, lambda _: started.set())
        await started.wait()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        await model.generate(prompt("hello", max_tokens=2), ignore)


async def test_a_path_is_a_model_too(model: LocalModel) -> None:
    await model.count_tokens(prompt("x"))
    path = weights.find("smollm2-135m").path
    by_path = LocalModel(f"local/{path}")
    assert (await by_path.generate(prompt("hello", max_tokens=2), ignore)).usage.input_tokens == 1
    await by_path.aclose()


def test_what_is_not_there_or_no_gguf_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    names: Sequence[tuple[str, str]] = [
        (f"local/{tmp_path}/none.gguf", "none.gguf: No such file"),
        (f"local/{tmp_path}/text.gguf", "not a GGUF file"),
        ("local/nope", "local/smollm2-135m"),
    ]
    for name, reason in names:
        with pytest.raises(UnknownModel, match=reason):
            LocalModel(name)
