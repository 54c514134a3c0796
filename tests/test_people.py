"""People: what runs ask them, and what becomes of their answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import date
from typing import Any

import anyio
import msgspec
import pytest
from pydantic import BaseModel, field_validator

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    DefinitionError,
    FunctionNode,
    Graph,
    InvalidArguments,
    ModelRequest,
    QuestionClosed,
    ReplayMismatch,
    Result,
    Retry,
    StepFailed,
    StopReason,
    Waiting,
    collect,
    first,
    replay,
    resume,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.messages import ToolMessage
from agentrt.people import answer, approve, deny, due, inbox, settle
from agentrt.recorded import Recorded
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, call
from tests.journals import journal_of, kinds
from tests.test_continuation import RUN, check_attempts

pytestmark = pytest.mark.anyio


class Desk:
    """Hold runs of a graph that wait for people; each call goes on with the run as another process would."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.journal = MemoryJournal()

    async def begin(self, value: Any = "go", **options: Any) -> Result[Any]:
        return await run(self.graph, value, journal=self.journal, run_id=RUN, **options)

    async def go_on(self, **options: Any) -> Result[Any]:
        return await resume(self.graph, RUN, journal=self.journal, **options)

    async def open(self) -> Sequence[str]:
        return [q.asked.path for q in await inbox(self.journal, RUN)]

    async def record(self) -> Sequence[ev.Event]:
        return await self.journal.events(RUN)


class Payer:
    """Hold an agent that pays what it is told, if somebody approves."""

    def __init__(self, **options: Any) -> None:
        self.paid: list[int] = []
        self.told: list[str] = []

        @tool(**{"approval": True, **options})
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            return f"paid {amount}"

        self.desk = Desk(Agent("agent", model=FunctionModel(self.say), tools=[pay]))

    def say(self, request: ModelRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, ToolMessage):
            self.told.append(last.text)
            return f"done: {last.text}"
        return call("pay", amount=20)


async def test_a_call_waits_until_it_is_approved() -> None:
    """Meanwhile the run has no output, and nothing is reserved or paid."""
    payer = Payer()
    result = await payer.desk.begin(budget=Budget(tokens=10_000))
    assert result.stop_reason is StopReason.WAITING
    with pytest.raises(Waiting, match="agent/pay/approve"):
        result.output  # noqa: B018
    [question] = await inbox(payer.desk.journal)
    assert (question.run_id, question.asked.about["arguments"]) == (RUN, {"amount": 20})
    assert (await payer.desk.journal.run(RUN)).status == "waiting"
    assert Recorded(await payer.desk.record()).reserved == {}
    assert (await payer.desk.go_on()).stop_reason is StopReason.WAITING
    assert payer.paid == []
    await approve(payer.desk.journal, RUN, by="me")
    done = await payer.desk.go_on()
    assert (done.output, payer.paid) == ("done: paid 20", [20])
    assert done.usage.model_calls == 2
    check_attempts(await payer.desk.record())
    assert (await replay(payer.desk.graph, RUN, journal=payer.desk.journal)).output == done.output
    assert payer.paid == [20]


async def test_an_edit_is_checked_and_kept() -> None:
    """Only arguments that fit the tool's schema are taken; the record says what was changed."""
    payer = Payer()
    await payer.desk.begin()
    for wrong in ({"amount": "much"}, {"sum": 3}):
        with pytest.raises(InvalidArguments, match="agent/pay/approve"):
            await approve(payer.desk.journal, RUN, edit=wrong)
    [question] = await inbox(payer.desk.journal, RUN)
    answered = await approve(payer.desk.journal, RUN, edit={"amount": 7})
    assert answered.waited == answered.at - question.asked.at
    assert '-  "amount": 20' in answered.diff
    assert '+  "amount": 7' in answered.diff
    assert (await payer.desk.go_on()).output == "done: paid 7"
    assert payer.paid == [7]


