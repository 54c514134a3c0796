"""The program that the sandbox's interpreter is."""

from __future__ import annotations

import os
import shlex
import shutil
import sysconfig
from pathlib import Path


def quiet_interpreter(folder: Path) -> Path | None:
    """Make a program that runs the interpreter without its stderr, which is this process's own; None where none runs.

    The interpreter writes there as it runs out of memory, and its library has no way to keep it from that.
    """
    places = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    binary = os.environ.get("MONTY_BIN") or shutil.which("monty", path=places)
    if os.name != "posix" or binary is None:
        return None
    program = folder / "monty"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(binary)} "$@" 2>/dev/null\n')
    program.chmod(0o700)
    return program if os.access(program, os.X_OK) else None  # where no file of a folder for temporary ones may run
