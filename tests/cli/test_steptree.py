"""Attempts, waits, caches and exhausted budgets in the tree of `agentrt show`."""

from agentrt.cli.console import moment
from agentrt.cli.show import View, _step_document, lines
from agentrt.cli.steptree import StepTree
from agentrt.events import (
    BudgetExhausted,
    CacheHit,
    ErrorInfo,
    Event,
    QuestionAnswered,
    RateLimitWaited,
    RunForked,
    RunResumed,
    RunStarted,
    StepAbandoned,
    StepFailed,
    StepFinished,
    StepParked,
    StepRetried,
    StepStarted,
    UsageRecorded,
)
from agentrt.usage import Usage
from tests.cli.conftest import Shell, Write, document

SLOW = ErrorInfo("RateLimited", "slow down")


def begin(path: str, kind: str = "node", at: float = 1.0) -> StepStarted:
    return StepStarted(path=path, at=at, name=path.rpartition("/")[2], kind=kind, input="in")


def retried(path: str, attempt: int = 1, at: float = 2.0) -> StepRetried:
    return StepRetried(path=path, at=at, attempt=attempt, error=SLOW, delay=1.5)


def done(path: str, at: float = 4.0) -> StepFinished:
    return StepFinished(path=path, at=at, output="out")


def text(*events: Event) -> list[str]:
    return [line.branch + line.text.plain for line in lines(StepTree(events), View())]


def test_attempts_that_called_nothing_are_notes() -> None:
    """Each says why it failed and when the next began."""
    assert text(begin("g"), retried("g"), retried("g", 2), done("g")) == [
        "g (attempt 3)  in → out",
        "   · attempt 1 failed, again after 1.50 s: RateLimited: slow down",
        "   · attempt 2 failed, again after 1.50 s: RateLimited: slow down",
    ]


def test_attempts_that_called_others_hold_what_they_called() -> None:
    """Steps of two attempts have the same paths; each lies below its own attempt, the last below the step."""
    first = [begin("g"), begin("g/a"), StepFailed(path="g/a", at=2.0, error=SLOW), retried("g")]
    assert text(*first, begin("g/a", at=3.5), done("g/a"), done("g")) == [
        "g (attempt 2)  in → out",
        "├─ attempt 1 failed",
        "│  │  · again after 1.50 s",
        "│  └─ a failed  in",
        "│        · RateLimited: slow down",
        "└─ a  in → out",
    ]


def test_tokens_of_every_attempt_count() -> None:
    """An attempt has what it used, the step the sum."""
    bills = [UsageRecorded(path="g/a", at=1.5, usage=Usage(input_tokens=n)) for n in (3, 4)]
    tree = StepTree([begin("g"), begin("g/a"), bills[0], done("g/a"), retried("g"), begin("g/a"), bills[1], done("g")])
    assert (tree.roots[0].tokens, [c.tokens for c in tree.roots[0].children]) == (7, [3, 4])
    assert (tree.total, tree.steps["g/a"].tokens) == (3, 4)


def test_an_attempt_within_an_attempt() -> None:
    """A step that was tried again inside an attempt that was."""
    inner = [begin("g/a"), begin("g/a/b"), done("g/a/b"), retried("g/a"), begin("g/a/b"), done("g/a/b"), done("g/a")]
    assert text(begin("g"), *inner, retried("g"), begin("g/a"), done("g/a"), done("g")) == [
        "g (attempt 2)  in → out",
        "├─ attempt 1 failed",
        "│  │  · again after 1.50 s",
        "│  │  · RateLimited: slow down",
        "│  └─ a (attempt 2)  in → out",
        "│     ├─ attempt 1 failed",
        "│     │  │  · again after 1.50 s",
        "│     │  │  · RateLimited: slow down",
        "│     │  └─ b  in → out",
        "│     └─ b  in → out",
        "└─ a  in → out",
    ]


def test_what_held_a_call_back_is_told() -> None:
    """Waits for a limit, answers from a cache, and a budget that ran out are notes."""
    happened = [
        RateLimitWaited(path="g", at=1.5, seconds=2.0),
        CacheHit(path="g", at=1.5, model="some/model"),
        BudgetExhausted(path="g", at=1.5, dimension="tokens", policy="wrap_up"),
    ]
    assert text(begin("g"), *happened, done("g"))[1:] == [
        "   · rate limit: held back for 2.00 s",
        "   · answered from the cache, some/model was not asked",
        "   · budget: tokens exhausted, wrapping up with what was held back",
    ]


def test_outcomes_of_exhausted_budgets() -> None:
    """A step whose budget ran out has a partial output; one that was refused is exhausted."""
    spent = BudgetExhausted(path="g", at=1.5, dimension="tokens", policy="partial")
    refused = StepFailed(path="g/a", at=1.5, error=ErrorInfo("BudgetExceeded", "no more"))
    shown = text(begin("g"), begin("g/a"), refused, spent, done("g"))
    assert (shown[0], shown[2]) == ("g partial  in → out", "└─ a exhausted  in")