async def test_an_agent_reads_why_it_may_not() -> None:
    """A denial is a result of the tool, not an error of the run."""
    payer = Payer()
    await payer.desk.begin()
    await deny(payer.desk.journal, RUN, because="too dear", by="ann")
    assert (await payer.desk.go_on()).output == "done: ann denied this call: too dear"
    assert payer.paid == []


async def test_a_tool_may_say_which_calls_need_approval() -> None:
    """By their arguments."""
    payer = Payer(approval=lambda arguments: arguments["amount"] > 50)
    assert (await payer.desk.begin()).output == "done: paid 20"
    payer = Payer(approval=lambda arguments: arguments["amount"] > 10)
    assert (await payer.desk.begin()).stop_reason is StopReason.WAITING
    assert (await replay(payer.desk.graph, RUN, journal=payer.desk.journal)).stop_reason is StopReason.WAITING


async def test_a_question_takes_only_its_own_answers() -> None:
    """Of its type, of its kind, once, while its run waits for it."""

    async def quiz(text: str, ctx: Context) -> int:
        return await ctx.ask("How many?", int) + 1

    desk = Desk(quiz)
    journal = desk.journal
    await desk.begin()
    with pytest.raises(InvalidArguments, match="quiz/ask"):
        await answer(journal, RUN, "many")
    for wrong in (approve(journal, RUN), deny(journal, RUN), settle(journal, RUN, happened=True)):
        with pytest.raises(QuestionClosed, match=r"waits for quiz/ask \(answer\)"):
            await wrong
    with pytest.raises(QuestionClosed, match="does not wait for an answer to quiz/other"):
        await answer(journal, RUN, 3, "quiz/other")
    await answer(journal, RUN, 3, by="Ada")
    with pytest.raises(QuestionClosed, match="waits for nothing: Ada answered quiz/ask"):
        await answer(journal, RUN, 4)
    with pytest.raises(QuestionClosed, match="does not wait for an answer to quiz/ask: Ada answered quiz/ask"):
        await answer(journal, RUN, 4, "quiz/ask")
    assert (await desk.go_on()).output == 4
    with pytest.raises(QuestionClosed, match="waits for nothing"):
        await answer(journal, RUN, 4)
    with pytest.raises(QuestionClosed):
        await journal.answer(RUN, ev.QuestionAnswered(path="quiz/ask", at=1.0, verdict="answer", by="me", value=4))


async def test_a_format_is_part_of_a_schema() -> None:
    """As the type of the answer states it."""

    async def plan(text: str, ctx: Context) -> str:
        return f"{await ctx.ask('When?', date):%d %b}"

    desk = Desk(plan)
    await desk.begin()
    with pytest.raises(InvalidArguments, match="'tomorrow' is not a 'date'"):
        await answer(desk.journal, RUN, "tomorrow")
    await answer(desk.journal, RUN, date(2026, 11, 27))
    assert (await desk.go_on()).output == "27 Nov"


class Seats(BaseModel):
    """Hold seats that go in pairs, which no schema shows."""

    seats: int

    @field_validator("seats")
    @classmethod
    def _is_even(cls, seats: int) -> int:
        if seats % 2:
            raise ValueError("seats go in pairs")
        return seats


async def book(text: str, ctx: Context) -> int:
    return (await ctx.ask("Seats?", Seats)).seats


async def test_what_only_its_type_refuses_is_asked_again() -> None:
    """As often as it takes, with the reason; until then the run waits, whether or not it is gone on with."""
    desk = Desk(book)
    await desk.begin()
    for seats in (3, 5):
        await answer(desk.journal, RUN, {"seats": seats}, by="Ada")
        for _ in range(2):
            assert (await desk.go_on()).stop_reason is StopReason.WAITING
        [question] = await inbox(desk.journal, RUN)
        assert question.asked.prompt == "Seats?"
        assert question.asked.about["refused"] == (
            f"Ada answered {{'seats': {seats}}}, which does not fit: seats: Value error, seats go in pairs"
        )
    assert await due(desk.journal) == []
    await answer(desk.journal, RUN, Seats(seats=4))
    assert await due(desk.journal) == [RUN]
    assert (await desk.go_on()).output == 4
    check_attempts(await desk.record())
    assert (await replay(book, RUN, journal=desk.journal)).output == 4


