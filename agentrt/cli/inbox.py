"""`agentrt inbox`, `approve`, `deny`, `answer`, `settle`: what runs ask people, and their answers."""

from __future__ import annotations

import json as jsonlib
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import anyio

from agentrt import people
from agentrt.cli import options
from agentrt.cli.console import as_json, clean, console, loose_json, moment, note, one_line, print_json, quoted, verdict
from agentrt.cli.exits import UsageError, told
from agentrt.cli.form import form
from agentrt.cli.perform import store_option
from agentrt.cli.runs import find_run, opened
from agentrt.errors import InvalidArguments, QuestionClosed
from agentrt.events import QuestionAnswered
from agentrt.journal import Journal, OpenQuestion, RunSummary

_ANSWERS: Final = {
    "ask": ("answer {run} VALUE {path}",),
    "approve": ("approve {run} {path}", "approve {run} {path} --edit JSON", "deny {run} {path} --because TEXT"),
    "doubt": ("settle {run} {path} --happened RESULT", "settle {run} {path} --again"),
}

_LABELS: Final = {"may_cost": "may spend on models"}
_LONGEST: Final = 200
_YES_OR_NO: Final = {"yes": True, "y": True, "no": False, "n": False}
_UNLIMITED: Final = "no limit"
"""What a question says is left of a budget that there is none of."""


def inbox(
    run: options.OptionalRun = None,
    json: options.Json = False,
    store: options.Store = None,
    debug: options.Debug = False,
) -> None:
    """List what runs ask people, the oldest question first, and how to answer.

    \b
    Examples:
      agentrt inbox
      agentrt inbox last --json
    """
    with told(debug=debug, json=json):
        found = anyio.run(open_questions, run, store)
        if json:
            print_json([_document(q) for q in found])
        elif found:
            for question in found:
                _show(question, store)
        else:
            note("nobody is asked anything")


