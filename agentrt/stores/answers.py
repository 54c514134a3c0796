"""Answers of models in an SQLite file: the cache of `Cached(model, path=…)`."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Final, TypeVar

from anyio import to_thread
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from agentrt.errors import DefinitionError
from agentrt.model import ModelResponse

T = TypeVar("T")

_BUSY_SECONDS: Final = 10.0
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, response BLOB NOT NULL) WITHOUT ROWID"
_logger = logging.getLogger("agentrt")


class SqliteAnswers:
    """Keep responses by key in an SQLite file, which is made if it does not exist; processes may share it.

    Raises `DefinitionError` if the file cannot be opened. What goes wrong later is logged, and the cache then holds
    nothing: a model can always be asked instead.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        try:
            self._do(lambda connection: connection.execute(_SCHEMA))
        except sqlite3.Error as error:
            raise DefinitionError(f"the cache {self.path} cannot be opened: {error}; choose another file") from error

    def __repr__(self) -> str:
        return f"<SqliteAnswers {str(self.path)!r}>"

    async def get(self, key: str) -> ModelResponse | None:
        return await to_thread.run_sync(self._get, key)

    async def put(self, key: str, response: ModelResponse) -> None:
        await to_thread.run_sync(self._put, key, response)

    async def aclose(self) -> None:
        """Close nothing: the file is open only while it is read or written."""

    def _get(self, key: str) -> ModelResponse | None:
        query = "SELECT response FROM answers WHERE key = ?"
        try:
            row = self._do(lambda connection: connection.execute(query, (key,)).fetchone())
            return None if row is None else _adapter().validate_json(row[0])
        except (sqlite3.Error, ValidationError):
            _logger.warning("the cache %s cannot be read; the model is asked instead", self.path, exc_info=True)
            return None

    def _put(self, key: str, response: ModelResponse) -> None:
        statement = "INSERT OR REPLACE INTO answers VALUES (?, ?)"
        try:
            row = key, _adapter().dump_json(response)
            self._do(lambda connection: connection.execute(statement, row))
        except (sqlite3.Error, PydanticSerializationError):
            _logger.warning("the cache %s cannot be written; the answer is not kept", self.path, exc_info=True)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            return work(connection)


@cache
def _adapter() -> TypeAdapter[ModelResponse]:
    return TypeAdapter(ModelResponse)