async def test_arguments_that_only_their_type_refuses_are_asked_for_again() -> None:
    """Nothing is called with them."""

    @tool(approval=True)
    async def reserve(seats: Seats) -> str:
        """Reserve."""
        return f"{seats.seats} seats"

    async def code(text: str, ctx: Context) -> str:
        return await ctx.run(reserve, Seats(seats=2))

    desk = Desk(code)
    await desk.begin()
    await approve(desk.journal, RUN, edit={"seats": {"seats": 3}}, by="Ada")
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    [question] = await inbox(desk.journal, RUN)
    assert "seats go in pairs" in str(question.asked.about["refused"])
    await approve(desk.journal, RUN, edit={"seats": {"seats": 6}})
    assert (await desk.go_on()).output == "6 seats"


async def test_a_default_that_does_not_fit_is_asked_for_without_end() -> None:
    """Nobody is asked again and again; a person has to answer."""

    async def quiz(text: str, ctx: Context) -> int:
        return await ctx.ask("How many?", int, timeout=60)

    desk = Desk(quiz)
    await desk.begin()
    desk.journal = await journal_of(RUN, in_no_time(await desk.record()))
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    [question] = await inbox(desk.journal, RUN)
    assert question.asked.until is None
    await answer(desk.journal, RUN, 3)
    assert (await desk.go_on()).output == 3


async def test_an_answer_is_plain_json_or_what_pydantic_writes() -> None:
    """Nothing else can be kept."""
    desk = Desk(book)
    await desk.begin()
    with pytest.raises(InvalidArguments, match="cannot be written as JSON"):
        await answer(desk.journal, RUN, object())


async def test_a_run_that_is_gone_takes_no_answer() -> None:
    """Unknown or cancelled, it has nobody to tell."""

    async def quiz(text: str, ctx: Context) -> str:
        return await ctx.ask("Why?")

    async def forever(text: str) -> str:
        await anyio.sleep_forever()
        return text

    graph = Graph("g")
    graph.edge(START, [quiz, forever])
    for node in (quiz, forever):
        graph.edge(node, END, join=collect)
    desk = Desk(graph)
    with anyio.move_on_after(5):
        await desk.begin()
    assert isinstance((await desk.record())[-1], ev.RunCancelled)
    assert await desk.open() == []
    for run_id in (RUN, "other"):
        with pytest.raises(Exception, match=run_id) as error:
            await answer(desk.journal, run_id, "so")
        assert type(error.value).__name__ in {"QuestionClosed", "JournalError"}


async def ask(name: str, ctx: Context) -> str:
    return f"{name}={await ctx.ask(f'What is {name}?', key='q')}"


async def in_a_map(text: str, ctx: Context) -> list[str]:
    return await ctx.map(ask, ["a", "b", "c"])


async def in_a_group(text: str, ctx: Context) -> list[str]:
    answers = dict[str, str]()

    async def one(name: str) -> None:
        answers[name] = await ctx.run(ask, name, key=name)

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(one, name)
    return [answers[name] for name in "abc"]


