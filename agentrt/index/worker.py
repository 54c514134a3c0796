"""Run a parser on what is sent: the program of `confined.Parsers`. It imports nothing of agentrt, to start quickly.

It reads requests from stdin and writes replies to stdout, each as its length in eight bytes, big-endian, and JSON.
"""

from __future__ import annotations

import base64
import json
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO


def limit_memory(size: int) -> None:
    """Let this process take no more memory than `size` bytes, where the system can say so."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_frame(stream: BinaryIO) -> Any:
    """Return what was sent, None where nothing more is."""
    head = stream.read(8)
    return json.loads(stream.read(int.from_bytes(head, "big"))) if len(head) == 8 else None


def write_frame(stream: BinaryIO, value: object) -> None:
    """Write a value as JSON, its length before it."""
    data = json.dumps(value).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def reply(parsers: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Return what a parser makes of a request, or what it fails with: a parser meets whatever people find on disks."""
    name = request["parser"]
    try:
        if name not in parsers:
            parsers[name] = runpy.run_path(str(Path(__file__).with_name(f"parse_{name}.py")))["parse"]
        data = base64.b64decode(request["data"])
        return {"result": parsers[name](data, **request["options"])}
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except Exception as error:  # noqa: BLE001 - told to whoever asked, with its type
        return {"error": f"{type(error).__name__}: {error}".removesuffix(": ")}


def main() -> None:
    """Serve until stdin ends."""
    limit_memory(int(sys.argv[1]))
    warnings.simplefilter("ignore")
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no reply
    parsers: dict[str, Any] = {}
    while (request := read_frame(requests)) is not None:
        write_frame(replies, reply(parsers, request))


if __name__ == "__main__":
    main()
