"""Every sample of a step is in the Parquet file, with its verdicts, its advantage and the step that used it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from align.run.rollouts import encode_rollouts
from align.run.samples import prompt_text
from align.types import Group, Prompt

MakeGroup = Callable[..., Group]


def test_a_row_for_every_sample(make_group: MakeGroup) -> None:
    used, dropped = make_group([1.0, math.nan], lengths=[2, 5], cut=[1], name="a:0"), make_group([0.0], name="a:1")
    rows = pq.read_table(io.BytesIO(encode_rollouts(4, [used], [[0.7, 0.0]], unused=[dropped]))).to_pylist()
    assert rows[0] == {
        "step": 4,
        "used_step": 4,
        "prompt_id": "a:0",
        "source": "data",
        "sample_index": 0,
        "prompt": "question a:0",
        "completion": "answer 0",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "finish_reason": "stop",
        "weights_version": 3,
        "reward": 1.0,
        "advantage": 0.7,
        "rewards/task/value": 1.0,
        "rewards/task/status": "pass",
        "rewards/task/detail": "",
    }
    masked = rows[1]
    assert (masked["reward"], masked["rewards/task/value"], masked["rewards/task/status"]) == (None, None, "error")
    assert (masked["rewards/task/detail"], masked["finish_reason"], masked["completion_tokens"]) == (
        "the judge was down",
        "length",
        5,
    )
    assert (rows[2]["prompt_id"], rows[2]["used_step"], rows[2]["advantage"], rows[2]["reward"]) == ("a:1", None, None, 0.0)
    assert len(rows) == 3


def test_a_step_without_samples_still_has_its_columns() -> None:
    table = pq.read_table(io.BytesIO(encode_rollouts(1, [], [])))
    assert table.num_rows == 0
    assert "completion" in table.column_names


def test_advantages_must_match_the_samples(make_group: MakeGroup) -> None:
    with pytest.raises(ValueError, match="1 rows of advantages for 2 groups"):
        encode_rollouts(1, [make_group([1.0]), make_group([1.0])], [[1.0]])
    with pytest.raises(ValueError, match="shorter"):
        encode_rollouts(1, [make_group([1.0, 0.0])], [[1.0]])


def test_a_lone_surrogate_does_not_stop_a_run(make_group: MakeGroup) -> None:
    table = pq.read_table(io.BytesIO(encode_rollouts(1, [make_group([1.0], name="\ud800")], [[1.0]])))
    assert table.column("prompt_id").to_pylist() == ["?"]


def test_prompts_read_as_text_or_as_a_conversation() -> None:
    single = Prompt(id="", messages=({"role": "user", "content": "2+2"},), token_ids=())
    assert prompt_text(single) == "2+2"
    several = Prompt(
        id="", messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2"}), token_ids=()
    )
    assert prompt_text(several) == "system: Be brief.\nuser: 2+2"
