"""The forecast of a run: the bounds of its root step, and the two rules that every step and model call share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, TypedDict, Unpack

from agentrt.bounds import Bounds, bounds_of
from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, STEPS, TOKENS, TOOL_CALLS, USD, Budget
from agentrt.errors import DefinitionError, UnknownModel
from agentrt.model import Model, ModelRequest, ModelSettings, default_model, resolve_model
from agentrt.node import Node
from agentrt.span import (
    NONE,
    NOTHING,
    UNKNOWN_CALL,
    UNLIMITED,
    Amount,
    Call,
    Outlook,
    Span,
    Vector,
    repeated,
    started,
)
from agentrt.tool import as_text

Widths: TypeAlias = Mapping[str, int | tuple[int, int]]
_WIDEST: Final = 2**30
"""A window that takes a prompt of so many tokens is no window: the model does not say what it can read."""


class Assumptions(TypedDict, total=False):
    """Say what is known of a run besides its input and its budget.

    model: takes the place of every model the nodes name, as in `run`.
    widths: how many items an `each` fork into the node of that name has: the most, or a pair of least and most. A
        fork over the input itself needs none.
    """

    model: Model | str | None
    widths: Widths | None


def foresee(
    node: Node[Any, Any], input: object, budget: Budget | None = None, **assumed: Unpack[Assumptions]
) -> Bounds:
    """Return the bounds of a run of `node`; `Graph.bounds` says what they are made of."""
    widths = {name: _width(name, width) for name, width in (assumed.get("widths") or {}).items()}
    outlook = Outlook(path="", models=_models(assumed.get("model")), widths=widths, given=(input,))
    limited = outlook.under(budget)
    unlimited = replace(outlook, wraps=limited.wraps)
    free = step_span(node, unlimited)
    span = (free if limited == unlimited else step_span(node, limited)).within(budget, node.name)
    if budget is not None and budget.on_exhausted != "raise":
        free = Span(span.least, free.most, free.call)
    return bounds_of(node.name, span, free, _limits(node.budget, budget))


def _limits(*budgets: Budget | None) -> dict[str, float]:
    """Return the tightest limit of each dimension: the run's budget and its root's own hold together."""
    limits: dict[str, float] = {}
    for name, limit in (pair for budget in budgets if budget for pair in budget.limits().items()):
        limits[name] = min(limit, limits.get(name, limit))
    return limits


def _width(name: str, width: int | tuple[int, int]) -> tuple[int, int]:
    least, most = (0, width) if isinstance(width, int) else width
    if not 0 <= least <= most:
        raise DefinitionError(f"widths={{{name!r}: {width!r}}}: say the most items, or a pair of least and most")
    return least, most


def _models(override: Model | str | None) -> Callable[[Model | str | None], Model | None]:
    known: dict[str, Model | None] = {}

    def find(named: Model | str | None) -> Model | None:
        chosen = override or named or default_model()
        if not isinstance(chosen, str):
            return chosen
        if chosen not in known:
            try:
                known[chosen] = resolve_model(chosen)
            except UnknownModel:  # whoever runs it is told; what it would take nobody knows
                known[chosen] = None
        return known[chosen]

    return find


def step_span(node: Node[Any, Any], around: Outlook, counts: Sequence[int] | None = None) -> Span:
    """Return the span of one step: its start, what the node does, again for each retry, under its own budget."""
    outlook = around.below(node.name, node.budget)
    span = started(outlook.path, node.counts if counts is None else counts) + node.span(outlook)
    attempts = node.retry.attempts if node.retry is not None else 1
    return Span(span.least, repeated(span.most, attempts), span.call).within(node.budget, outlook.path)


_TOOL_COUNTS: Final = (STEPS, TOOL_CALLS)


def tools_span(tools: Sequence[Node[Any, Any]], outlook: Outlook) -> Span:
    """Return the span of an agent's tools, which it need not use.

    At most it uses the dearest first, each as often as it may be called, all within the limits around.
    """
    spans = [(step_span(tool, replace(outlook, given=None), _TOOL_COUNTS), tool) for tool in tools]
    call = Call()
    for span, _ in spans:
        call |= span.call
    return Span(NONE, _most_of_tools(spans, outlook), call)


def _most_of_tools(tools: Sequence[tuple[Span, Node[Any, Any]]], outlook: Outlook) -> Vector:
    limit = min(outlook.tool_calls, outlook.steps)
    total: list[Amount] = []
    for d in range(len(DIMENSIONS)):
        amount, left = NOTHING, limit
        for span, tool in sorted(tools, key=lambda pair: -pair[0].most[d].value):
            allowed = None if tool.budget is None else tool.budget.calls
            calls = left if allowed is None else min(left, allowed)
            if calls == UNLIMITED:
                reason = "may call its tools any number of times: limit its tool_calls"
                amount += span.most[d].endless(outlook.path, reason)
            else:
                amount += span.most[d].times(calls)
            left -= calls if left < UNLIMITED else 0
        total.append(amount)
    return tuple(total)


def wrapping_span(node: Node[Any, Any] | None, outlook: Outlook) -> Span:
    """Return the span of a graph's last node, which runs only where a budget asks to wrap up."""
    if node is None or not outlook.wraps:
        return Span()
    span = step_span(node, replace(outlook, given=None))
    return Span(NONE, repeated(span.most, outlook.wraps), span.call)


