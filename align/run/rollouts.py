"""The record of every sampled completion, one Parquet file a step."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from align.run.samples import prompt_text
from align.run.tokens import NUMBERS

if TYPE_CHECKING:
    from align.run.tokens import TokenRecord
    from align.types import Group, Prompt, Scored

_TYPES = {
    "step": pa.int64(),
    "used_step": pa.int64(),
    "prompt_id": pa.string(),
    "source": pa.string(),
    "sample_index": pa.int64(),
    "prompt": pa.string(),
    "completion": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "finish_reason": pa.string(),
    "weights_version": pa.int64(),
    "reward": pa.float64(),
    "advantage": pa.float64(),
}
_TOKEN_TYPES = {"text": pa.list_(pa.string())} | {part: pa.list_(pa.float16()) for part in NUMBERS}
_VERDICT_TYPES = {"value": pa.float64(), "status": pa.string(), "detail": pa.string()}


def encode_rollouts(
    step: int,
    groups: Sequence[Group],
    advantages_PG: Sequence[Sequence[float]],
    unused: Sequence[Group] = (),
    tokens_PG: Sequence[Sequence[TokenRecord]] | None = None,
) -> bytes:
    """One row a sample, as the bytes of a Parquet file.

    `advantages_PG` go with `groups`; `unused` are groups that were sampled but not trained on (dynamic sampling dropped
    them): their `used_step` and `advantage` are null. A missing verdict is null, and so is the reward of a masked sample.
    Each reward has the columns `rewards/<name>/value`, `/status` and `/detail`. With `tokens_PG`, which go with
    `groups` too, there are lists with a member for each token: `tokens/text`, and `tokens/<number>` of each of `tokens.NUMBERS`.
    """
    if len(advantages_PG) != len(groups):
        raise ValueError(f"{len(advantages_PG)} rows of advantages for {len(groups)} groups")
    rows = []
    kept_PG = tokens_PG if tokens_PG is not None else [[None] * len(group.samples) for group in groups]
    for group, advantages_G, kept_G in zip(groups, advantages_PG, kept_PG, strict=True):
        for sample, advantage, kept in zip(group.samples, advantages_G, kept_G, strict=True):
            row = _row(step, group.prompt, sample) | {"used_step": step, "advantage": float(advantage)}
            rows.append(row if kept is None else row | kept.columns())
    rows += [_row(step, group.prompt, sample) for group in unused for sample in group.samples]
    names = sorted({name for group in (*groups, *unused) for sample in group.samples for name in sample.verdicts})
    types = _TYPES | {f"rewards/{name}/{part}": kind for name in names for part, kind in _VERDICT_TYPES.items()}
    if tokens_PG is not None:
        types |= {f"tokens/{part}": kind for part, kind in _TOKEN_TYPES.items()}
    table = pa.table({column: pa.array([row.get(column) for row in rows], type=kind) for column, kind in types.items()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _row(step: int, prompt: Prompt, sample: Scored) -> dict[str, Any]:
    completion = sample.rollout.completion
    row: dict[str, Any] = {
        "step": step,
        "prompt_id": prompt.id,
        "source": prompt.source,
        "sample_index": completion.sample_index,
        "prompt": prompt_text(prompt),
        "completion": completion.text,
        "prompt_tokens": len(prompt.token_ids),
        "completion_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "weights_version": completion.weights_version,
        "reward": None if math.isnan(sample.reward) else sample.reward,
    }
    for name, verdict in sample.verdicts.items():
        for part in _VERDICT_TYPES:
            row[f"rewards/{name}/{part}"] = getattr(verdict, part)
    return {key: _utf8(value) if isinstance(value, str) else value for key, value in row.items()}


def _utf8(text: str) -> str:
    """JSON may carry lone surrogates, which Parquet cannot: they become question marks."""
    return text.encode("utf-8", "replace").decode()
