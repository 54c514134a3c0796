"""Attempts: a model asked again when it fails, and another model asked instead."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from agentrt.errors import (
    AuthenticationFailed,
    ContextOverflow,
    DefinitionError,
    ModelUnavailable,
    RateLimited,
    RequestRefused,
    UnknownModel,
)
from agentrt.model import Model, ModelRequest, ModelResponse, Wrapper, ask
from agentrt.node import Context
from agentrt.retry import Retry, Retryable, persist

OF_ONE_MODEL: Final[tuple[type[Exception], ...]] = (
    AuthenticationFailed,
    ContextOverflow,
    ModelUnavailable,
    RateLimited,
    RequestRefused,
    UnknownModel,
)
"""Errors that another model may not have. A missing price is not among them: it is a mistake, and would be hidden."""


class Retried(Wrapper):
    """Ask a model again, as `retry` says, when it fails; every attempt is charged, a pause holds nothing."""

    spares = False

    def __init__(self, model: Model | str, retry: Retry | None = None) -> None:
        super().__init__(model)
        self.retry = retry or Retry()
        self.attempts = self.retry.attempts

    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        return await persist(ctx, self.retry, lambda: ask(ctx, self.model, request))


class Fallback(Wrapper):
    """Ask the next model where one fails; the last one's error is raised.

    on: the errors that lead on: classes, or a function of the error. A denial by a budget never does.
    """

    attempts, spares = 1, False

    def __init__(self, *models: Model | str, on: Retryable = OF_ONE_MODEL) -> None:
        if not models:
            raise DefinitionError("Fallback(): name at least one model")
        super().__init__(*models)
        self._errors = Retry(on=on)

    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        for model, following in pairwise(self.bound_models):
            try:
                return await ask(ctx, model, request)
            except Exception as error:
                if not self._errors.covers(error):
                    raise
                ctx.retrying(error, model=following.name)
        return await ask(ctx, self.bound_models[-1], request)
