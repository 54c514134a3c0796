"""Continuation: recorded runs that go on, part ways, or are gone through again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Final, TypeVar, Unpack, cast

from pydantic import ValidationError

from agentrt.budget import Budget
from agentrt.errors import DefinitionError, JournalError, ReplayMismatch
from agentrt.events import Ending, Event, RunFinished, RunForked, RunStarted, StepStarted, plain
from agentrt.function import Runnable, as_node
from agentrt.journal import Journal, JournalWriter
from agentrt.messages import Message
from agentrt.model import ModelRequest, ModelResponse
from agentrt.node import Node
from agentrt.options import Options, ReplayOptions, ResumeOptions
from agentrt.permission import check_allow, policy_named
from agentrt.question import Question, mistakes
from agentrt.recorded import Recorded
from agentrt.replay import RecordedPast, input_of, output_of
from agentrt.result import Result, StopReason
from agentrt.runs import Run, new_run_id
from agentrt.usage import FREE

T = TypeVar("T")
_SAME: Final = object()
_BRANCH: Final = re.compile(r"(#[0-9]+)?\[([^\]]*)\]")


async def resume(
    node: Runnable[T],
    run_id: str,
    *,
    journal: Journal,
    budget: Budget | None = None,
    rerun_changed: bool = False,
    **options: Unpack[ResumeOptions],
) -> Result[T]:
    """Go on with a recorded run that was cut off, failed, ran out of budget or waited for people.

    `node` is what was run then; finished steps answer from the record and are not paid again. `budget` raises limits of
    the run, and nothing but limits; `rerun_changed` runs steps anew that are not what the record says. What was in
    flight is run again; what it may have cost is charged at its maximum. A run that is done returns its result. Raises
    what `run` raises, `RunTaken` while another drives the run, here or elsewhere, and `ReplayMismatch` where the node
    does not do what is recorded.
    """
    node = as_node(node)
    writer = await JournalWriter.claim(journal, run_id, new=False)
    try:
        recorded = Recorded(await journal.events(run_id))
        run = _continued(node, recorded, run_id, {**options, "journal": journal}, budget)
    except BaseException:
        await writer.release()
        raise
    if isinstance(recorded.closing, RunFinished) and recorded.closing.stop_reason == StopReason.DONE:
        await writer.release()
        return _finished(run, node, recorded)
    recorded.reopen()
    run.go_on(recorded, RecordedPast(recorded, rerun_changed=rerun_changed), writer)
    return await run.execute()


async def fork(
    node: Runnable[T],
    run_id: str,
    *,
    journal: Journal,
    at: str,
    input: Any = _SAME,
    budget: Budget | None = None,
    new_id: str | None = None,
    **options: Unpack[ResumeOptions],
) -> Result[T]:
    """Begin a new run that shares a recorded one's past up to the step at a path, and goes its own way from there.

    That step is run anew, on another `input` if one is given. The past is not paid again, nor counted against the new
    run's budget. `new_id` names the new run. Raises `DefinitionError` for a step that is not in the record, and for an
    input that does not fit it; of a step that code calls only the run can tell, which ends with `ReplayMismatch` then.
    """
    node = as_node(node)
    events = await journal.events(run_id)
    new_id = new_id or new_run_id()
    past = _up_to(events, at, run_id)
    replaced = input is not _SAME
    if replaced:
        _check_input(node, events, at, plain(input))
    first = past[0]
    assert isinstance(first, RunStarted)
    began = RunStarted(
        run_id=new_id,
        at=first.at,
        name=first.name,
        input=first.input,
        limits=first.limits,
        options={**first.options, "seed": Recorded([first]).seed},
        target=first.target,
        parent=run_id,
    )
    forked = RunForked(
        run_id=new_id,
        at=time.time(),
        parent=run_id,
        path=at,
        replaced=replaced,
        input=plain(input) if replaced else None,
    )
    shared = [began, *past[1:], forked]
    recorded = Recorded(shared)
    recorded.reopen()
    run = _continued(node, recorded, new_id, {**options, "journal": journal}, budget)
    run.check_prices()  # before there is a run that could not begin
    writer = await JournalWriter.claim(journal, new_id, new=True)
    try:
        await journal.append(new_id, writer.epoch, shared)
    except BaseException:
        await writer.release()
        raise
    run.go_on(recorded, RecordedPast(recorded), writer)
    return await run.execute()


async def replay(node: Runnable[T], run_id: str, *, journal: Journal, **options: Unpack[ReplayOptions]) -> Result[T]:
    """Go through a recorded run again, offline: no model is asked and no tool used, everything between them is done.

    What the code makes of the recorded answers is compared with the record, step by step. Raises `ReplayMismatch`
    where they differ, which makes of a finished run a regression test.
    """
    return await replay_events(node, await journal.events(run_id), **options)


async def replay_events(node: Runnable[T], events: Sequence[Event], **options: Unpack[ReplayOptions]) -> Result[T]:
    """Go through a run again as `replay` does, from its events."""
    node = as_node(node)
    recorded = Recorded(events)
    run_id = recorded.run.run_id if recorded.run is not None else ""
    run = _continued(node, recorded, run_id, {**options, "model": _Offline()}, None, offline=True)
    run.go_through(recorded)
    return await run.execute()


class _Offline:
    """Be the model of a replay: whatever is asked of it is on record, or else is a mismatch."""

    name = "recorded"
    price = FREE

    async def count_tokens(self, request: ModelRequest) -> int:
        raise _asked_more(request.messages)

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        raise _asked_more(request.messages)

    async def generate(self, request: ModelRequest, on_text: Any) -> ModelResponse:
        raise _asked_more(request.messages)

    async def aclose(self) -> None:
        """Release nothing."""


def _asked_more(messages: Sequence[Message]) -> JournalError:
    said = messages[-1].text if messages else ""
    return JournalError(f"a replay asks no model, and this request is not on record: {said!r:.200}")


def _began(recorded: Recorded) -> RunStarted:
    if recorded.run is None:
        raise JournalError("the record does not begin with the start of a run")
    return recorded.run


def _continued(
    node: Node[Any, Any],
    recorded: Recorded,
    run_id: str,
    given: Mapping[str, object],
    budget: Budget | None,
    *,
    offline: bool = False,
) -> Run:
    """Return the run as it was started, but for what the given options and `budget` say otherwise."""
    began = _began(recorded)
    if began.name != node.name:
        raise DefinitionError(f"run {run_id} is one of {began.name!r}, not of {node.name!r}")
    known: Options = {"run_id": run_id}
    if (limits := cast("dict[str, Any] | None", recorded.options.get("budget"))) is not None:
        known["budget"] = Budget(**limits)
    if isinstance(model := recorded.options.get("model"), str):
        known["model"] = model
    if isinstance(concurrency := recorded.options.get("concurrency"), int):
        known["concurrency"] = concurrency
    if (allow := cast("list[str] | None", recorded.options.get("allow"))) is not None:
        known["allow"] = allow
    given = {name: value for name, value in given.items() if value is not None or name not in ("allow", "policy")}
    check_allow(cast("list[str] | None", given.get("allow")), node)
    if "policy" not in given and isinstance(policy := recorded.options.get("policy"), str) and not offline:
        known["policy"] = policy_named(policy)
    options = cast("Options", {**known, **given})
    if budget is not None:
        options["budget"] = replace(options.get("budget") or Budget(), **budget.limits())  # type: ignore[arg-type]
    return Run(node, input_of(node, began.input, began.name), options)


def _finished(run: Run, node: Node[Any, T], recorded: Recorded) -> Result[T]:
    run.ledger.restore(recorded.spent(""), recorded.usage)
    ended = recorded.steps[node.name].ended
    assert ended is not None
    return Result(run, output_of(node, cast("Any", ended)), stop_reason=StopReason.DONE)


def _up_to(events: Sequence[Event], at: str, run_id: str) -> list[Event]:
    """Return the events before the step at a path first started, and those of what ran beside it, then or later.

    That is what had begun and not ended, and what lies on other branches of the forks around.
    """
    paths = list(dict.fromkeys(e.path for e in events if isinstance(e, StepStarted)))
    if at not in paths:
        near = get_close_matches(at, paths, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; `agentrt show {run_id}` lists them"
        raise DefinitionError(f"run {run_id} has no step {at!r}{hint}")
    end = next(i for i, e in enumerate(events) if isinstance(e, StepStarted) and e.path == at)
    graphs = {e.path for e in events if isinstance(e, StepStarted) and e.kind == "graph"}
    own = {path.rpartition("/")[0]: path for path in _up_from(at)}
    beside = _running(events[:end]).difference(own.values())

    def is_beside(path: str) -> bool:
        around = path.rpartition("/")[0]
        return path in beside or (around in graphs and around in own and _are_apart(path, own[around]))

    later = [e for e in events[end:] if any(map(is_beside, _up_from(getattr(e, "path", ""))))]
    return [*events[:end], *later]


def _are_apart(one: str, other: str) -> bool:
    """Say whether two steps of a graph lie on different branches of one fork (docs/design.md, "Paths")."""
    labels = (_BRANCH.findall(path.rpartition("/")[2]) for path in (one, other))
    for (round_, index), (other_round, other_index) in zip(*labels, strict=False):
        if (round_, index) != (other_round, other_index):
            return bool(round_ == other_round)
    return False


def _running(events: Sequence[Event]) -> set[str]:
    """Return the steps that have started and not ended."""
    running: set[str] = set()
    for event in events:
        if isinstance(event, StepStarted):
            running.add(event.path)
        elif isinstance(event, Ending):
            running.discard(event.path)
    return running


def _up_from(path: str) -> Iterator[str]:
    """Return a path and those of the steps around it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _check_input(node: Node[Any, Any], events: Sequence[Event], at: str, input: object) -> None:
    """Raise `DefinitionError` where a step cannot be given an input, as far as that is known before it runs."""
    if any(isinstance(e, StepStarted) and e.path == at and e.kind == Question.kind for e in events):
        raise DefinitionError(f"{at} asks people, and takes no input: fork there without one, and answer anew")
    found = _node_at(node, at)
    if found is None:
        return
    try:
        input_of(found, input, at)
    except ReplayMismatch as error:
        cause = error.__cause__
        why = mistakes(cause) if isinstance(cause, ValidationError) else cause
        raise DefinitionError(f"the input given to the fork does not fit {at}: {why}") from error


def _node_at(root: Node[Any, Any], path: str) -> Node[Any, Any] | None:
    """Return the node of the step at a path; None where code calls it, or a step around it."""
    node: Node[Any, Any] | None = root
    for step in path.split("/")[1:]:
        name = step.partition("[")[0].partition("#")[0]
        node = next((part for part in node.parts if part.name == name), None) if node is not None else None
    return node
