"""An MCP server that behaves as its arguments say; without the SDK, so that it starts at once.

`python hostile.py MODE [FILE]`: what happens is noted in FILE, a line each.
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

MODE = sys.argv[1]
NOTES = sys.argv[2] if len(sys.argv) > 2 else os.devnull
ANY = {"type": "object", "properties": {"text": {"type": "string"}}}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LOOP = {"type": "object", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
READ = {"readOnlyHint": True}
TOOLS: dict[str, list[dict[str, Any]]] = {
    "clash": [{"name": name, "inputSchema": ANY} for name in ("a/b", "more", "a b")],
    "odd": [{"name": name, "inputSchema": ANY} for name in ("///", "a")],
    "loop": [{"name": "loop", "inputSchema": LOOP}],
    "misfit": [{"name": "echo", "inputSchema": ANY, "outputSchema": NUMBER, "annotations": READ}],
    "many": [{"name": f"t{i}", "inputSchema": ANY} for i in range(500)],
}


def note(text: str) -> None:
    with open(NOTES, "a") as notes:
        notes.write(f"{text}\n")


def times(text: str) -> int:
    with open(NOTES) as notes:
        return notes.read().split("\n").count(text)


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(request: dict[str, Any], result: dict[str, Any]) -> None:
    send({"id": request["id"], "result": result})


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], **more}


def called(request: dict[str, Any]) -> None:  # noqa: C901 - a case each
    """Answer a call of a tool, or not."""
    arguments = request["params"].get("arguments", {})
    token = request["params"].get("_meta", {}).get("progressToken")
    note("called")
    match MODE:
        case "stall":
            return
        case "clash":
            answer(request, text(request["params"]["name"]))
        case "parent" if arguments.get("text") == "stall":
            return
        case "die":
            print("out of cheese", file=sys.stderr, flush=True)
            os._exit(3)
        case "die-once" if times("called") == 1:
            os._exit(3)
        case "flood":
            while True:
                send({"method": "notifications/message", "params": {"level": "info", "data": "x" * 100}})
        case "huge":
            sys.stdout.write("x" * 20_000_000)
            sys.stdout.flush()
        case "long":
            answer(request, text("\n".join(f"line {i}" for i in range(2_000))))
        case "nonsense":
            answer(request, {"content": "no list"})
        case "misfit":
            answer(request, text("n", structuredContent={"n": "four"}))
        case "error":
            answer(request, text("no such file: x.txt", isError=True))
        case "refused":
            send({"id": request["id"], "error": {"code": -32602, "message": "no such tool"}})
        case "asks":
            send({"id": "s1", "method": "roots/list"})
            send({"id": "s2", "method": "elicitation/create", "params": {"message": "key?", "requestedSchema": NUMBER}})
            replies = [json.loads(sys.stdin.readline()) for _ in range(2)]
            answer(request, text(" | ".join(r["error"]["message"] for r in replies)))
        case "progress":
            for i in range(300):
                params = {"progressToken": token, "progress": i, "total": 300, "message": f"part {i}"}
                send({"method": "notifications/progress", "params": params})
            answer(request, text("done"))
        case "picture":
            parts = [
                {"type": "text", "text": "Here:"},
                {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "x://y", "text": "inside"}},
                {"type": "resource_link", "uri": "x://z", "name": "more"},
            ]
            answer(request, {"content": parts})
        case "garbage":
            print("Traceback (most recent call last): \x1b[31m{", flush=True)
            sys.stdout.buffer.write(b"\xff\xfe\x00\n[1, 2\n\n")
            answer(request, text(arguments.get("text", "")))
        case _:
            answer(request, text(arguments.get("text", "")))


def start() -> None:
    """Begin, or do not."""
    note("started")
    match MODE:
        case "exit":
            print("\x1b[31mno licence found\x1b[0m", file=sys.stderr, flush=True)
            sys.exit(7)
        case "deaf":  # and it leaves a child behind
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            note(f"{os.getpid()} {child.pid}")
        case "parent":
            sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
            child, apart = subprocess.Popen(sleep), subprocess.Popen(sleep, process_group=0)
            note(f"{os.getpid()} {child.pid} {apart.pid}")


def main() -> None:
    start()
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                information = {"name": "hostile/server", "version": "1"}
                capabilities = {"tools": {}}
                if MODE == "mute":
                    continue
                answer(
                    message, {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": information}
                )
            case "tools/list" if MODE == "endless":
                answer(message, {"tools": [], "nextCursor": "again"})
            case "tools/list":
                echo = {"name": "echo", "description": "Say it again.", "inputSchema": ANY}
                hints = {"annotations": READ} if MODE in ("die-once", "die") else {}
                answer(message, {"tools": TOOLS.get(MODE, [{**echo, **hints}])})
            case "tools/call":
                called(message)
            case "notifications/cancelled":
                note("cancelled")
            case method if "id" in message and method and MODE != "mute":
                send({"id": message["id"], "error": {"code": -32601, "message": "unknown"}})
    if MODE == "deaf":
        time.sleep(600)


if __name__ == "__main__":
    main()
