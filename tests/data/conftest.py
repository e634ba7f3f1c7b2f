"""A small tokenizer and a way to write data files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from align.learner.fresh import train_tokenizer
from align.recipe.schema import TokenizerInit

TEXTS = ["17+25+38+46", "17+25=42 42+38=80 80+46=126 so 126", "What is the capital of France? Paris is the capital of France."]


@pytest.fixture(scope="session")
def _trained() -> Any:
    return train_tokenizer(TokenizerInit(vocab_size=320), TEXTS)


@pytest.fixture
def tokenizer(_trained: Any) -> Any:
    """A byte-level tokenizer with a ChatML template; a test may change its template."""
    template = _trained.chat_template
    yield _trained
    _trained.chat_template = template


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Write rows (or raw lines) as JSON lines and return the path."""

    def write(rows: Sequence[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write
