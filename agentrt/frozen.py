"""Frozen values: dataclasses that are built as fast as plain ones.

A frozen dataclass sets each field through `object.__setattr__`. For the two events of a step alone that was a third of
what the runtime does for it (callgrind: 18,300 instructions for a `StepStarted`, 8,400 this way). So a value is built
as an object of a twin class that is not frozen yet, and then becomes one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a frozen, slotted dataclass whose fields are given by keyword; for classes without `__post_init__`."""
    made: Any = dataclass(frozen=True, slots=True, kw_only=True, init=False)(cls)
    loose = {"__slots__": (), "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    twin: Any = type(cls.__name__, (made,), loose)
    made.__init__ = _builder(made, twin)
    built: type[T] = made
    return built


def _builder(made: Any, twin: Any) -> Callable[..., None]:
    """Return the `__init__` that sets the fields while the object is still one of the twin class."""
    space: dict[str, Any] = {"_become": object.__setattr__, "_made": made, "_twin": twin}
    parameters, body = ["self", "*"], ["_become(self, '__class__', _twin)"]
    for f in fields(made):
        assert f.default_factory is MISSING, "a value's defaults are values, too"
        if f.default is not MISSING:
            space[f"_{f.name}"] = f.default
        parameters.append(f.name if f.default is MISSING else f"{f.name}=_{f.name}")
        body.append(f"self.{f.name} = {f.name}")
    body.append("self.__class__ = _made")
    exec(f"def __init__({', '.join(parameters)}):\n  " + "\n  ".join(body), space)
    built: Callable[..., None] = space["__init__"]
    built.__qualname__ = f"{made.__qualname__}.__init__"
    return built
