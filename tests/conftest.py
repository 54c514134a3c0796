"""What every test shares: the event loop's name, and how hard hypothesis tries."""

import os

import pytest
from hypothesis import HealthCheck, settings

_PATIENT = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile("default", max_examples=100, deadline=None, suppress_health_check=_PATIENT)
settings.register_profile("slow", max_examples=3000, deadline=None, suppress_health_check=_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
