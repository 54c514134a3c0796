"""An event as a store's row: what is big in it stands apart, under its hash, so that equal content is kept once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
from pydantic_core import from_json, to_json

from agentrt.errors import JournalError
from agentrt.events import Event, QuestionAnswered, QuestionAsked, decode, encode
from agentrt.guidance import Guidance

LIMIT: Final = 256
"""Fields of an event that take more bytes than this are content."""

_JSON: Final = msgspec.json.Encoder()
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_REFERENCES: Final = msgspec.json.Decoder(dict[str, str])


class Row(NamedTuple):
    """Hold an event as it is kept.

    data: the event's JSON without its big fields. refs: a JSON object of these fields' hashes, or None. contents: what
    the hashes stand for.
    """

    data: bytes
    refs: bytes | None
    contents: tuple[tuple[bytes, bytes], ...]


class StoredRow(NamedTuple):
    """Hold an event as it is read: `seq` is its place in the run, from 1."""

    seq: int
    data: bytes
    refs: bytes | None


def digest(content: bytes) -> bytes:
    """Return the hash that content is kept under."""
    return blake2b(content, digest_size=16).digest()


def to_row(event: Event) -> Row:
    """Return the row of an event."""
    data = encode(event)
    if len(data) <= LIMIT:
        return Row(data, None, ())
    fields = _fields(data)
    big = [name for name, value in fields.items() if len(value) > LIMIT]
    if not big:
        return Row(data, None, ())
    contents = {name: bytes(fields.pop(name)) for name in big}
    refs = {name: digest(value) for name, value in contents.items()}
    named = {name: key.hex() for name, key in refs.items()}
    return Row(_JSON.encode(fields), _JSON.encode(named), tuple(zip(refs.values(), contents.values(), strict=True)))


def _fields(data: bytes) -> dict[str, msgspec.Raw]:
    """Return the JSON of each field, as it stands in the event's JSON."""
    try:
        return _FIELDS.decode(data)
    except msgspec.DecodeError:  # NaN and the infinities, which msgspec does not know
        return {name: msgspec.Raw(to_json(value, inf_nan_mode="constants")) for name, value in from_json(data).items()}


def hashes(rows: Iterable[StoredRow]) -> set[bytes]:
    """Return the hashes that rows refer to, leaving out rows that are damaged: `to_events` tells of these."""
    found = set[bytes]()
    for row in rows:
        if row.refs is not None:
            try:
                found.update(_references(row.refs).values())
            except (ValueError, TypeError):
                continue
    return found


def to_events(rows: Iterable[StoredRow], contents: Mapping[bytes, bytes], run_id: str, where: object) -> list[Event]:
    """Return the events of a run's rows; raises `JournalError` for the first that is damaged."""
    events: list[Event] = []
    for row in rows:
        try:
            events.append(decode(_whole(row, contents)))
        except (ValueError, KeyError, TypeError) as error:  # whatever may be wrong with JSON that somebody else wrote
            raise JournalError(
                f"run {run_id} in {where} holds an event that cannot be read, number {row.seq}: {_reason(error)}"
            ) from error
    return events


def guidance_of(run_id: str, events: Sequence[Event]) -> Guidance:
    """Return the guidance that a question of a run and its answer are."""
    asked, answered = events
    assert isinstance(asked, QuestionAsked)
    assert isinstance(answered, QuestionAnswered)
    return Guidance(run_id=run_id, asked=asked, answered=answered)


def _whole(row: StoredRow, contents: Mapping[bytes, bytes]) -> bytes:
    """Return the event's JSON, its content back in its place."""
    if row.refs is None:
        return row.data
    pieces = [row.data.rstrip().removesuffix(b"}")]
    for name, key in _references(row.refs).items():
        if key not in contents:
            raise ValueError(f"its {name} is missing")
        if digest(contents[key]) != key:
            raise ValueError(f"its {name} is damaged")
        pieces += [b",", msgspec.json.encode(name), b":", contents[key]]
    return b"".join([*pieces, b"}"])


def _references(refs: bytes) -> dict[str, bytes]:
    return {name: bytes.fromhex(key) for name, key in _REFERENCES.decode(refs).items()}


def _reason(error: Exception) -> str:
    return f"no event is called {error}" if isinstance(error, KeyError) else str(error)
