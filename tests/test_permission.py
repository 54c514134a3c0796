"""Which tools a run may use, and for which calls people are asked."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from agentrt import (
    END,
    START,
    Agent,
    CallDenied,
    Context,
    DefinitionError,
    Graph,
    Node,
    Passage,
    ProposedCall,
    Retriever,
    StepFailed,
    StopReason,
    approve_untrusted_writes,
    approve_writes,
    fork,
    guarded,
    replay,
    resume,
    run,
    stream,
    tool,
)
from agentrt import events as ev
from agentrt.people import approve, deny, inbox
from agentrt.permission import Permissions, Verdict, policy_name, policy_named
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, call, text
from agentrt_tools import ask_human, ask_model
from tests.journals import journal_of, kinds
from tests.test_continuation import RUN
from tests.test_untrusted import fetch

pytestmark = pytest.mark.anyio


class Site:
    """Count what is posted."""

    def __init__(self) -> None:
        self.posts: list[str] = []

        @tool(effect="idempotent")
        async def post(words: str) -> str:
            """Post words.

            Args:
                words: The words.
            """
            self.posts.append(words)
            return "posted"

        self.post = post


async def events_of(node: Any, value: Any, **options: Any) -> list[ev.Event]:
    events: list[ev.Event] = []
    await run(node, value, observers=[events.append], **options)
    return events


@pytest.mark.parametrize(
    ("allow", "tool", "allowed"),
    [
        (None, "files.read", True),
        ([], "files.read", False),
        (["files"], "files.read", True),
        (["files"], "filesystem", False),
        (["files.read"], "files.write", False),
        (["files.read"], "files", False),
        (["calculator", "files.read"], "files.read", True),
    ],
)
def test_names_allow_tools_and_their_families(allow: list[str] | None, tool: str, allowed: bool) -> None:
    assert Permissions(allow).allows(tool) is allowed


@pytest.mark.parametrize("allow", ["files", [1], [fetch]])
def test_what_is_no_list_of_names_is_told(allow: Any) -> None:
    with pytest.raises(DefinitionError, match="give a list of the names"):
        Permissions(allow)


async def test_a_name_that_no_tool_has_is_told_before_anything_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Where code may call what nobody knows before, the name may be right: there it is a warning."""
    inner = Graph("inner", input=str, output=str)
    inner.chain(START, Agent("agent", model=ScriptedModel([]), tools=[fetch]), END)
    journal = MemoryJournal()
    with pytest.raises(DefinitionError, match=r"allow=\['fetsh'\]: inner has no such tool \(there are fetch\)"):
        await run(inner, "go", allow=["fetch", "fetsh"], journal=journal)
    with pytest.raises(DefinitionError, match="fetsh"):
        async with stream(inner, "go", allow=["fetsh"]):
            pass
    assert not await journal.runs()
    assert not caplog.messages

    async def by_code(x: str, ctx: Context) -> str:
        return await ctx.run(fetch, x)

    assert (await run(by_code, "a", allow=["fetch"])).output == "page of a"
    assert caplog.messages == [
        "allow=['fetch']: by_code has no such tool (there are by_code), unless its code calls one"
    ]


async def test_a_tool_that_is_not_allowed_is_not_offered_and_denied_if_it_is_called_all_the_same() -> None:
    site = Site()
    model = ScriptedModel([[call("post", words="a"), call("fetch", url="b")], text("done")])
    agent = Agent("agent", model=model, tools=[fetch, site.post])
    events = await events_of(agent, "go", allow=["fetch"])
    assert [t.name for t in model.requests[0].tools] == ["fetch"]
    refused = model.requests[1].messages[-2]
    assert refused.text == "post is not among the tools that this run allows: fetch"
    assert refused.role == "tool"
    assert not site.posts
    (event,) = kinds(events, ev.CallRefused)
    assert (event.path, event.tool) == ("agent/post", "post")


async def test_code_and_graphs_are_held_to_it_as_agents_are() -> None:
    site = Site()

    async def main(x: str, ctx: Context) -> str:
        return await ctx.run(site.post, x)

    with pytest.raises(StepFailed, match="not among the tools") as raised:
        await run(main, "a", allow=[])
    assert isinstance(raised.value.cause, CallDenied)
    assert raised.value.path == "main/post"
    assert not site.posts


class Nothing:
    embedder = None

    async def search(self, query: Any, k: int) -> list[Passage]:
        raise AssertionError("it was searched")


