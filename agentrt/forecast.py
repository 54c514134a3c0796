"""The forecast of a run: the bounds of its root step, and the two rules that every step and model call share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypedDict, Unpack

from msgspec.structs import replace

from agentrt.bounds import Bounds, bounds_of
from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, STEPS, TOKENS, TOOL_CALLS, USD, Budget, tightest
from agentrt.errors import DefinitionError, UnknownModel
from agentrt.interval import (
    NONE,
    NOTHING,
    UNKNOWN_CALL,
    UNLIMITED,
    Amount,
    Call,
    Interval,
    Outlook,
    Vector,
    endless,
    repeated,
    started,
)
from agentrt.model import Model, ModelRequest, Models, ModelSettings, Wrapper
from agentrt.node import Node
from agentrt.parts import walk
from agentrt.tool import as_text
from agentrt.usage import Price

Widths: TypeAlias = Mapping[str, int | tuple[int, int]]
_WIDEST: Final = 2**30
"""A window that takes a prompt of so many tokens is no window: the model does not say what it can read."""


class Assumptions(TypedDict, total=False):
    """Say what is known of a run besides its input and its budget.

    model: takes the place of every model the nodes name, as in `run`.
    widths: how many items an `each` fork into the node of that name has: the most, or a pair of least and most. A
        fork over the input itself needs none. Raises `DefinitionError` for a name that no such fork leads to.
    """

    model: Model | str | None
    widths: Widths | None


def foresee(
    node: Node[Any, Any], input: object, budget: Budget | None = None, **assumed: Unpack[Assumptions]
) -> Bounds:
    """Return the bounds of a run of `node`; `Graph.bounds` says what they are made of."""
    widths = {name: _width(name, width) for name, width in (assumed.get("widths") or {}).items()}
    if widths:
        _check_names(widths, {name for part, _ in walk(node, lambda n: n.notable_parts) for name in part.forks})
    outlook = Outlook(path="", models=_models(assumed.get("model")), widths=widths, given=(input,))
    limited = outlook.under(budget)
    unlimited = replace(outlook, wraps=limited.wraps)
    free = step_interval(node, unlimited)
    interval = (free if limited == unlimited else step_interval(node, limited)).within(budget, node.name)
    if budget is not None and budget.on_exhausted != "raise":
        free = Interval(interval.least, free.most, free.call)
    return bounds_of(node.name, interval, free, tightest(node.budget, budget))


def _width(name: str, width: int | tuple[int, int]) -> tuple[int, int]:
    least, most = (0, width) if isinstance(width, int) else width
    if not 0 <= least <= most:
        raise DefinitionError(f"widths={{{name!r}: {width!r}}}: say the most items, or a pair of least and most")
    return least, most


def _check_names(widths: Iterable[str], known: Collection[str]) -> None:
    """Raise `DefinitionError` for names that no `each` fork leads to: what is assumed of them would say nothing."""
    if unknown := sorted(set(widths) - set(known)):
        there = f"there are {', '.join(sorted(known))}" if known else "there is none"
        raise DefinitionError(f"widths= of {', '.join(unknown)}: no fork with each= leads there; {there}")


def _models(override: Model | str | None) -> Callable[[Model | str | None], Model | None]:
    models = Models(override)

    def find(named: Model | str | None) -> Model | None:
        try:
            return models(named)
        except UnknownModel:  # whoever runs it is told; what it would take nobody knows
            return None

    return find


def step_interval(node: Node[Any, Any], around: Outlook, counts: Sequence[int] | None = None) -> Interval:
    """Return the interval of one step: its start, what the node does, again for each retry, under its own budget."""
    outlook = around.below(node.name, node.budget)
    interval = started(outlook.path, node.counts if counts is None else counts) + node.interval(outlook)
    attempts = node.retry.attempts if node.retry is not None else 1
    return Interval(interval.least, repeated(interval.most, attempts), interval.call).within(node.budget, outlook.path)


_TOOL_COUNTS: Final = (STEPS, TOOL_CALLS)


def tools_interval(tools: Sequence[Node[Any, Any]], outlook: Outlook) -> Interval:
    """Return the interval of an agent's tools, which it need not use.

    At most it uses the dearest first, each as often as it may be called, all within the limits around.
    """
    intervals = [(step_interval(tool, replace(outlook, given=None), _TOOL_COUNTS), tool) for tool in tools]
    call = Call()
    for interval, _ in intervals:
        call |= interval.call
    return Interval(NONE, _most_of_tools(intervals, outlook), call)


def _most_of_tools(tools: Sequence[tuple[Interval, Node[Any, Any]]], outlook: Outlook) -> Vector:
    limit = min(outlook.tool_calls, outlook.steps)
    total: list[Amount] = []
    for d in range(len(DIMENSIONS)):
        amount, left = NOTHING, limit
        for interval, tool in sorted(tools, key=lambda pair: -pair[0].most[d].value):
            allowed = None if tool.budget is None else tool.budget.calls
            calls = left if allowed is None else min(left, allowed)
            if calls == UNLIMITED:
                reason = "may call its tools any number of times: limit its tool_calls"
                amount += interval.most[d].endless(outlook.path, reason)
            else:
                amount += interval.most[d].times(calls)
            left -= calls if left < UNLIMITED else 0
        total.append(amount)
    return tuple(total)


def wrapping_interval(node: Node[Any, Any] | None, outlook: Outlook) -> Interval:
    """Return the interval of a graph's last node, which runs only where a budget asks to wrap up."""
    if node is None or not outlook.wraps:
        return Interval()
    interval = step_interval(node, replace(outlook, given=None))
    return Interval(NONE, repeated(interval.most, outlook.wraps), interval.call)