def approve(
    run: options.AskingRun,
    path: options.QuestionPath = None,
    edit: options.Edit = None,
    because: options.Because = "",
    by: options.By = None,
    keep: options.Keep = False,
    store: options.Store = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Let a call be made, with other arguments if you edit them.

    \b
    Examples:
      agentrt approve last
      agentrt approve last --edit '{"amount": 20}'
    """
    with told(debug=debug, json=json):
        changed = None if edit is None else _object(edit)

        def work(journal: Journal, run_id: str) -> Awaitable[QuestionAnswered]:
            return people.approve(journal, run_id, path, edit=changed, because=because, by=by, keep=keep)

        _give(run, store, work, json=json)


def deny(
    run: options.AskingRun,
    path: options.QuestionPath = None,
    because: options.Because = "",
    by: options.By = None,
    keep: options.Keep = False,
    store: options.Store = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Refuse a call; the agent that wanted it is told, and why.

    \b
    Examples:
      agentrt deny last --because "too expensive, look for another hotel"
    """
    with told(debug=debug, json=json):
        _give(run, store, lambda j, r: people.deny(j, r, path, because=because, by=by, keep=keep), json=json)


def answer(
    run: options.AskingRun,
    value: options.AnswerValue,
    path: options.QuestionPath = None,
    by: options.By = None,
    keep: options.Keep = False,
    store: options.Store = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Answer a question.

    \b
    Examples:
      agentrt answer last 42
      agentrt answer last "by train" brief/plan/ask
    """
    with told(debug=debug, json=json):
        _give(run, store, lambda j, r: _answer_typed(j, r, value, path, by=by, keep=keep), json=json)


async def _answer_typed(
    journal: Journal, run_id: str, typed: str, path: str | None, *, by: str | None, keep: bool
) -> QuestionAnswered:
    """Answer with what was typed: as JSON, or where only a text fits as that, or yes or no."""
    try:
        return await people.answer(journal, run_id, loose_json(typed), path, by=by, keep=keep)
    except InvalidArguments as error:
        for meant in (typed, _YES_OR_NO.get(typed.lower(), typed)):
            with suppress(InvalidArguments):
                return await people.answer(journal, run_id, meant, path, by=by, keep=keep)
        raise error from None


def settle(
    run: options.AskingRun,
    path: options.QuestionPath = None,
    happened: options.Happened = None,
    again: options.Again = False,
    by: options.By = None,
    store: options.Store = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say of a call that was cut off whether it has happened, with what result, or is to be made again.

    \b
    Examples:
      agentrt settle last --happened '"paid 20"'
      agentrt settle last --again
    """
    with told(debug=debug, json=json):
        if (happened is None) is not again:
            raise UsageError("say either --happened RESULT or --again")
        result = None if happened is None else loose_json(happened)

        def work(journal: Journal, run_id: str) -> Awaitable[QuestionAnswered]:
            return people.settle(journal, run_id, path, happened=not again, result=result, by=by)

        _give(run, store, work, json=json)


def _give(
    named: str, store: str | None, work: Callable[[Journal, str], Awaitable[QuestionAnswered]], *, json: bool
) -> None:
    """Record an answer, and say what is left and how the run goes on."""
    answered, run, left = anyio.run(_given, named, store, work)
    if json:
        print_json(_answer_document(answered, run, left))
        return
    note(clean(f"{answered.path}: {verdict(answered)}"), "green")
    if answered.diff:
        note(clean(answered.diff))
    if left:
        note(f"{run.run_id} still asks: {', '.join(q.asked.path for q in left)}")
    elif run.status == "waiting":
        note(f"agentrt resume {run.run_id}{store_option(store)} goes on with it")


async def _given(
    named: str, store: str | None, work: Callable[[Journal, str], Awaitable[QuestionAnswered]]
) -> tuple[QuestionAnswered, RunSummary, list[OpenQuestion]]:
    async with opened(store) as journal:
        run = await find_run(journal, named, store)
        try:
            answered = await work(journal, run.run_id)
        except (QuestionClosed, InvalidArguments) as error:
            raise UsageError(str(error)) from error
        return answered, run, await journal.questions(run.run_id)


async def open_questions(named: str | None, store: str | None) -> list[OpenQuestion]:
    """Return what is asked, of one run or of all; raises `UsageError` and `JournalError`."""
    async with opened(store) as journal:
        run_id = None if named is None else (await find_run(journal, named, store)).run_id
        return await people.inbox(journal, run_id)


def _show(question: OpenQuestion, store: str | None) -> None:
    """Print one question: what is asked, what a person should know, and what to type."""
    asked, out = question.asked, console()
    out.print(quoted(asked.prompt), style="bold", markup=False)
    out.print(clean(f"  {question.run_id} · {asked.path} · asked {moment(asked.at)}"), style="dim", markup=False)
    for name, value in asked.about.items():
        if value not in ("", None) and (name, value) != ("left", _UNLIMITED):
            text = value if isinstance(value, str) else as_json(value)
            out.print(quoted(f"  {_LABELS.get(name, name.replace('_', ' '))}: {text}"), markup=False)
    if asked.kind == "ask":
        out.print(f"  answer: {one_line(form(asked.schema), _LONGEST)}", markup=False)
    if asked.until is not None:
        default = as_json(asked.default)
        out.print(f"  until {moment(asked.until)}, then: {clean(default)}", markup=False)
    for command in _ANSWERS.get(asked.kind, ()):
        typed = command.format(run=question.run_id, path=shlex.quote(asked.path))
        out.print(f"  agentrt {typed}{store_option(store)}", style="cyan", markup=False)


def _document(question: OpenQuestion) -> dict[str, object]:
    """Return a question as programs read it; times are seconds since the epoch."""
    asked = question.asked
    return {
        "run_id": question.run_id,
        "name": question.name,
        "path": asked.path,
        "kind": asked.kind,
        "prompt": asked.prompt,
        "schema": asked.schema,
        "about": asked.about,
        "asked": asked.at,
        "until": asked.until,
        "default": asked.default,
    }


def _answer_document(answered: QuestionAnswered, run: RunSummary, left: Sequence[OpenQuestion]) -> dict[str, object]:
    """Return an answer as programs read it, with the questions that are still open."""
    return {
        "run_id": run.run_id,
        "path": answered.path,
        "answered": answered.at,
        "verdict": answered.verdict,
        "by": answered.by,
        "value": answered.value,
        "because": answered.because,
        "diff": answered.diff,
        "keep": answered.keep,
        "open": [q.asked.path for q in left],
    }


def _object(text: str) -> Mapping[str, object]:
    try:
        value = jsonlib.loads(text)
    except ValueError as error:
        raise UsageError(f"--edit {text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--edit {text!r}: write an object with the arguments to change")
    return value