async def test_retrievers_are_held_to_it() -> None:
    with pytest.raises(StepFailed, match="wiki is not among the tools"):
        await run(Retriever("wiki", Nothing()), "a", allow=[])


async def test_a_policy_sees_the_call_and_its_verdict_counts() -> None:
    seen: list[ProposedCall] = []

    def policy(call: ProposedCall) -> Verdict:
        seen.append(call)
        return "deny" if call.tool == "post" else "allow"

    site = Site()
    model = ScriptedModel([call("fetch", url="a"), call("post", words="b"), text("done")])
    events = await events_of(Agent("agent", model=model, tools=[fetch, site.post]), "go", policy=policy)
    assert [(c.tool, c.path, dict(c.arguments), c.effect, c.writes, set(c.untrusted)) for c in seen] == [
        ("fetch", "agent/fetch", {"url": "a"}, "read", False, set()),
        ("post", "agent/post", {"words": "b"}, "idempotent", True, {"fetch"}),
    ]
    (event,) = kinds(events, ev.CallRefused)
    assert "policy" in event.because
    assert not site.posts


async def test_a_policy_may_say_why() -> None:
    def policy(call: ProposedCall) -> Verdict:
        raise CallDenied("not on Sundays")

    with pytest.raises(StepFailed, match="not on Sundays"):
        await run(Site().post, "a", policy=policy)


async def test_a_policy_that_returns_something_else_is_told() -> None:
    with pytest.raises(StepFailed, match=r"returned None: it may return allow, approve, deny"):
        await run(Site().post, "a", policy=lambda call: None)  # type: ignore[arg-type,return-value]


def poster(site: Site) -> Agent[Any, str]:
    def reply(request: Any) -> Any:
        done = sum(m.role == "tool" for m in request.messages)
        return [call("post", words="a"), call("fetch", url="b"), call("post", words="c"), text("done")][done]

    return Agent("agent", model=FunctionModel(reply), tools=[fetch, site.post])


async def test_writing_needs_approval_once_something_untrusted_was_read() -> None:
    """Before that it does not, and reading never does."""
    site, journal = Site(), MemoryJournal()
    agent = poster(site)
    result = await run(agent, "go", policy=approve_untrusted_writes, journal=journal, run_id=RUN)
    assert result.stop_reason is StopReason.WAITING
    assert site.posts == ["a"]
    (question,) = await inbox(journal)
    assert question.asked.path == "agent/post#2/approve"
    assert question.asked.about["untrusted"] == ["fetch"]
    await approve(journal, RUN, edit={"words": "edited"})
    assert (await resume(agent, RUN, journal=journal)).output == "done"
    assert site.posts == ["a", "edited"]


async def test_what_people_deny_is_told_to_the_model() -> None:
    site, journal = Site(), MemoryJournal()
    agent = poster(site)
    await run(agent, "go", policy=approve_untrusted_writes, journal=journal, run_id=RUN)
    await deny(journal, RUN, because="it was not you who wanted that")
    assert (await resume(agent, RUN, journal=journal)).output == "done"
    assert site.posts == ["a"]


async def test_permissions_hold_in_every_part_of_a_run() -> None:
    """Wherever it is cut off: what a run may use is on record, and so is its policy."""
    site, journal = Site(), MemoryJournal()
    agent = poster(site)
    await run(agent, "go", policy=approve_untrusted_writes, allow=["fetch", "post"], journal=journal, run_id=RUN)
    events = await journal.events(RUN)
    for at in range(1, len(events)):
        site.posts.clear()
        cut = await journal_of(RUN, events[:at])
        result = await resume(agent, RUN, journal=cut)
        assert result.stop_reason is StopReason.WAITING, at
        assert "c" not in site.posts
    forked = await fork(agent, RUN, journal=journal, at="agent/chat#2", new_id="fork")
    assert forked.stop_reason is StopReason.WAITING


async def test_what_a_run_may_not_use_it_may_not_use_when_it_goes_on() -> None:
    site, journal = Site(), MemoryJournal()
    agent = poster(site)
    await run(agent, "go", allow=["fetch"], journal=journal, run_id=RUN)
    events = await journal.events(RUN)
    for at in range(1, len(events)):
        await resume(agent, RUN, journal=await journal_of(RUN, events[:at]))
        assert not site.posts, at


def mine(call: ProposedCall) -> Verdict:
    return "deny" if call.tool == "post" else "allow"