def turn_interval(model: Model | None, settings: ModelSettings, words: int, path: str) -> Interval:
    """Return the interval of one step in which the agent at `path` asks its model."""
    return started(path, (STEPS,)) + call_interval(model, settings, words, path)


def call_interval(model: Model | None, settings: ModelSettings, words: int, path: str) -> Interval:
    """Return the interval of one answer.

    A word of the prompt is a token at least, at the lowest price; an answer may be empty. At most the prompt fills
    the model's window, as far as `Model.max_output` leaves room to answer: each further token of the prompt may take
    at most one from the answer. A wrapper asks the models within.
    """
    if model is None:
        return _unknown_interval(path, "has a model that cannot be found, so nobody knows what it reads and charges")
    if isinstance(model, Wrapper):
        return _wrapped_interval(model, settings, words, path)
    worst, price = worst_call(model, settings), model.price
    read = max(1, words)
    least = {MODEL_CALLS: 1, INPUT: read, TOKENS: read, USD: 0 if price is None else lowest_cost(price, read)}
    window = f"asks {model.name}, whose window is not known: limit its tokens"
    money = f"asks {model.name}, whose price is not known: give it one" if price is None else window
    most = {
        MODEL_CALLS: _amount(path, 1, ""),
        USD: _amount(path, worst.usd, money),
        TOKENS: _amount(path, worst.tokens, window),
        INPUT: _amount(path, worst.input_tokens, window),
        OUTPUT: _amount(path, worst.output_tokens, window),
    }
    return Interval(_vector({d: _amount(path, n, "") for d, n in least.items()}), _vector(most), worst)


def reading_interval(name: str, price: Price | None, window: int, path: str) -> Interval:
    """Return the interval of one call that reads a text and writes none, or of an answer that was known already."""
    money = f"asks {name}, whose price is not known: give it one"
    cost = UNLIMITED if price is None else price.request + window * Price.highest([price]).input
    amounts = {MODEL_CALLS: 1, USD: cost, TOKENS: window, INPUT: window}
    most = _vector({d: _amount(path, n, money) for d, n in amounts.items()})
    rate = UNLIMITED if price is None or price.request else Price.highest([price]).input
    return Interval(NONE, most, Call(usd=cost, tokens=window, input_tokens=window, rate=rate, a_step=1))


def _unknown_interval(path: str, reason: str) -> Interval:
    """Return the interval of an answer of which only the one call is known."""
    endless = {d: _amount(path, UNLIMITED, reason) for d in (USD, TOKENS, INPUT, OUTPUT)}
    return Interval(NONE, _vector({**endless, MODEL_CALLS: _amount(path, 1, "")}), replace(UNKNOWN_CALL, a_step=1))


def _wrapped_interval(model: Wrapper, settings: ModelSettings, words: int, path: str) -> Interval:
    """Return the interval of an answer for which a wrapper asks one of the models within, or all, or none."""
    intervals = [call_interval(asked, settings, words, path) for asked in model.asked]
    once = sum(intervals, Interval())
    ways = zip(*(s.least for s in intervals), strict=True)
    least = NONE if model.spares else tuple(min(amounts, key=lambda a: a.value) for amounts in ways)
    if model.attempts is None:
        most = endless(once.most, path, f"asks {model.name} through a wrapper that does not say how often: attempts=")
        return Interval(least, most, replace(once.call, a_step=UNLIMITED))
    a_step = model.attempts * sum(s.call.a_step for s in intervals)
    return Interval(least, repeated(once.most, model.attempts), replace(once.call, a_step=a_step))


def _amount(path: str, value: float, reason: str) -> Amount:
    if value == UNLIMITED:
        return Amount(UNLIMITED, {}, {path: reason})
    return Amount(value, {path: value}) if value else NOTHING


def _vector(amounts: Mapping[int, Amount]) -> Vector:
    return tuple(amounts.get(d, NOTHING) for d in range(len(DIMENSIONS)))


def lowest_cost(price: Price, tokens: int) -> int:
    """Return the least that a prompt of so many tokens, or more, costs at any tier, from the cache or not."""
    rates = [r for t in price.tiers for r in (t.input, t.cached, t.cache_write) if r is not None]
    return min(t.request for t in price.tiers) + tokens * min(rates)


def worst_call(model: Model, settings: ModelSettings) -> Call:
    """Return the most that one call may take: a full window, or infinitely much where no window is known."""
    request = ModelRequest(messages=(), settings=settings)
    prompt = _longest_prompt(model, request)
    answer = max(0, min(settings.max_tokens, model.max_output(request, 0)))
    price = None if model.price is None else Price.highest([model.price])
    dearest: float = UNLIMITED if price is None else max(price.input, price.output)
    rate = UNLIMITED if price is None or price.request else dearest
    if prompt == UNLIMITED:
        cost = UNLIMITED if rate else 0
        return Call(usd=cost, tokens=prompt, input_tokens=prompt, output_tokens=answer, rate=rate, a_step=1)
    tokens = prompt + max(0, min(settings.max_tokens, model.max_output(request, int(prompt))))
    ways = ((tokens - answer, answer), (prompt, tokens - prompt))  # a long answer, or a long prompt
    costs = [UNLIMITED if price is None else price.request + n * price.input + m * price.output for n, m in ways]
    return Call(usd=max(costs), tokens=tokens, input_tokens=prompt, output_tokens=answer, rate=rate, a_step=1)


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
