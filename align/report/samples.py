"""The samples of a run as compressed blocks, one for each step and evaluation, which the page opens when they are looked at.

A block has three parts: `index` (what filters need of each sample), `texts` and `tokens`. Samples of a prompt stand together.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.report.record import RunRecord
from align.run.records import read_rows
from align.run.samples import prompt_text
from align.run.tokens import NUMBERS
from align.types import Prompt

MOST_CHARACTERS = 20_000  # of a text; of longer ones the start and the end are shown
TRAINING = "training"
_LEVEL = 5  # of gzip

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFile:
    """A file of samples: the rollouts of a step, or the samples of an evaluation, after whose name `origin` is called."""

    run: int  # its number in the report
    origin: str
    step: int
    path: Path

    @property
    def name(self) -> str:
        return f"{self.run}-{self.path.stem}" if self.origin == TRAINING else f"{self.run}-{self.origin}-held-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The samples of a file; `texts` and `tokens` are gzipped JSON, `index` is JSON's plain data."""

    index: dict[str, Any]
    texts: bytes
    tokens: bytes | None


def sample_files(number: int, run: RunRecord) -> list[SampleFile]:
    """The files of a run, evaluations first."""
    evaluations = [
        SampleFile(run=number, origin=one.name, step=one.step, path=one.samples)
        for one in run.evaluations
        if one.samples is not None
    ]
    steps = sorted((run.path / "rollouts").glob("step-*.parquet"))
    return evaluations + [
        SampleFile(run=number, origin=TRAINING, step=int(path.stem.removeprefix("step-")), path=path) for path in steps
    ]


def read_block(file: SampleFile, share: float = 1.0, *, tokens: bool = True) -> Block | None:
    """The block of a file with `share` of its prompts, with or without tokens; None where it holds no samples."""
    if file.origin == TRAINING:
        rows, total, numbers = _rollouts(file.path, share, tokens)
    else:
        found = list(_evaluation_rows(file))
        chosen = _chosen([row["prompt_id"] for row in found], share)
        rows, total, numbers = [found[place] for place in chosen], len(found), None
    if not rows:
        return None
    groups = _groups([row["prompt_id"] for row in rows])
    return Block(
        index=_index(file, rows, groups, total, has_tokens=numbers is not None),
        texts=packed(_texts(rows, groups)),
        tokens=packed(numbers) if numbers is not None else None,
    )


