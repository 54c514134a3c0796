"""People: who answers what runs have asked, in whatever process, and which runs can then go on."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping
from difflib import unified_diff
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_jsonable_python

from agentrt.errors import InvalidArguments, QuestionClosed
from agentrt.events import QuestionAnswered, QuestionAsked
from agentrt.journal import ALL, Journal, OpenQuestion, RunSummary
from agentrt.question import VERDICTS
from agentrt.schema import Schema

_TOLD: Final = 3


async def inbox(journal: Journal, run_id: str | None = None) -> list[OpenQuestion]:
    """Return the questions that wait for an answer, of one run or of all, oldest first."""
    return await journal.questions(run_id)


async def approve(
    journal: Journal,
    run_id: str,
    path: str | None = None,
    *,
    edit: Mapping[str, object] | None = None,
    because: str = "",
    by: str | None = None,
    keep: bool = False,
) -> QuestionAnswered:
    """Let a call be made, with other arguments if `edit` says so; these must fit the tool's schema.

    `path` names the question, and may be left out where the run has just one. `because` and `keep` are as in
    `QuestionAnswered`. Raises `QuestionClosed`, and `InvalidArguments` for arguments that do not fit.
    """
    asked = await _find(journal, run_id, path, "approve")
    arguments = asked.about.get("arguments")
    value, diff = None, ""
    if edit is not None:
        value = _checked({**(arguments if isinstance(arguments, Mapping) else {}), **edit}, asked)
        diff = _diff(arguments, value)
    return await _answer(journal, run_id, asked, "approve", value, because=because, by=by, keep=keep, diff=diff)


async def deny(
    journal: Journal,
    run_id: str,
    path: str | None = None,
    *,
    because: str = "",
    by: str | None = None,
    keep: bool = False,
) -> QuestionAnswered:
    """Refuse a call; the agent that wanted it is told, and why."""
    asked = await _find(journal, run_id, path, "deny")
    return await _answer(journal, run_id, asked, "deny", None, because=because, by=by, keep=keep)


async def answer(
    journal: Journal, run_id: str, value: object, path: str | None = None, *, by: str | None = None, keep: bool = False
) -> QuestionAnswered:
    """Answer a question, with plain JSON or what pydantic can write as that.

    Raises `InvalidArguments` for a value that does not fit the question's schema.
    """
    asked = await _find(journal, run_id, path, "answer")
    value = _checked(value, asked)
    return await _answer(journal, run_id, asked, "answer", value, by=by, keep=keep)


async def settle(
    journal: Journal,
    run_id: str,
    path: str | None = None,
    *,
    happened: bool,
    result: object = None,
    by: str | None = None,
) -> QuestionAnswered:
    """Say of a call that was cut off whether it has happened, with what result, or is to be made again."""
    verdict = "happened" if happened else "again"
    asked = await _find(journal, run_id, path, verdict)
    return await _answer(journal, run_id, asked, verdict, result, by=by)


async def due(journal: Journal, *, now: float | None = None) -> list[str]:
    """Return the ids of the runs that wait and may go on, those that began first before the others.

    A run is due once a question that it parked on is answered, or that question's time is over (`now` is in seconds
    since the epoch).
    """
    return [run.run_id for run in await due_runs(journal, time.time() if now is None else now)]


async def due_runs(journal: Journal, now: float) -> list[RunSummary]:
    """Return the runs that are due at a time, those that began first before the others."""
    waiting = await journal.runs(ALL, status="waiting")
    return [run for run in reversed(waiting) if run.due is not None and run.due <= now]


async def _find(journal: Journal, run_id: str, path: str | None, verdict: str) -> QuestionAsked:
    """Return the open question that is meant; raises `QuestionClosed`."""
    opened = [q.asked for q in await journal.questions(run_id)]
    if path is not None and all(q.path != path for q in opened):
        others = f"; open are {', '.join(q.path for q in opened)}" if opened else ""
        known = await _answers(journal, run_id, path)
        raise QuestionClosed(f"run {run_id} does not wait for an answer to {path}{known}{others}")
    fitting = [q for q in opened if path in (None, q.path) and verdict in VERDICTS[q.kind]]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        named = ", ".join(f"{q.path} ({' or '.join(VERDICTS[q.kind])})" for q in opened) or "nothing"
        known = "" if opened else await _answers(journal, run_id)
        raise QuestionClosed(f"no question of run {run_id} takes {verdict!r}; it waits for {named}{known}")
    raise QuestionClosed(f"run {run_id} has several such questions, name one: {', '.join(q.path for q in fitting)}")


async def _answers(journal: Journal, run_id: str, path: str | None = None) -> str:
    """Say who has answered the question at a path, or the latest that the run asked."""
    given: dict[str, str] = {}
    for event in await journal.events(run_id):
        if isinstance(event, QuestionAsked):
            given.pop(event.path, None)
        elif isinstance(event, QuestionAnswered):
            given[event.path] = event.by
    told = [f"{by} answered {known}" for known, by in given.items() if path in (None, known)]
    return f": {', '.join(told[-_TOLD:])}" if told else ""


async def _answer(
    journal: Journal,
    run_id: str,
    asked: QuestionAsked,
    verdict: str,
    value: object,
    *,
    by: str | None,
    because: str = "",
    diff: str = "",
    keep: bool = False,
) -> QuestionAnswered:
    now = time.time()
    answered = QuestionAnswered(
        path=asked.path,
        at=now,
        verdict=verdict,
        by=by or getpass.getuser(),
        value=value,
        because=because,
        diff=diff,
        keep=keep,
        waited=max(0.0, now - asked.at),
    )
    await journal.answer(run_id, answered)
    return answered


def _checked(value: object, asked: QuestionAsked) -> Any:
    """Return a value as plain JSON; raises `InvalidArguments` where it does not fit the schema of its question."""
    schema: Any = asked.schema
    try:
        instance: Any = to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise InvalidArguments(f"{asked.path}: {value!r:.200} cannot be written as JSON: {error}") from error
    if mistakes := sorted(Schema(schema, formats=True).mistakes(instance)):
        raise InvalidArguments(f"{asked.path}: " + "; ".join(map(_said, mistakes)))
    return instance


def _said(mistake: str) -> str:
    return mistake.removeprefix("$").removeprefix(".").removeprefix(": ")


def _diff(before: object, after: object) -> str:
    old, new = (json.dumps(value, indent=2, sort_keys=True, default=str).splitlines() for value in (before, after))
    return "\n".join(unified_diff(old, new, "asked", "approved", lineterm="", n=1))