def in_a_fork(join: Any = collect) -> Graph[Any, Any]:
    async def items(text: str) -> list[str]:
        return ["a", "b", "c"]

    graph = Graph("g")
    graph.edge(START, items)
    graph.edge(items, ask, each=True)
    graph.edge(ask, END, join=join)
    return graph


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("node", [in_a_map, in_a_group, in_a_fork()], ids=["map", "group", "fork"])
async def test_several_questions_are_answered_in_any_order(node: Any, order: Sequence[int]) -> None:
    """With the run gone on after each; the others stay open."""
    desk = Desk(node)
    result = await desk.begin()
    opened = sorted(await desk.open())
    assert len(opened) == 3
    for n, i in enumerate(order):
        await answer(desk.journal, RUN, f"{i}", opened[i])
        result = await desk.go_on()
        assert len(await desk.open()) == 2 - n
    assert result.output == ["a=0", "b=1", "c=2"]
    assert len(kinds(await desk.record(), ev.QuestionAsked)) == 3
    check_attempts(await desk.record())


async def test_a_race_is_won_by_the_first_answer() -> None:
    """A question of a branch that has lost waits for nobody."""
    desk = Desk(in_a_fork(first(1)))
    await desk.begin()
    await answer(desk.journal, RUN, "x", sorted(await desk.open())[1])
    assert (await desk.go_on()).output == "b=x"
    assert await desk.open() == []


@pytest.mark.parametrize("policy", ["raise", "partial"])
async def test_a_deadline_passes_no_time_while_a_run_is_parked(policy: Any) -> None:
    """`seconds` counts the time a process works; what is spent counts on."""
    payer = Payer()
    await payer.desk.begin(budget=Budget(seconds=10, model_calls=1, on_exhausted=policy))
    await anyio.sleep(1000)
    await approve(payer.desk.journal, RUN)
    if policy == "raise":
        with pytest.raises(BudgetExceeded, match="model_calls"):
            await payer.desk.go_on()
    else:
        assert (await payer.desk.go_on()).stop_reason is StopReason.PARTIAL
    assert payer.paid == [20]
    more = await payer.desk.go_on(budget=Budget(model_calls=2))
    assert (more.output, payer.paid) == ("done: paid 20", [20])


def in_no_time(events: Sequence[ev.Event]) -> list[ev.Event]:
    """Return a record whose questions' time is over."""
    return [msgspec.structs.replace(e, until=e.at) if isinstance(e, ev.QuestionAsked) else e for e in events]


async def test_nobody_needs_to_answer_in_time() -> None:
    """After its time a question is answered by its default, when its run goes on; a late answer is refused."""

    async def quiz(text: str, ctx: Context) -> int:
        return await ctx.ask("How many?", int, timeout=60, default=5)

    desk = Desk(quiz)
    assert (await desk.begin()).stop_reason is StopReason.WAITING
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    desk.journal = await journal_of(RUN, in_no_time(await desk.record()))
    assert (await desk.go_on()).output == 5
    [answered] = kinds(await desk.record(), ev.QuestionAnswered)
    assert (answered.by, answered.value) == ("time-out", 5)
    with pytest.raises(QuestionClosed):
        await answer(desk.journal, RUN, 3)


async def test_a_question_needs_a_journal() -> None:
    """Else nobody could answer it later."""
    with pytest.raises(StepFailed, match="nothing keeps the run") as error:
        await run(ask, "a")
    assert isinstance(error.value.cause, DefinitionError)


class Cut:
    """Hold an agent whose payment was cut off with its process, right after it had begun."""

    def __init__(self, effect: str) -> None:
        self.payer = Payer(approval=False, effect=effect)

    async def begin(self) -> Desk:
        desk = self.payer.desk
        await desk.begin()
        await self.cut()
        return desk

    async def cut(self) -> None:
        """Cut the record off after the last effect that had begun."""
        events = await self.payer.desk.record()
        last = max(i for i, e in enumerate(events) if isinstance(e, ev.EffectBegun))
        self.payer.desk.journal = await journal_of(RUN, events[: last + 1])
        self.payer.paid.clear()


async def test_of_an_unsafe_call_that_was_cut_off_a_person_is_asked() -> None:
    """If it has happened, its result is what they say."""
    desk = await (cut := Cut("unsafe")).begin()
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    await settle(desk.journal, RUN, happened=True, result="paid 20 already")
    assert (await desk.go_on()).output == "done: paid 20 already"
    assert cut.payer.paid == []


