"""Self-consistency: draws side by side, a vote, and what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import Agent, Context, DefinitionError, FunctionNode, ModelSettings, run
from agentrt.testing import ScriptedModel
from agentrt_graphs import Consensus, count_votes, self_consistency

pytestmark = pytest.mark.anyio


def solvers(*answers: str) -> list[FunctionNode[str]]:
    """Return a solver an answer; "fail" raises."""

    def solver(i: int, answer: str) -> FunctionNode[str]:
        async def solve(question: str) -> str:
            if answer == "fail":
                raise ValueError(question)
            return answer

        return FunctionNode(solve, name=f"solver{i}")

    return [solver(i, answer) for i, answer in enumerate(answers)]


async def vote(*answers: str, **options: object) -> Consensus[str]:
    return (await run(self_consistency(solvers(*answers), **options), "?")).output  # type: ignore[arg-type]


async def test_the_most_frequent_answer_wins() -> None:
    """Votes are counted, and the entropy of the vote is told in bits."""
    consensus = await vote("a", "b", "b", "a", "b")
    assert consensus == Consensus("b", 3, ("a", "b", "b", "a", "b"), 5, pytest.approx(0.971, abs=1e-3))


async def test_the_earliest_answer_wins_a_tie() -> None:
    """Two groups of one size: the one that began first."""
    assert (await vote("x", "y", "y", "x")).answer == "x"


async def test_the_key_says_what_is_the_same() -> None:
    """Answers that differ only beyond the key vote together; the first of them is returned."""
    assert (await vote("Rome", "Paris", "rome ", key=lambda a: a.strip().lower())).answer == "Rome"


async def test_what_is_not_kept_does_not_vote() -> None:
    """The filter leaves answers out, failed draws leave themselves out."""
    consensus = await vote("wrong", "wrong", "fail", "right", keep=lambda a: a != "wrong")
    assert consensus == Consensus("right", 1, ("right",), 4, 0.0)


async def test_nothing_kept_is_no_answer() -> None:
    """With every draw left out there is no answer, and no error."""
    assert await vote("a", "fail", keep=lambda a: False) == Consensus(None, 0, (), 2, 0.0)


async def test_one_solver_is_drawn_several_times() -> None:
    """One agent gives `draws` steps of its own, each with its own path."""
    paths: list[str] = []

    async def solve(question: str, ctx: Context) -> str:
        paths.append(ctx.path)
        return "a"

    consensus = (await run(self_consistency(FunctionNode(solve), draws=3), "?")).output
    assert consensus.votes == 3
    assert sorted(paths) == [f"self_consistency/solve[{i}]" for i in range(3)]


async def test_an_agent_draws_through_its_model() -> None:
    """Agents are solvers like any other node."""
    model = ScriptedModel(["4", "5", "4"])
    agent = Agent("agent", model=model, settings=ModelSettings(temperature=0.8))
    assert (await run(self_consistency(agent, draws=3), "2 + 2?")).output.answer == "4"


@pytest.mark.parametrize("draws", [1, 2])
async def test_even_one_draw_is_a_vote(draws: int) -> None:
    """A vote of one is the answer itself."""
    assert (await vote(*["a"] * draws)).votes == draws


def test_no_draw_is_refused() -> None:
    """A vote needs somebody to vote."""
    with pytest.raises(DefinitionError, match="at least once"):
        self_consistency([])


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_the_winner_has_most_votes(answers: list[str]) -> None:
    """No answer has more votes than the winner, and entropy is that of up to three answers."""
    consensus = count_votes(answers, str, len(answers))
    assert consensus.votes == max(map(answers.count, answers))
    assert 0 <= consensus.entropy <= 1.585
