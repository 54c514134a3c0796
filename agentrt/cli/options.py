"""The options and arguments of the commands, each with its help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

T = TypeVar("T")


def recent_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids that the shell offers for RUN: those of the newest runs."""
    from agentrt.cli.runs import newest_runs

    return _offered(newest_runs, _store(context), 50, of=lambda run: run.run_id, incomplete=incomplete)


def asking_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids that the shell offers where a question is answered: those of runs that ask something."""
    from agentrt.cli.inbox import open_questions

    return _offered(open_questions, None, _store(context), of=lambda q: q.run_id, incomplete=incomplete)


def open_paths(context: typer.Context, incomplete: str) -> list[str]:
    """Return the paths that the shell offers for a question: those of what the run named before asks."""
    from agentrt.cli.inbox import open_questions

    run = context.params.get("run")
    return _offered(open_questions, run, _store(context), of=lambda q: q.asked.path, incomplete=incomplete)


def step_paths(context: typer.Context, incomplete: str) -> list[str]:
    """Return the paths that the shell offers for a step: those of the run named before."""
    from agentrt.cli.resume import step_paths as of_run

    return _offered(of_run, context.params.get("run"), _store(context), of=lambda path: path, incomplete=incomplete)


def _store(context: typer.Context) -> str | None:
    store: str | None = context.params.get("store")
    return store


def _offered(
    find: Callable[..., Awaitable[Sequence[T]]], *named: object, of: Callable[[T], str], incomplete: str
) -> list[str]:
    """Return what a store holds that begins like the word to complete; nothing where it cannot be read."""
    import anyio

    from agentrt.errors import AgentrtError

    try:
        found = anyio.run(find, *named)
    except AgentrtError:  # a shell that completes a word has nowhere to say so; the command will
        return []
    return [word for word in dict.fromkeys(map(of, found)) if word.startswith(incomplete)]


def _run_argument(help: str, *, asking: bool = False) -> Any:
    """Return the argument that names a run; `asking` offers those that ask something."""
    offered = asking_runs if asking else recent_runs
    return typer.Argument(metavar="RUN", show_default=False, help=help, autocompletion=offered)


def embedded_models(incomplete: str) -> list[str]:
    """Return the names that the shell offers for an embedded model."""
    from agentrt.models import weights

    return [w.name for w in weights.known() if w.name.startswith(incomplete)]


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE[:NAME]", show_default=False, help="A Python file, and which graph in it if it defines several."
    ),
]
RequiredTarget = Annotated[
    str, typer.Argument(metavar="FILE[:NAME]", help="A Python file, and which graph in it if it defines several.")
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="The input: text, JSON, or - for stdin. Fields of its type are options: run FILE --help lists them.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Use this model in place of all the graph names: provider/model, or local/NAME."
    ),
]
Limits = Annotated[
    str | None,
    typer.Option(
        metavar="LIMITS",
        help="Cap the run: usd=0.5,tokens=20k,seconds=60 (also input_tokens, output_tokens, model_calls, tool_calls, "
        "steps).",
    ),
]
Allow = Annotated[
    str | None,
    typer.Option(
        metavar="TOOL,...",
        help="The tools the run may use, and no others: files.read,calculator; files is all its family.",
    ),
]
PolicyName = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="What decides on each call of a tool: approve_untrusted_writes, approve_writes, or MODULE:FUNCTION.",
    ),
]
CallLimits = Annotated[
    str | None,
    typer.Option("--budget", metavar="LIMITS", help="Cap each call: usd=0.5,tokens=20k,seconds=60, as of a run."),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Where runs are recorded: sqlite:///PATH or postgresql://…", envvar="AGENTRT_STORE"
    ),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Record nothing.")]
RunJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object: run_id, stop_reason, output, usage; and error if the run failed."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Run nothing: print what a run takes at least and at most, and whether it fits."),
]
Widths = Annotated[
    str | None,
    typer.Option(
        metavar="NODE=N,...",
        help="For --dry-run: how many items an each= fork into a node has, the most or least-most: solver=32.",
    ),
]
Concurrency = Annotated[int, typer.Option(metavar="N", min=1, help="How many steps may work at once.")]
RunHelp = Annotated[bool, typer.Option("--help", help="Show this message; after a FILE, its input's fields too.")]
_A_RUN: Final = "A run's id, the beginning of one, or last."
RunId = Annotated[str, _run_argument(_A_RUN)]
RunOrDue = Annotated[str | None, _run_argument(f"{_A_RUN} Without it, the last.")]
AskingRun = Annotated[str, _run_argument(_A_RUN, asking=True)]
OptionalRun = Annotated[str | None, _run_argument("One run's questions alone.", asking=True)]
FirstRun = Annotated[str, _run_argument("A run.")]
SecondRun = Annotated[str, _run_argument("Another run.")]
Due = Annotated[bool, typer.Option("--due", help="Go on with all runs whose questions are answered, or out of time.")]
Watch = Annotated[bool, typer.Option("--watch", help="Stay, and go on with each run once it is due, until Ctrl-C.")]
Embedded = Annotated[
    str,
    typer.Argument(metavar="NAME", help="An embedded model, like smollm2-135m.", autocompletion=embedded_models),
]
NewTarget = Annotated[
    str | None,
    typer.Option("--in", metavar="FILE[:NAME]", help="Where the graph is, if not where it was run from."),
]
Raised = Annotated[
    str | None, typer.Option(metavar="LIMITS", help="Other limits for the run: tokens=50k; the rest stays as it was.")
]
RerunChanged = Annotated[
    bool, typer.Option("--rerun-changed", help="Run steps anew that are not what the record says, instead of refusing.")
]
At = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="The step that is run anew; agentrt show lists them.", autocompletion=step_paths
    ),
]
OtherInput = Annotated[
    str | None, typer.Option("--input", metavar="INPUT", help="Another input for that step: JSON, or text.")
]
QuestionPath = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH", show_default=False, help="Which question, where the run has several.", autocompletion=open_paths
    ),
]
Edit = Annotated[
    str | None, typer.Option(metavar="JSON", help="Arguments to change, as an object; they must fit the tool.")
]
AnswerValue = Annotated[str, typer.Argument(metavar="VALUE", help="The answer: JSON, or text.")]
Happened = Annotated[
    str | None, typer.Option(metavar="RESULT", help="It has happened, with this result: JSON, or text.")
]
Again = Annotated[bool, typer.Option("--again", help="It has not happened: make the call again.")]
Because = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the agent to read.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who answers, if not you.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep this as guidance for later questions of its kind.")]
To = Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write; without it, to stdout.")]
Depth = Annotated[int | None, typer.Option(metavar="N", min=1, help="Show only so many levels.")]
Full = Annotated[bool, typer.Option("--full", help="Show every step, and texts at their length.")]
Most = Annotated[int, typer.Option(metavar="N", min=1, help="How many, the newest first.")]
