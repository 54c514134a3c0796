"""The soak, at a size for every day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_many_steps() -> None:
    """A tenth of the soak in a process of its own: what ended leaves nothing behind."""
    script = Path(__file__).with_name("soak.py")
    done = subprocess.run([sys.executable, script, "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
