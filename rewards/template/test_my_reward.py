"""What my_reward says of completions whose worth is known. Run it with `pytest test_my_reward.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import align

REWARD = f"{Path(__file__).with_name('my_reward.py')}:my_reward"


def scored(folder: Path, row: dict[str, Any], **params: Any) -> dict[str, Any]:
    """A row as `align score` writes it: with its value, status and detail."""
    data, out = folder / "completions.jsonl", folder / "scored.jsonl"
    data.write_text(json.dumps({"prompt": "?", **row}) + "\n", encoding="utf-8")
    align.score(REWARD, data, out, params=params)
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("completion", "answer", "value", "status"),
    [
        ("Six times seven:\n42", "42", 1.0, "pass"),
        ("Six times seven:\n43", "42", 0.0, "fail"),
        ("42\nor so", "42", 0.0, "fail"),
        ("Six times seven:\n", "42", 0.0, "unparsable"),
    ],
)
def test_values(tmp_path: Path, completion: str, answer: str, value: float, status: str) -> None:
    row = scored(tmp_path, {"completion": completion, "answer": answer})
    assert (row["value"], row["status"]) == (value, status), row["detail"]


def test_params(tmp_path: Path) -> None:
    row = {"completion": "paris", "answer": "Paris"}
    assert scored(tmp_path, row)["value"] == 0.0
    assert scored(tmp_path, row, ignore_case=True)["value"] == 1.0


def test_a_row_without_an_answer_is_left_out_and_no_zero(tmp_path: Path) -> None:
    assert scored(tmp_path, {"completion": "42"})["value"] is None


def test_nothing_but_the_answer_earns_it(tmp_path: Path) -> None:
    """References pass; those of other rows, constants, hostile and very long answers do not. Add rows of your own data."""
    data = tmp_path / "problems.jsonl"
    rows = [{"prompt": f"What is {n} times 7?", "answer": str(n * 7)} for n in range(20, 50)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (audit,) = align.audit(REWARD, data)
    assert audit.sound, audit
