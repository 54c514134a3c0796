"""llama.cpp's servers in this process, one for each file that is loaded."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import secrets
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentrt.errors import ModelUnavailable, UnknownModel
from agentrt.models.prefix import SlotTable

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Server:
    """Hold a loaded model; `context` is what one slot has, in tokens."""

    url: str
    key: str
    slots: int
    context: int
    handle: object
    table: SlotTable


_servers: dict[tuple[Path, int, int], Server] = {}
_servers_lock = threading.Lock()


def require_extra(name: str) -> None:
    """Raise `UnknownModel` where what llama.cpp needs is not installed."""
    if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("httpx") is None:
        raise UnknownModel("embedded models need an extra: pip install 'agentrt[local]'", model=name)


def running_server(model: str, path: Path, slots: int, context: int) -> Server:
    """Return the process's server for a file, loading it first if need be: seconds, and a worker thread's job."""
    key = (path, slots, context)
    with _servers_lock:
        if key not in _servers:
            if not _servers:
                atexit.register(_servers.clear)  # llama.cpp's threads must end before the interpreter does
            _servers[key] = _start_server(model, path, slots, context)
        return _servers[key]


def _start_server(model: str, path: Path, slots: int, context: int) -> Server:
    # OpenMP's threads spin while they wait; beside any other load that makes generation five times slower. Read once,
    # when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    xllamacpp = importlib.import_module("xllamacpp")
    key = secrets.token_hex(16)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.n_parallel = slots
    params.n_ctx = slots * context
    # One stream alone is faster on half the cores: the threads wait for each other more than they work (26 against
    # 39 tokens/s on two). Reading, and several streams, take them all.
    params.cpuparams.n_threads = max(1, _cores() // 2)
    params.cpuparams_batch.n_threads = _cores()
    params.n_threads_http = 2 * slots + 8  # draws hold a thread each; counting tokens must not wait for them
    params.cache_ram_mib = 64
    params.api_keys = [key]
    params.ui = params.endpoint_slots = False
    params.fit_params = False  # measuring the memory takes longer than loading the model
    params.slot_save_path = _scratch_folder() + os.sep
    params.verbosity = -1
    try:
        handle = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelUnavailable(
            f"llama.cpp cannot load {path}: is the file whole, and is there memory for {slots} x {context:,} tokens?",
            model=model,
            billed=False,
        ) from error
    return Server(handle.listening_address, key, slots, context, handle, SlotTable(slots))


def _scratch_folder() -> str:
    """Return a new folder for saved beginnings of prompts, 23 KB a token, that goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="agentrt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # pragma: no cover - macOS and Windows tell no process its cores


def new_client(server: Server) -> httpx.AsyncClient:
    """Return a client that speaks to a server of this process."""
    import httpx

    return httpx.AsyncClient(
        base_url=server.url,
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=None,  # the step's own deadline counts: an answer may take as long as its budget says
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=server.slots),
        trust_env=False,  # no proxy stands between a process and itself
        verify=False,  # nothing is encrypted here, and loading the certificates takes 20 ms
    )
