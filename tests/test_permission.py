"""Which tools a run may use, and for which calls people are asked."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import (
    Agent,
    CallDenied,
    Context,
    DefinitionError,
    Passage,
    ProposedCall,
    Retriever,
    StepFailed,
    StopReason,
    approve_untrusted_writes,
    fork,
    replay,
    resume,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.people import approve, deny, inbox
from agentrt.permission import Permissions, Verdict
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, call, text
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
        await run(Retriever("wiki", Nothing()), "a", allow=["files"])


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
    with pytest.raises(DefinitionError, match=r"no policy '.*local'"):
        await resume(agent, "local", journal=await journal_of("local", events))
    assert (await resume(agent, "local", policy=local, journal=await journal_of("local", events))).output == "done"
    assert not site.posts


async def test_a_guarded_run_can_be_replayed() -> None:
    journal = MemoryJournal()
    agent = poster(Site())
    await run(agent, "go", policy=mine, allow=["fetch", "post"], journal=journal, run_id=RUN)
    assert (await replay(agent, RUN, journal=journal)).output == "done"
