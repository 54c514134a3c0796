"""Answers in a file: what goes wrong there costs a model call, never an answer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agentrt import DefinitionError, ModelResponse, Usage
from agentrt.messages import AssistantMessage
from agentrt.stores.answers import SqliteAnswers

pytestmark = pytest.mark.anyio
ANSWER = ModelResponse(message=AssistantMessage("a"), usage=Usage(input_tokens=1))


async def test_what_is_put_is_got(tmp_path: Path) -> None:
    """By another object of the same file, and replaced by what is put later."""
    answers = SqliteAnswers(tmp_path / "a.db")
    assert await answers.get("k") is None
    await answers.put("k", ModelResponse(message=AssistantMessage("old"), usage=Usage()))
    await answers.put("k", ANSWER)
    assert await SqliteAnswers(tmp_path / "a.db").get("k") == ANSWER


async def test_an_answer_that_cannot_be_written_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lone surrogates have no UTF-8."""
    answers = SqliteAnswers(tmp_path / "a.db")
    with caplog.at_level(logging.WARNING):
        await answers.put("k", ModelResponse(message=AssistantMessage("\ud800"), usage=Usage()))
    assert await answers.get("k") is None
    assert "not kept" in caplog.text


async def test_a_file_that_breaks_holds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The model is asked instead."""
    answers = SqliteAnswers(tmp_path / "a.db")
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with caplog.at_level(logging.WARNING):
        assert await answers.get("k") is None
        await answers.put("k", ANSWER)
    assert "asked instead" in caplog.text


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(DefinitionError, match=r"nowhere.*a\.db"):
        SqliteAnswers(tmp_path / "nowhere" / "a.db")
