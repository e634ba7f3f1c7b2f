"""The text of each token reads together as the completion, also where a character takes several tokens."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import pytest

from align.learner.fresh import train_tokenizer
from align.recipe.schema import ModelInit
from align.run.rollouts import encode_rollouts
from align.run.tokens import TokenRecord, TokenTexts
from align.types import Group


@pytest.mark.parametrize("text", ["so 12+3", "für 3 € 🙂 日本", "", "🙂" * 9])
def test_pieces_make_up_the_text(text: str) -> None:
    tokenizer = train_tokenizer(ModelInit().tokenizer, ["What is 1+2? so 3"])
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = TokenTexts(tokenizer).of([*ids, tokenizer.eos_token_id], text)
    assert len(pieces) == len(ids) + 1
    assert "".join(pieces[:-1]) == text
    assert pieces[-1] == tokenizer.eos_token


def test_tokens_are_columns_of_the_record_with_holes_where_nothing_was_kept(make_group: Callable[..., Group]) -> None:
    group, unused = make_group([1.0, 0.0]), make_group([0.0])
    numbers = {"difference": np.array([1e-6, np.nan]), "entropy": np.array([0.5, 1e9]), "advantage": np.array([1.0, -1.0])}
    kept = TokenRecord(text=("a\ud800", "b"), logprob=np.array([-0.5, -2.0]), **numbers)
    rows = pq.read_table(io.BytesIO(encode_rollouts(1, [group], [[0.0, 0.0]], [unused], [[kept, kept]]))).to_pylist()
    assert rows[0]["tokens/text"] == ["a?", "b"]
    assert rows[0]["tokens/logprob"] == [-0.5, -2.0]
    assert rows[0]["tokens/difference"][0] == pytest.approx(1e-6, rel=0.05)
    assert rows[0]["tokens/difference"][1] is None
    assert rows[0]["tokens/entropy"][1] == 60_000
    assert rows[2]["tokens/text"] is None