async def test_an_unsafe_call_may_be_made_again_and_again() -> None:
    """If it is cut off once more, a person is asked once more."""
    desk = await (cut := Cut("unsafe")).begin()
    for n in range(1, 4):
        assert (await desk.go_on()).stop_reason is StopReason.WAITING
        assert await desk.open() == [f"agent/pay/doubt[{n}]"]
        assert cut.payer.paid == []
        await settle(desk.journal, RUN, happened=False)
        assert (await desk.go_on()).output == "done: paid 20"
        assert cut.payer.paid == [20]
        await cut.cut()
        desk = cut.payer.desk


@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_a_safe_call_is_made_again(effect: str) -> None:
    """Without asking anybody."""
    desk = await (cut := Cut(effect)).begin()
    assert (await desk.go_on()).output == "done: paid 20"
    assert cut.payer.paid == [20]


async def test_an_approved_call_that_was_cut_off_needs_no_second_approval() -> None:
    """The approval is on record; whether it happened is asked."""
    payer = Payer()
    desk = payer.desk
    await desk.begin()
    await approve(desk.journal, RUN, edit={"amount": 7})
    await desk.go_on()
    cut = Cut("unsafe")
    cut.payer = payer
    await cut.cut()
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    [question] = await inbox(desk.journal, RUN)
    assert (question.asked.path, question.asked.about["arguments"]) == ("agent/pay/doubt[1]", {"amount": 7})
    await settle(desk.journal, RUN, happened=False)
    assert (await desk.go_on()).output == "done: paid 7"
    assert payer.paid == [7]