def call_span(model: Model | None, settings: ModelSettings, words: int, path: str) -> Span:
    """Return the span of one model call by the agent at `path`.

    A word of the prompt is a token at least, read from the cache if that is cheaper; an answer may be empty. At most
    the prompt fills the model's window, as far as `Model.max_output` leaves room to answer: each further token of the
    prompt may take at most one from the answer.
    """
    if model is None:
        reason = "its model cannot be found, so nobody knows what it reads and charges"
        tokens = {d: Amount(UNLIMITED, {}, {path: reason}) for d in (USD, TOKENS, INPUT, OUTPUT)}
        return _call(path, {}, tokens, UNKNOWN_CALL)
    worst = worst_call(model, settings)
    price = model.price
    rate = 0 if price is None else price.input if price.cached is None else min(price.input, price.cached)
    read = max(1, words)
    least = {INPUT: read, TOKENS: read, USD: read * rate}
    window = f"the window of {model.name} is not known: limit its tokens"
    money = f"the price of {model.name} is not known: give the model a price" if price is None else window
    most = {
        d: Amount(UNLIMITED, {}, {path: why}) if value == UNLIMITED else Amount(value, {path: value})
        for d, value, why in (
            (USD, worst.usd, money),
            (TOKENS, worst.tokens, window),
            (INPUT, worst.input_tokens, window),
            (OUTPUT, worst.output_tokens, window),
        )
    }
    return _call(path, {d: Amount(n, {path: n}) for d, n in least.items() if n}, most, worst)


def _call(path: str, least: Mapping[int, Amount], most: Mapping[int, Amount], worst: Call) -> Span:
    count = Amount(1, {path: 1})
    counts = {STEPS: count, MODEL_CALLS: count}
    low, high = {**counts, **least}, {**counts, **{d: a for d, a in most.items() if a.value}}
    dimensions = range(len(DIMENSIONS))
    return Span(tuple(low.get(d, NOTHING) for d in dimensions), tuple(high.get(d, NOTHING) for d in dimensions), worst)


def worst_call(model: Model, settings: ModelSettings) -> Call:
    """Return the most that one call may take: a full window, or infinitely much where no window is known."""
    request = ModelRequest(messages=(), settings=settings)
    prompt = _longest_prompt(model, request)
    answer = max(0, min(settings.max_tokens, model.max_output(request, 0)))
    price = model.price
    rates = (UNLIMITED, UNLIMITED) if price is None else (price.input, price.output)
    if prompt == UNLIMITED:
        rate = max(rates)
        cost = UNLIMITED if rate else 0
        return Call(usd=cost, tokens=UNLIMITED, input_tokens=UNLIMITED, output_tokens=answer, rate=rate)
    tokens = prompt + max(0, min(settings.max_tokens, model.max_output(request, int(prompt))))
    long, terse = (tokens - answer, answer), (prompt, tokens - prompt)
    cost = UNLIMITED if price is None else max(n * price.input + m * price.output for n, m in (long, terse))
    return Call(usd=cost, tokens=tokens, input_tokens=prompt, output_tokens=answer, rate=max(rates))


def _longest_prompt(model: Model, request: ModelRequest) -> float:
    """Return the most tokens that leave room for an answer, by halving; 0 if none do."""
    fits, over = 0, _WIDEST
    if model.max_output(request, over) >= 1:
        return UNLIMITED
    while over - fits > 1:
        middle = (fits + over) // 2
        fits, over = (middle, over) if model.max_output(request, middle) >= 1 else (fits, middle)
    return fits


def least_words(instructions: str, outlook: Outlook) -> int:
    """Return how many words an agent's first prompt has at least, as far as they are known."""
    return words_in(instructions) + min((words_in(as_text(value)) for value in outlook.given or ()), default=0)


def words_in(text: str) -> int:
    """Return how many tokens a text has at least: no tokenizer joins what letters or digits begin after a space."""
    return len(_WORD.findall(text))


_WORD: Final = re.compile(r"(?<!\S)\S*\w\S*")