def test_a_resumed_run_says_so() -> None:
    """The root notes the new limits."""
    opened = RunStarted(run_id="r", at=1.0, name="g", input="in", limits={"tokens": 10})
    tree = StepTree([opened, begin("g"), RunResumed(run_id="r", at=2.0, name="g", limits={"tokens": 20}), done("g")])
    assert tree.roots[0].notes == [f"resumed {moment(2.0)} under tokens=20"]
    assert tree.opening is not None
    assert tree.opening.limits == {"tokens": 20}


def test_json_tells_the_attempt() -> None:
    """Each step has the number of its last attempt; earlier ones are steps of their own kind."""
    tree = StepTree([begin("g"), begin("g/a"), done("g/a"), retried("g"), begin("g/a"), done("g/a"), done("g")])
    (root,) = tree.roots
    found = [(d["kind"], d["attempt"], d["outcome"]) for d in map(_step_document, [root, *root.children])]
    assert found == [("node", 2, "done"), ("attempt", 1, "failed"), ("node", 1, "done")]


def test_a_run_that_retries_is_shown(shell: Shell, write: Write) -> None:
    """From a file to the tree: recorded, read again, drawn."""
    file = write(
        "from agentrt import FunctionNode, Retry\n"
        "tries = []\n"
        "def look(n: int) -> int:\n"
        "    tries.append(n)\n"
        "    if len(tries) < 2:\n"
        "        raise ValueError('blind')\n"
        "    return n\n"
        "g = Graph('g', input=int, output=int)\n"
        "g.chain(START, FunctionNode(look, retry=Retry(backoff=0.0, on=ValueError)), END)\n"
    )
    assert "1 retried" in shell("run", file, "3").stderr
    shown = shell("show").stdout
    assert "look (attempt 2)  3 → 3" in shown
    assert "· attempt 1 failed, again after 0.00 s: ValueError: blind" in shown
    assert document(shell("show", "--json"))["steps"][1]["attempt"] == 2


def test_a_step_takes_the_time_of_all_its_parts() -> None:
    """Without that between them, spent on waiting for people or lost with a process."""
    parked = [begin("g"), begin("g/a", at=2.0), StepParked(path="g/a", at=3.0), StepParked(path="g", at=3.0)]
    asked = QuestionAnswered(path="g/a", at=90.0, verdict="answer", by="ada")
    cut = [resumed(100.0), begin("g", at=101.0), begin("g/b", at=101.0), begin("g/b/c", at=104.0)]
    more = [resumed(200.0), *(StepAbandoned(path=p, at=200.0) for p in ("g/b/c", "g/b", "g"))]
    tree = StepTree([*parked, asked, *cut, asked, *more])
    assert {s.path: s.seconds for s in tree.steps.values()} == {"g": 5.0, "g/a": 1.0, "g/b": 3.0, "g/b/c": 0.0}
    tree = StepTree([*parked, asked, *cut, asked, *more, begin("g", at=200.0), done("g", at=203.0)])
    assert (tree.roots[0].seconds, tree.roots[0].started, tree.roots[0].ended) == (8.0, 1.0, 203.0)


def test_the_time_of_a_fork_counts_from_where_it_forked() -> None:
    """What was under way then was so in another run; what had finished keeps its time."""
    shared = [begin("g", at=1.0), begin("g/a", at=1.0), done("g/a", at=3.0)]
    forked = RunForked(run_id="f", at=1000.0, parent="r", path="g/b")
    going = RunResumed(run_id="f", at=1000.0, name="g", limits={}, kind="fork")
    own = [StepAbandoned(path="g", at=1000.0), begin("g", at=1000.5), begin("g/b", at=1000.5)]
    tree = StepTree([*shared, forked, going, *own, done("g/b", at=1002.5), done("g", at=1003.5)])
    assert {path: step.seconds for path, step in tree.steps.items()} == {"g": 3.0, "g/a": 2.0, "g/b": 2.0}
    assert tree.steps["g"].started == 1000.0
    assert tree.roots[0].notes == ["forked from r at g/b"]


def resumed(at: float) -> RunResumed:
    return RunResumed(run_id="r", at=at, name="g", limits={})


def test_what_nobody_has_billed_is_stated() -> None:
    """At the call, and in the sums above it."""
    used = Usage(input_tokens=300, output_tokens=200, uncertain=500)
    tree = StepTree([begin("g"), begin("g/chat", "chat"), UsageRecorded(path="g/chat", at=2.0, usage=used)])
    assert [s.uncertain for s in tree.steps.values()] == [500, 500]
    assert tree.steps["g/chat"].notes == [
        "500 tokens in doubt: nobody knows the bill, and the most it can be is charged"
    ]
    assert _step_document(tree.roots[0])["uncertain_tokens"] == 500