async def test_a_policy_of_ones_own_is_found_again_by_its_name_or_has_to_be_given() -> None:
    def local(call: ProposedCall) -> Verdict:
        return mine(call)

    site, journal = Site(), MemoryJournal()
    agent = poster(site)
    await run(agent, "go", policy=mine, journal=journal, run_id="named")
    events = [e for e in await journal.events("named") if not isinstance(e, ev.RunFinished)][:8]
    assert (await resume(agent, "named", journal=await journal_of("named", events))).output == "done"
    await run(agent, "go", policy=local, journal=journal, run_id="local")
    events = (await journal.events("local"))[:8]
    with pytest.raises(DefinitionError, match=r"began under the policy .*local.*: give it again"):
        await resume(agent, "local", journal=await journal_of("local", events))
    assert (await resume(agent, "local", policy=local, journal=await journal_of("local", events))).output == "done"
    assert not site.posts


async def test_a_guarded_run_can_be_replayed() -> None:
    journal = MemoryJournal()
    agent = poster(Site())
    await run(agent, "go", policy=mine, allow=["fetch", "post"], journal=journal, run_id=RUN)
    assert (await replay(agent, RUN, journal=journal)).output == "done"


def denying(policy: Any) -> Any:
    """Wrap a policy as `functools.wraps` does: under the name of the one inside."""

    @functools.wraps(policy)
    def stricter(call: ProposedCall) -> Verdict:
        return "deny" if call.tool == "post" else "allow"

    return stricter


class Strict:
    def __call__(self, call: ProposedCall) -> Verdict:
        return "deny"

    def decide(self, call: ProposedCall) -> Verdict:
        return "deny"


@pytest.mark.parametrize("policy", [denying(mine), Strict(), Strict().decide, functools.partial(mine)])
def test_a_policy_is_recorded_by_a_name_only_if_that_leads_to_the_very_same(policy: Any) -> None:
    """Else a run that goes on would be held to another one."""
    with pytest.raises(DefinitionError, match=r"give it again, resume\(…, policy=…\)"):
        policy_named(policy_name(policy))
    assert policy_named(policy_name(mine)) is mine


