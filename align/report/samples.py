"""The samples of a run as compressed blocks, one for each step and evaluation, which the page opens when they are looked at.

A block has three parts: `index` (what filters need of each sample), `texts` and `tokens`. Samples of a prompt stand together.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.report.record import RunRecord, StoredEvaluation
from align.run.records import read_rows
from align.run.samples import prompt_text
from align.types import Prompt

MOST_CHARACTERS = 20_000  # of a text; of longer ones the start and the end are shown
_NUMBERS = ("logprob", "difference", "entropy", "advantage")
_LEVEL = 6

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The samples of one step or evaluation; `texts` and `tokens` are gzipped JSON, `index` is JSON's plain data."""

    index: dict[str, Any]
    texts: bytes
    tokens: bytes | None

    def without_tokens(self) -> Block:
        return Block(index=self.index | {"tokens": [0] * len(self.index["tokens"])}, texts=self.texts, tokens=None)


def block_files(run: RunRecord) -> list[tuple[str, Path]]:
    """(where its samples come from, file) of each block of a run: evaluations as they are called, then training steps."""
    evaluations = [(one.name, one.samples) for one in run.evaluations if one.samples is not None]
    return [*evaluations, *(("training", file) for file in sorted((run.path / "rollouts").glob("step-*.parquet")))]


def read_block(run: int, origin: str, file: Path, evaluations: Sequence[StoredEvaluation], share: float = 1.0) -> Block | None:
    """The block of a file, with `share` of its groups; None where it holds no samples."""
    step = next((one.step for one in evaluations if one.name == origin), 0)
    rows = _rollout_rows(file) if origin == "training" else list(_evaluation_rows(file, step))
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["prompt_id"])]
    if not groups:
        return None
    return _encode(run, origin, file, spread_out(groups, share), len(rows))


def spread_out(groups: Sequence[Any], share: float) -> list[Any]:
    """About `share` of them at even distances, at least one: which ones does not depend on what they hold."""
    count = max(1, math.ceil(share * len(groups))) if groups else 0
    return [groups[index * len(groups) // count] for index in range(count)]


def _encode(run: int, origin: str, file: Path, groups: Sequence[Sequence[Row]], total: int) -> Block:
    rows = [row for group in groups for row in group]
    names = sorted({key.split("/", 1)[1].rpartition("/")[0] for row in rows for key in row if key.startswith("rewards/")})
    has_tokens = [row.get("tokens/text") is not None for row in rows]
    index = {
        "name": f"{run}-{origin if origin != 'training' else file.stem}",
        "run": run,
        "origin": origin,
        "step": rows[0]["step"],
        "total": total,
        "groups": [len(group) for group in groups],
        "sources": [group[0]["source"] for group in groups],
        "sample": [row["sample_index"] for row in rows],
        "reward": [_short(row["reward"]) for row in rows],
        "advantage": [_short(row.get("advantage")) for row in rows],
        "length": [row["completion_tokens"] for row in rows],
        "cut": [int(row["finish_reason"] == "length") for row in rows],
        "version": [row.get("weights_version") for row in rows],
        "used": [int(row.get("used_step") is not None) for row in rows],
        "tokens": [int(one) for one in has_tokens],
        "verdicts": {name: [row.get(f"rewards/{name}/status") for row in rows] for name in names},
        "values": {name: [_short(row.get(f"rewards/{name}/value")) for row in rows] for name in names},
    }
    texts = {
        "ids": [group[0]["prompt_id"] for group in groups],
        "prompts": [_bounded(group[0]["prompt"]) for group in groups],
        "answers": [group[0].get("answer") for group in groups],
        "completions": [_bounded(row["completion"]) for row in rows],
        "details": {name: [_bounded(row.get(f"rewards/{name}/detail") or "") for row in rows] for name in names},
    }
    tokens = [_tokens(row) if known else None for row, known in zip(rows, has_tokens, strict=True)]
    return Block(index=index, texts=packed(texts), tokens=packed(tokens) if any(has_tokens) else None)


def _tokens(row: Row) -> dict[str, Any]:
    return {"text": row["tokens/text"]} | {name: [_short(x, 3) for x in row[f"tokens/{name}"]] for name in _NUMBERS}


def packed(content: Any) -> bytes:
    return gzip.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"), _LEVEL, mtime=0)


def _rollout_rows(file: Path) -> list[dict[str, Any]]:
    """Samples of a prompt together, in the order of the prompts: what was not trained on stands at the end of the file."""
    import pyarrow.parquet as pq  # only runs with rollouts need it

    rows = pq.read_table(file).to_pylist()
    place: dict[str, int] = {}
    for row in rows:
        place.setdefault(row["prompt_id"], len(place))
    return sorted(rows, key=lambda row: (place[row["prompt_id"]], row["sample_index"]))


def _evaluation_rows(file: Path, step: int) -> Iterator[dict[str, Any]]:
    """The rows of eval/<name>.jsonl in the form of rollouts; rows that are no samples are left out."""
    for row in read_rows(file):
        if "completion" not in row or "prompt_id" not in row:
            continue
        prompt = Prompt(id=row["prompt_id"], messages=tuple(row.get("messages", ())), token_ids=())
        verdicts = {
            f"rewards/{name}/{part}": verdict.get(part)
            for name, verdict in row.get("verdicts", {}).items()
            for part in ("value", "status", "detail")
        }
        yield {
            "step": step,
            "prompt_id": row["prompt_id"],
            "source": row["source"],
            "sample_index": row["sample"],
            "prompt": prompt_text(prompt),
            "answer": None if row.get("answer") is None else str(row["answer"]),
            "completion": row["completion"],
            "completion_tokens": row["tokens"],
            "finish_reason": row["finish_reason"],
            "reward": row["reward"],
            "used_step": step,
            **verdicts,
        }


def _bounded(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = len(text) - MOST_CHARACTERS
    return f"{text[: MOST_CHARACTERS * 2 // 3]}\n[... {left_out:,} characters left out ...]\n{text[-MOST_CHARACTERS // 3 :]}"


def _short(number: float | None, digits: int = 4) -> float | None:
    """A number with as many digits as a reader wants; None for what is not finite."""
    if number is None or not math.isfinite(number):
        return None
    return float(f"{number:.{digits}g}")


def totals(blocks: Iterable[Block]) -> tuple[int, int]:
    """(samples shown, samples there are)."""
    pairs = [(len(block.index["sample"]), int(block.index["total"])) for block in blocks]
    return sum(shown for shown, _ in pairs), sum(total for _, total in pairs)