def spread_out(items: Sequence[Any], share: float) -> list[Any]:
    """About `share` of them at even distances, at least one: which ones does not depend on what they are."""
    count = max(1, math.ceil(share * len(items))) if items else 0
    return [items[index * len(items) // count] for index in range(count)]


def packed(content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode("utf-8", "replace"), _LEVEL, mtime=0)


def _chosen(prompt_ids: Sequence[str], share: float) -> list[int]:
    """The places of the samples of `share` of the prompts, those of a prompt together."""
    places: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(prompt_ids):
        places.setdefault(prompt_id, []).append(place)
    return [place for members in spread_out(list(places.values()), share) for place in members]


def _groups(prompt_ids: Sequence[str]) -> list[tuple[int, int]]:
    """(place of the first, number) of the samples of each prompt."""
    starts = [place for place, name in enumerate(prompt_ids) if place == 0 or name != prompt_ids[place - 1]]
    return [(start, end - start) for start, end in zip(starts, [*starts[1:], len(prompt_ids)], strict=True)]


def _index(
    file: SampleFile, rows: Sequence[Row], groups: Sequence[tuple[int, int]], total: int, *, has_tokens: bool
) -> dict[str, Any]:
    names = reward_names(rows[0])
    return {
        "name": file.name,
        "run": file.run,
        "origin": file.origin,
        "step": file.step,
        "total": total,
        "groups": [size for _, size in groups],
        "sources": [rows[first]["source"] for first, _ in groups],
        "sample": [row["sample_index"] for row in rows],
        "reward": [_short(row["reward"]) for row in rows],
        "advantage": [_short(row.get("advantage")) for row in rows],
        "length": [row["completion_tokens"] for row in rows],
        "cut": [int(row["finish_reason"] == "length") for row in rows],
        "version": [row.get("weights_version") for row in rows],
        "used": [int(row.get("used_step") is not None) for row in rows],
        "tokens": [int(has_tokens and row.get("used_step") is not None) for row in rows],
        "verdicts": {name: [row.get(f"rewards/{name}/status") for row in rows] for name in names},
        "values": {name: [_short(row.get(f"rewards/{name}/value")) for row in rows] for name in names},
    }


def reward_names(row: Row) -> list[str]:
    """The rewards that a row has columns for."""
    return sorted({key.removeprefix("rewards/").rpartition("/")[0] for key in row if key.startswith("rewards/")})


def _texts(rows: Sequence[Row], groups: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {
        "ids": [rows[first]["prompt_id"] for first, _ in groups],
        "prompts": [_bounded(rows[first]["prompt"]) for first, _ in groups],
        "answers": [rows[first].get("answer") for first, _ in groups],
        "completions": [_bounded(row["completion"]) for row in rows],
        "details": {name: [_bounded(row.get(f"rewards/{name}/detail") or "") for row in rows] for name in reward_names(rows[0])},
    }


def _rollouts(path: Path, share: float, tokens: bool) -> tuple[list[dict[str, Any]], int, dict[str, Any] | None]:
    """(rows of the chosen prompts, how many rows there are, their tokens)."""
    import pyarrow.parquet as pq  # only runs with rollouts need it

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        plain = file.read([name for name in names if not name.startswith("tokens/")])
        numbered = (
            file.read([name for name in names if name.startswith("tokens/")]) if tokens and "tokens/text" in names else None
        )
    chosen = _chosen(plain.column("prompt_id").to_pylist(), share)
    return plain.take(chosen).to_pylist(), len(plain), None if numbered is None else _tokens(numbered.take(chosen))


def _tokens(table: Any) -> dict[str, Any]:
    """The text of each sample's tokens, and their numbers as whole multiples of `units`, at most a thousandth of the largest."""
    columns: dict[str, Any] = {"text": table.column("tokens/text").to_pylist()}
    units: dict[str, float] = {}
    for name in NUMBERS:
        column = table.column(f"tokens/{name}").combine_chunks()
        numbers_N = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        finite_N = np.isfinite(numbers_N)
        largest = np.abs(numbers_N[finite_N]).max(initial=0.0)
        units[name] = 10.0 ** (math.floor(math.log10(largest)) - 3) if largest else 1.0
        whole_N = np.where(finite_N, numbers_N / units[name], 0.0).round().astype(np.int64).tolist()
        known_N = [number if known else None for number, known in zip(whole_N, finite_N.tolist(), strict=True)]
        lengths = column.value_lengths().to_pylist()
        ends = np.cumsum([length or 0 for length in lengths]).tolist()
        columns[name] = [
            None if length is None else known_N[end - length : end] for length, end in zip(lengths, ends, strict=True)
        ]
    return {**columns, "units": units}


def _evaluation_rows(file: SampleFile) -> Iterator[dict[str, Any]]:
    """The rows of eval/<name>.jsonl in the form of rollouts; rows that are no samples are left out."""
    for row in read_rows(file.path):
        if "completion" not in row or "prompt_id" not in row:
            continue
        prompt = Prompt(id=row["prompt_id"], messages=tuple(row.get("messages", ())), token_ids=())
        verdicts = {
            f"rewards/{name}/{part}": verdict.get(part)
            for name, verdict in row.get("verdicts", {}).items()
            for part in ("value", "status", "detail")
        }
        yield {
            "prompt_id": row["prompt_id"],
            "source": row["source"],
            "sample_index": row["sample"],
            "prompt": prompt_text(prompt),
            "answer": None if row.get("answer") is None else str(row["answer"]),
            "completion": row["completion"],
            "completion_tokens": row["tokens"],
            "finish_reason": row["finish_reason"],
            "reward": row["reward"],
            "used_step": file.step,
            **verdicts,
        }


def _bounded(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = len(text) - MOST_CHARACTERS
    return f"{text[: MOST_CHARACTERS * 2 // 3]}\n[... {left_out:,} characters left out ...]\n{text[-MOST_CHARACTERS // 3 :]}"


def _short(number: float | None) -> float | None:
    """A number with as many digits as a reader wants; None for what is not finite."""
    if number is None or not math.isfinite(number):
        return None
    return float(f"{number:.4g}")