def test_a_policy_is_looked_for_in_a_module_that_is_not_loaded_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house_rules.py").write_text("def decide(call):\n    return 'allow'\n")
    (tmp_path / "broken_rules.py").write_text("import nothing_of_the_kind\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert callable(policy_named("house_rules:decide"))
    with pytest.raises(DefinitionError, match="nothing_of_the_kind"):
        policy_named("broken_rules:decide")


async def test_a_policy_that_fails_ends_the_run() -> None:
    """No model could mend it."""

    def policy(call: ProposedCall) -> Verdict:
        raise KeyError("nope")

    agent = Agent("agent", model=ScriptedModel([call("fetch", url="a"), text("done")]), tools=[fetch])
    with pytest.raises(StepFailed, match="failed on fetch: KeyError"):
        await run(agent, "go", policy=policy)


async def test_tools_that_do_their_own_are_held_to_it_too() -> None:
    asked = Agent("agent", model=ScriptedModel([call("ask_human", question="?"), text("done")]), tools=[ask_human])
    assert (await run(asked, "go", allow=[], journal=MemoryJournal())).stop_reason is StopReason.DONE
    asked = Agent("agent", model=ScriptedModel([call("ask_human", question="?"), text("done")]), tools=[ask_human])
    denied = await run(asked, "go", policy=lambda call: "deny", journal=MemoryJournal())
    assert denied.stop_reason is StopReason.DONE
    sage = ask_model(ScriptedModel([]), name="sage")
    model = ScriptedModel([call("sage", input="?"), text("done")])
    await run(Agent("agent", model=model, tools=[sage]), "go", allow=[])
    assert model.requests[0].tools == ()
    assert "sage is not among the tools" in model.requests[1].messages[-1].text


async def test_what_a_person_makes_of_a_call_is_put_to_the_policy() -> None:
    def policy(call: ProposedCall) -> Verdict:
        return "deny" if call.arguments["words"] == "secret" else "approve"

    site, journal = Site(), MemoryJournal()
    agent = Agent("agent", model=FunctionModel(lambda r: "done" if len(r.messages) > 1 else call("post", words="a")),
                  tools=[site.post])  # fmt: skip
    await run(agent, "go", policy=policy, journal=journal, run_id=RUN)
    await approve(journal, RUN, edit={"words": "secret"})
    assert (await resume(agent, RUN, policy=policy, journal=journal)).output == "done"
    assert not site.posts


async def test_a_policy_and_an_approval_see_defaults_whoever_calls() -> None:
    seen: list[Any] = []

    @tool
    async def pay(to: str, amount: int = 5) -> str:
        """Pay."""
        return to

    def policy(call: ProposedCall) -> Verdict:
        seen.append(dict(call.arguments))
        return "allow"

    async def main(x: str, ctx: Context) -> str:
        return await ctx.run(pay, (x,))

    await run(main, "eve", policy=policy)
    assert seen == [{"to": "eve", "amount": 5}]


def test_a_name_is_as_nodes_have_it_or_as_models_are_told_it() -> None:
    assert Permissions(["files_read"]).allows("files.read")
    assert not Permissions(["files_read"]).allows("files.write")


async def test_a_guarded_tool_is_the_tool_it_guards() -> None:
    async def fine(value: Any) -> bool:
        return True

    site = Site()
    inner = guarded(fetch, after=[fine])
    model = ScriptedModel([call("fetch", url="a"), call("post", words="b"), text("done")])
    agent = Agent("agent", model=model, tools=[inner, site.post])
    result = await run(agent, "go", policy=approve_untrusted_writes, journal=MemoryJournal())
    assert result.stop_reason is StopReason.WAITING
    assert not site.posts
    model = ScriptedModel([text("done")])
    await run(Agent("agent", model=model, tools=[inner]), "go", allow=[])
    assert model.requests[0].tools == ()


class Mailer(Node[str, str]):
    """Be a node of one's own that acts by itself."""

    def __init__(self, effect: Any) -> None:
        super().__init__("mailer", input=str, output=str, description="mails")
        self.effect = effect
        self.sent: list[str] = []

    async def invoke(self, ctx: Context, value: str, /) -> str:
        self.sent.append(value)
        return "sent"


async def test_a_policy_is_asked_of_every_node_that_has_an_effect_whoever_calls_it() -> None:
    mailer = Mailer("idempotent")
    with pytest.raises(StepFailed, match="denies this call"):
        await run(mailer, "a", policy=mine_denies_all)
    assert not mailer.sent


async def test_a_node_that_does_not_say_what_it_does_is_held_to_do_the_worst_as_a_tool() -> None:
    mailer = Mailer(None)
    model = ScriptedModel([call("mailer", input="a"), text("done")])
    await run(Agent("agent", model=model, tools=[mailer]), "go", policy=mine_denies_all)
    model = ScriptedModel([call("mailer", input="a"), text("done")])
    await run(Agent("agent", model=model, tools=[mailer]), "go", allow=["calculator"])
    assert not mailer.sent
    assert model.requests[0].tools == ()


def mine_denies_all(call: ProposedCall) -> Verdict:
    return "deny"


async def test_people_are_asked_once_about_a_guarded_tool() -> None:
    async def fine(value: Any) -> bool:
        return True

    site, journal = Site(), MemoryJournal()
    model = FunctionModel(lambda r: "done" if len(r.messages) > 1 else call("post", words="a"))
    agent = Agent("agent", model=model, tools=[guarded(site.post, before=[fine])])
    await run(agent, "go", policy=approve_writes, journal=journal, run_id=RUN)
    await approve(journal, RUN)
    assert (await resume(agent, RUN, journal=journal)).output == "done"
    assert site.posts == ["a"]


async def test_what_a_person_makes_of_a_query_is_put_to_the_policy_too() -> None:
    def policy(call: ProposedCall) -> Verdict:
        return "deny" if call.arguments["query"] == "secret" else "approve"

    journal, wiki = MemoryJournal(), Retriever("wiki", Nothing())
    await run(wiki, "a", policy=policy, journal=journal, run_id=RUN)
    await approve(journal, RUN, edit={"query": "secret"})
    with pytest.raises(StepFailed, match="denies this call"):
        await resume(wiki, RUN, policy=policy, journal=journal)


async def test_what_is_not_given_anew_stays_in_force() -> None:
    """None is what wrappers pass on where they were given nothing."""
    site, journal = Site(), MemoryJournal()
    agent = poster(site)
    await run(agent, "go", policy=mine, journal=journal, run_id=RUN)
    events = (await journal.events(RUN))[:8]
    await resume(agent, RUN, policy=None, journal=await journal_of(RUN, events))
    assert not site.posts
