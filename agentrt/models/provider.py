"""What litellm needs for any call, whatever is asked for: itself, loaded; keys; its errors told in this package's."""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

from agentrt.errors import (
    AuthenticationFailed,
    ContextOverflow,
    ModelError,
    ModelUnavailable,
    RateLimited,
    RequestRefused,
    UnknownModel,
)
from agentrt.text import shortened

OWN_MACHINE: Final = frozenset(
    {"docker_model_runner", "hosted_vllm", "llamafile", "lm_studio", "ollama", "ollama_chat", "oobabooga", "vllm"}
)
KEYS: Final = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
}
"""The providers to whom litellm sends nothing without a key, and the variables where it looks for one. To others it
sends what it has: a server of one's own may ask for no key, and credentials may come from elsewhere."""


@cache
def load() -> Any:
    """Load litellm, quiet and offline."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


async def close() -> None:
    """Close what all its models in this process share: its connections, and the task that does its logging."""
    worker = importlib.import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    worker.start()  # in this event loop: whoever used it in one that has ended may not have closed it
    await worker.flush()
    await worker.stop()
    litellm = load()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()  # or a later call would be handed a closed client


def check_key(model: str, api_key: str | None) -> None:
    """Raise `AuthenticationFailed` where litellm would, at once: calls at its side are not cancelled half-way."""
    provider = model.partition("/")[0]
    variables = KEYS.get(provider, ())
    if not variables or api_key is not None or any(map(os.environ.get, variables)):
        return
    litellm = load()
    settings = ("api_key", f"{provider}_key", "secret_manager_client", "use_litellm_proxy")
    if not any(getattr(litellm, name, None) for name in settings) and not os.environ.get("USE_LITELLM_PROXY"):
        raise AuthenticationFailed(_no_key(variables[:1]), model=model)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(12):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


_NOT_CONNECTED: Final = frozenset(
    {"ConnectionRefusedError", "gaierror", "ConnectError", "ConnectTimeout", "ClientConnectorError"}
)
_KEY_IS_MISSING: Final = ("missing credentials", "api key", "api_key")
_TOO_LONG: Final = ("context length", "context window", "maximum context", "prompt is too long", "too many tokens")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Hold what can be told from one of litellm's errors; their classes alone are not to be trusted."""

    error: Exception
    model: str
    text: str
    kinds: frozenset[str]
    status: int | None
    has_key: bool

    def says(self, words: Iterable[str]) -> bool:
        text = self.text.lower()
        return any(word in text for word in words)

    @property
    def is_disconnected(self) -> bool:
        return any(type(e).__name__ in _NOT_CONNECTED for e in _chain(self.error))

    @property
    def is_about_keys(self) -> bool:
        named = self.status in (401, 403) or bool(self.kinds & {"AuthenticationError", "PermissionDeniedError"})
        return named or (self.status in (400, 500) and self.says(_KEY_IS_MISSING))

    @property
    def is_overflow(self) -> bool:
        return "ContextWindowExceededError" in self.kinds or (self.status == 400 and self.says(_TOO_LONG))


_Rule: TypeAlias = tuple[Callable[[_Failure], bool], Callable[[_Failure], ModelError]]
_RULES: Final[tuple[_Rule, ...]] = (
    (
        lambda f: f.is_disconnected,
        lambda f: ModelUnavailable(f"cannot be reached: {_cause_line(f.error)}", model=f.model, billed=False),
    ),
    (lambda f: f.says(["llm provider not provided"]), lambda f: unknown_provider(f.model)),
    (lambda f: f.is_about_keys, lambda f: AuthenticationFailed(_key_advice(f), model=f.model)),
    (
        lambda f: f.status == 429,
        lambda f: RateLimited(f.text, model=f.model, retry_after=_retry_after(f.error)),
    ),
    (lambda f: f.status == 404, lambda f: UnknownModel(f"no such model at the provider: {f.text}", model=f.model)),
    (lambda f: f.is_overflow, lambda f: ContextOverflow(f"{f.text}; shorten the prompt", model=f.model)),
    (
        lambda f: "APITimeoutError" in f.kinds or f.status == 408,
        lambda f: ModelUnavailable(f"timed out: {f.text}", model=f.model),
    ),
    (lambda f: f.status == 503, lambda f: ModelUnavailable(f.text, model=f.model, billed=False)),
    (lambda f: (f.status or 0) >= 500, lambda f: ModelUnavailable(f.text, model=f.model)),
    (
        lambda f: "BadRequestError" in f.kinds or f.status in (400, 413, 422),
        lambda f: RequestRefused(f.text, model=f.model),
    ),
    (lambda _: True, lambda f: ModelUnavailable(f.text, model=f.model)),
)
"""The first rule that holds tells this package's error for one of litellm's."""


def translated(error: Exception, model: str, *, has_key: bool) -> ModelError:
    """Return this package's error for one of litellm's."""
    kinds = frozenset(kind.__name__ for kind in type(error).__mro__)
    # The class litellm chose may say less than the status the provider sent, which lies deepest.
    status = [s for e in _chain(error) if isinstance(s := getattr(e, "status_code", None), int)]
    failure = _Failure(error, model, _first_line(error), kinds, status[-1] if status else None, has_key)
    return next(build(failure) for holds, build in _RULES if holds(failure))


def _key_advice(failure: _Failure) -> str:
    missing = [] if failure.has_key else load().validate_environment(failure.model).get("missing_keys") or []
    if keys := [key for key in missing if not key.endswith(("_BASE", "_VERSION"))]:
        return _no_key(keys)
    return f"the key is refused: {failure.text}"


def _no_key(variables: Iterable[str]) -> str:
    return f"no key: set the environment variable {' or '.join(variables)}"


def unknown_provider(model: str) -> UnknownModel:
    """Return the error for a name that leads to no provider."""
    return UnknownModel(
        f"unknown provider {model.partition('/')[0]!r}: write provider/model, like openai/gpt-5-mini or "
        "ollama/llama3.2 (all of them: https://docs.litellm.ai/docs/providers)",
        model=model,
    )


def _retry_after(error: BaseException) -> float | None:
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None) or getattr(link, "headers", None) or {}
        try:
            return float(headers["retry-after"])
        except (KeyError, ValueError, TypeError):  # absent, or a date
            continue
    return None


_CLASS_NAMES: Final = re.compile(r"^(?:(?:litellm\.)?\w+(?:Error|Exception)(?:: | - ))+")


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return shortened(_CLASS_NAMES.sub("", text.splitlines()[0]), 300)


def _cause_line(error: BaseException) -> str:
    *_, last = _chain(error)
    return _first_line(last)
