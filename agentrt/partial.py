"""What there is of a scope whose budget ran out."""

from __future__ import annotations

from collections.abc import Mapping

from agentrt.value import Value


class Partial(Value):
    """Hold what a scope had done when its budget was exhausted.

    finished: the outputs of the steps below it, by path; what a finished step called itself is left out.
    cancelled: the steps right below it that had started and have no output.
    not_started: the steps that were ready and never started.
    scope, dimension: the step whose budget it was, and the limit that was reached.
    """

    finished: Mapping[str, object]
    cancelled: tuple[str, ...]
    not_started: tuple[str, ...]
    scope: str
    dimension: str
