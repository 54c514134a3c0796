"""Groups of errors: one comes out, and all can be looked at."""

from __future__ import annotations

import pytest

from agentrt.group import errors_in, one_error

pytestmark = pytest.mark.anyio


async def test_of_several_errors_one_comes_out() -> None:
    """Nobody has to catch a group; what asks the program to exit goes first, and a user's own group stays whole."""
    mine = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(KeyboardInterrupt):
        async with one_error():
            raise BaseExceptionGroup("", [mine, KeyboardInterrupt()])
    with pytest.raises(ExceptionGroup) as error:
        async with one_error():
            raise ExceptionGroup("", [mine, KeyError()])
    assert error.value is mine


def test_all_errors_of_a_group_are_found_in_order() -> None:
    first, second, third = ValueError(), KeyError(), KeyboardInterrupt()
    group = BaseExceptionGroup("", [first, BaseExceptionGroup("", [second, third])])
    assert [*errors_in(group)] == [first, second, third]
    assert [*errors_in(first)] == [first]
