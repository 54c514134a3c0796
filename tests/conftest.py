"""What every test shares: the event loop, in virtual time, an environment, and how hard hypothesis tries."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from tests.stores.postgresql import Server

pytest_plugins = ["agentrt.testing.plugin", "pytester"]

_HEEDED = re.compile(r"OTEL_\w+|PG[A-Z]+|AGENTRT_(MODEL|RECORD|STORE)|USE_LITELLM_PROXY")
"""What whoever runs the tests may have set for the package or a library that it uses."""
for name in filter(_HEEDED.fullmatch, [*os.environ]):
    del os.environ[name]
for name in ("NO_PROXY", "no_proxy"):  # servers of tests are on this machine
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))

_SEARCH = (Phase.explicit, Phase.generate)
"""A fault has only to be found, not to be shown in its smallest form."""
_PATIENT = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile("default", max_examples=100, deadline=None, suppress_health_check=_PATIENT)
settings.register_profile(
    "faults", max_examples=300, deadline=None, database=None, suppress_health_check=_PATIENT, phases=_SEARCH
)
settings.register_profile("slow", max_examples=3000, deadline=None, suppress_health_check=_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run async tests in virtual time: nothing sleeps, and what hangs under a deadline fails at once."""
    from agentrt.testing import virtual_backend

    return virtual_backend()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Run PostgreSQL while tests need it."""
    from tests.stores.postgresql import Server

    with Server() as started:
        yield started


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless `-m` names them, and keep all tests of the embedded model in one process.

    It is loaded once there, and does not compete with itself. (An `-m "not slow"` in `addopts` would be lost with
    every other `-m`.)
    """
    if "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    for item in items:
        if item.get_closest_marker("model"):
            item.add_marker(pytest.mark.xdist_group("model"))
