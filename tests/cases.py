"""How many cases hypothesis tries of a property whose cases are dear."""

import os

from hypothesis import settings


def cases(usual: int) -> settings:
    """Try this many in everyday runs, and as many as of any other property where a profile is asked for."""
    return settings() if "HYPOTHESIS_PROFILE" in os.environ else settings(max_examples=usual)