async def test_without_a_journal_nobody_could_answer() -> None:
    """So the run fails, and the model is not told to go on without the approval."""

    @tool(approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    agent = Agent("clerk", model=FunctionModel(lambda request: call("pay", amount=1)), tools=[pay])
    with pytest.raises(StepFailed, match=r"nothing keeps the run until they answer: run\(…, journal=open_store\(\)\)"):
        await run(agent, "?")


async def test_what_runs_beside_a_question_is_not_lost() -> None:
    """Code's own task group is left when its other calls have ended, too, so that nothing is paid again."""
    models = [FunctionModel(lambda _, n=n: f"said {n}") for n in range(2)]  # type: ignore[misc]
    slow = [Agent(f"agent{n}", model=model) for n, model in enumerate(models)]

    async def both(text: str, ctx: Context) -> list[str]:
        said: list[str] = []

        async def talk() -> None:
            for agent in slow:
                await anyio.sleep(1)
                said.append(await ctx.run(agent, text))

        async def wait() -> None:
            said.append(await ctx.ask("Which?"))

        async def work() -> None:
            said.extend(await ctx.map(sleeper, [2, 1]))

        async with anyio.create_task_group() as tasks:
            for task in (talk, wait, work):
                tasks.start_soon(task)
        return sorted(said)

    async def sleeper(seconds: int) -> str:
        await anyio.sleep(seconds)
        return f"slept {seconds}"

    desk = Desk(both)
    assert (await desk.begin()).stop_reason is StopReason.WAITING
    assert kinds(await desk.record(), ev.StepCancelled) == []
    await answer(desk.journal, RUN, "that one")
    done = await desk.go_on()
    assert done.output == ["said 0", "said 1", "slept 1", "slept 2", "that one"]
    assert [len(model.requests) for model in models] == [1, 1]


async def test_an_answer_holds_for_later_attempts() -> None:
    """Of code, and of the call that was approved; in this process and in the next."""
    failures = ["pay", "pay", "plan"]

    def fail(name: str) -> None:
        if name in failures:
            failures.remove(name)
            raise ConnectionError(name)

    @tool(approval=True, effect="idempotent", retry=Retry(attempts=3, backoff=1, on=ConnectionError))
    async def pay(amount: int) -> str:
        """Pay."""
        fail("pay")
        return f"paid {amount}"

    async def plan(text: str, ctx: Context) -> str:
        amount = await ctx.ask("How much?", int)
        fail("plan")
        return await ctx.run(pay, amount)

    desk = Desk(FunctionNode(plan, retry=Retry(attempts=3, backoff=1, on=ConnectionError)))
    await desk.begin()
    await answer(desk.journal, RUN, 5)
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    await approve(desk.journal, RUN, edit={"amount": 6})
    for cut in range(len(await desk.record()), len(await desk.record()) + 12):
        failures[:] = ["pay", "pay"]
        desk.journal = await journal_of(RUN, (await desk.record())[:cut])
        assert (await desk.go_on()).output == "paid 6"
    assert len(kinds(await desk.record(), ev.QuestionAsked)) == 2


async def test_another_attempt_may_ask_something_else() -> None:
    """An answer is one to its own question."""
    tries = itertools.count()

    async def plan(text: str, ctx: Context) -> str:
        said = await ctx.ask(f"Try {next(tries)}?")
        if said == "no":
            raise ConnectionError
        return said

    desk = Desk(FunctionNode(plan, retry=Retry(attempts=3, backoff=1, on=ConnectionError)))
    await desk.begin()
    await answer(desk.journal, RUN, "no")
    tries = itertools.count()
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    [question] = await inbox(desk.journal, RUN)
    assert question.asked.prompt == "Try 1?"
    await answer(desk.journal, RUN, "yes")
    tries = itertools.count(1)
    assert (await desk.go_on()).output == "yes"


@pytest.mark.parametrize(
    ("options", "budget", "costs"),
    [
        ({}, None, ("20 tokens, 1 model call", "nothing", "no limit")),
        ({}, Budget(tokens=10_000), ("20 tokens, 1 model call", "nothing", "9,980 tokens left")),
        ({"spends": True}, None, ("20 tokens, 1 model call", "no limit", "no limit")),
        ({"spends": True}, Budget(tokens=10_000), ("20 tokens, 1 model call", "9,980 tokens", "9,980 tokens left")),
        ({"spends": True, "budget": Budget(usd=0.5, tokens=200)}, None,
         ("20 tokens, 1 model call", "$0.5000, 200 tokens", "$0.5000, 200 tokens left")),
    ],
)  # fmt: skip
async def test_a_person_sees_what_a_call_may_cost(options: Any, budget: Any, costs: Sequence[str]) -> None:
    """And what the run has spent, and what is left."""

    async def plain(amount: int) -> str:
        """Pay."""
        return "paid"

    async def spender(amount: int, ctx: Context) -> str:
        """Pay."""
        return "paid"

    function = spender if options.pop("spends", False) else plain
    pay = tool(name="pay", approval=True, **options)(function)
    model = FunctionModel(lambda request: call("pay", amount=20))
    desk = Desk(Agent("agent", model=model, tools=[pay]))
    await desk.begin(budget=budget)
    [question] = await inbox(desk.journal)
    about = question.asked.about
    assert tuple(about[name] for name in ("spent", "may_cost", "left")) == costs


async def test_what_was_to_be_kept_guides_later_runs() -> None:
    """The agent reads it before it asks again, who is asked sees it, and a run that goes on reads what it had read."""
    read: list[str] = []
    payer = Payer()
    payer.desk.graph.model = FunctionModel(
        lambda request: (read.append(request.messages[0].text), payer.say(request))[1]
    )
    journal = payer.desk.journal
    await payer.desk.begin()
    await deny(journal, RUN, because="never on a Sunday", by="ann", keep=True)
    assert "never on a Sunday" in (await payer.desk.go_on()).output
    assert not any("Sunday" in text for text in read)
    read.clear()
    await run(payer.desk.graph, "go", journal=journal, run_id="later")
    [question] = await inbox(journal, "later")
    assert question.asked.about["guidance"] == ['pay({"amount":20}): denied by ann: never on a Sunday']
    assert read == ["People were asked about such calls before, and said:\n- " + question.asked.about["guidance"][0]]
    await approve(journal, "later", by="bob", keep=True, edit={"amount": 3})
    assert (await resume(payer.desk.graph, "later", journal=journal)).output == "done: paid 3"
    assert read[-1] == read[0]
    await replay(payer.desk.graph, "later", journal=journal)
    await run(payer.desk.graph, "go", journal=journal, run_id="last")
    assert read[-1].endswith('\n- pay({"amount":20}): approved by bob as {"amount":3}')


async def test_answers_to_code_are_kept_by_its_place() -> None:
    """Whatever the branch and the visit; what is asked elsewhere does not see them."""

    async def ask(name: str, ctx: Context) -> str:
        return await ctx.ask(f"{name}?")

    async def other(text: str, ctx: Context) -> str:
        return await ctx.ask("Other?")

    async def both(names: list[str], ctx: Context) -> list[str]:
        return [*await ctx.map(ask, names), await ctx.run(other, "x")]

    journal = MemoryJournal()
    await run(both, ["a", "b"], journal=journal, run_id=RUN)
    await answer(journal, RUN, "yes", "both/ask[1]/ask", by="ann", keep=True)
    await answer(journal, RUN, "no", "both/ask[0]/ask", by="ann")
    await resume(both, RUN, journal=journal)
    [question] = await inbox(journal, RUN)
    assert "guidance" not in question.asked.about
    await run(both, ["c"], journal=journal, run_id="later")
    [question] = await inbox(journal, "later")
    assert question.asked.about["guidance"] == ['b?: answered by ann as "yes"']


async def test_a_call_that_is_made_again_is_approved_again() -> None:
    """An approval is one of its call, not of what a later attempt of the code around calls."""
    payer = Payer()
    pay = payer.desk.graph.tools[0]
    fails = [True]

    async def twice(amount: int, ctx: Context) -> str:
        said = await ctx.run(pay, amount)
        if fails:
            fails.pop()
            raise ConnectionError
        return said

    desk = Desk(FunctionNode(twice, retry=Retry(attempts=2, backoff=1, on=ConnectionError)))
    await desk.begin(20)
    await approve(desk.journal, RUN)
    assert (await desk.go_on()).stop_reason is StopReason.WAITING
    assert payer.paid == [20]
    await approve(desk.journal, RUN)
    assert (await desk.go_on()).output == "paid 20"
    assert payer.paid == [20, 20]


async def test_one_of_several_questions_has_to_be_named() -> None:
    """Nobody's call is approved by mistake."""
    desk = Desk(in_a_map)
    await desk.begin()
    with pytest.raises(QuestionClosed, match=r"several such questions, name one: in_a_map/ask\[0\]/ask"):
        await answer(desk.journal, RUN, "x")
    assert len(await desk.open()) == 3


@pytest.mark.parametrize("how", ["fork", "map"])
async def test_what_nobody_waits_for_any_more_is_not_asked(how: str) -> None:
    """The question of a branch that lost its race, or of a call whose neighbour failed."""

    async def racer(n: int, ctx: Context) -> str:
        if n == 0:
            await anyio.sleep(5)
            if how == "map":
                raise ConnectionError
            return "first"
        return await ctx.ask("Which?")

    async def tried(text: str, ctx: Context) -> str:
        try:
            return " ".join(await ctx.map(racer, [0, 1]))
        except ConnectionError:
            return "failed"

    async def both(text: str) -> list[int]:
        return [0, 1]

    async def last(text: str, ctx: Context) -> str:
        return await ctx.ask(f"After {text}?")

    graph = Graph("g")
    if how == "fork":
        graph.edge(START, both)
        graph.edge(both, racer, each=True)
        graph.edge(racer, last, join=first(1))
    else:
        graph.chain(START, tried, last)
    graph.edge(last, END)
    desk = Desk(graph)
    await desk.begin()
    assert await desk.open() == ["g/last/ask"]
    with pytest.raises(QuestionClosed, match="does not wait"):
        await answer(desk.journal, RUN, "x", next(e.path for e in kinds(await desk.record(), ev.QuestionAsked)))
    await answer(desk.journal, RUN, "yes")
    assert (await desk.go_on()).output == "yes"


async def test_a_race_that_is_decided_later_withdraws_what_the_losers_ask() -> None:
    """By the answer of one of them, in the next part of the run."""

    async def items(text: str) -> list[str]:
        return ["a", "b", "c"]

    async def last(text: str, ctx: Context) -> str:
        return await ctx.ask(f"After {text}?")

    graph = Graph("g")
    graph.edge(START, items)
    graph.edge(items, ask, each=True)
    graph.edge(ask, last, join=first(1))
    graph.edge(last, END)
    desk = Desk(graph)
    await desk.begin()
    assert len(await desk.open()) == 3
    await answer(desk.journal, RUN, "x", "g/ask[1]/ask[q]")
    await desk.go_on()
    assert await desk.open() == ["g/last/ask"]


async def test_a_tool_that_asks_by_itself_is_not_in_doubt() -> None:
    """It left by itself to wait; only what a process cut off is in doubt."""

    @tool(effect="unsafe")
    async def book(day: str, ctx: Context) -> str:
        """Book."""
        return f"{day}, {await ctx.ask('Window or aisle?')}"

    model = FunctionModel(
        lambda r: r.messages[-1].text if isinstance(r.messages[-1], ToolMessage) else call("book", day="Monday")
    )
    desk = Desk(Agent("agent", model=model, tools=[book]))
    await desk.begin()
    await answer(desk.journal, RUN, "aisle")
    assert (await desk.go_on()).output == "Monday, aisle"


async def test_a_run_waits_on_where_a_changed_program_cannot_go_on_with_it() -> None:
    """Its other questions stay open, and it is due for the program that began."""

    def program(prompt: str) -> Any:
        async def one(n: int, ctx: Context) -> str:
            return await ctx.ask(f"{prompt} {n}?")

        async def code(text: str, ctx: Context) -> list[str]:
            return await ctx.map(one, [0, 1])

        return code

    desk = Desk(program("How many"))
    await desk.begin()
    await answer(desk.journal, RUN, "5", "code/one[0]/ask")
    desk.graph = program("How much")
    with pytest.raises(ReplayMismatch):
        await desk.go_on()
    assert (await desk.journal.run(RUN)).status == "waiting"
    assert await desk.open() == ["code/one[1]/ask"]
    assert await due(desk.journal) == [RUN]
    desk.graph = program("How many")
    await answer(desk.journal, RUN, "6")
    assert (await desk.go_on()).output == ["5", "6"]


async def test_a_question_is_asked_again_by_a_later_part_that_waits_for_it() -> None:
    """Though a part between, which came less far, did not."""

    async def job(x: int) -> int:
        await anyio.sleep(3)
        return x

    async def three(text: str, ctx: Context) -> list[str]:
        said: list[str] = []

        async def first() -> None:
            said.append(await ctx.ask("a", key="a"))

        async def second() -> None:
            await anyio.sleep(0.1)
            said.append(await ctx.ask("b", key="b"))

        async def third() -> None:
            await ctx.run(job, 1)
            said.append(await ctx.ask("c", key="c"))

        async with anyio.create_task_group() as tasks:
            for task in (first, second, third):
                tasks.start_soon(task)
        return sorted(said)

    desk = Desk(three)
    await desk.begin()
    assert len(await desk.open()) == 3
    for name in "cab":
        await answer(desk.journal, RUN, name, f"three/ask[{name}]")
        result = await desk.go_on()
    assert result.output == ["a", "b", "c"]
