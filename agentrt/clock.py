"""The clock of a run's events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def event_clock() -> Callable[[], float]:
    """Return a function that gives seconds since the epoch; call it in the event loop, its result anywhere.

    It is the machine's clock, right even after the machine slept, unless the loop's time is not the machine's, as in
    tests in virtual time: then it is that time, counted from now on.
    """
    now = _loop_time()
    if abs(now() - time.monotonic()) < 1:
        return time.time
    began = time.time() - now()
    return lambda: began + now()


def _loop_time() -> Callable[[], float]:
    """Return the time function of the running loop, so that asking it needs no look-up; importing nothing."""
    if (asyncio := sys.modules.get("asyncio")) is not None:
        try:
            time_of_loop: Callable[[], float] = asyncio.get_running_loop().time
        except RuntimeError:  # trio runs, and something else has imported asyncio
            pass
        else:
            return time_of_loop
    time_of_trio: Callable[[], float] = sys.modules["trio"].lowlevel.current_clock().current_time
    return time_of_trio
