"""Accuracy of a reward model on pairs in RewardBench's format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import align
from align.errors import RecipeError, RewardError
from align.evaluate.pair_accuracy import pair_table
from tests.rewards.test_reward_model import _store

LONGER = """
def longer(completions, **columns):
    return [None if "skip" in text else float(len(text)) for text in completions]
"""


def pair(subset: str, chosen: str, rejected: str, number: int) -> dict[str, object]:
    models = {"chosen_model": "a", "rejected_model": "b", "id": number}
    return {"prompt": f"Say {number}", "chosen": chosen, "rejected": rejected, "subset": subset, **models}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """By length: mt-bench-easy 1 of 1, math-prm 1 of 2, hep-python 1/2 (a tie) of 1, donotanswer 0 of 1."""
    pairs = [
        *(pair("mt-bench-easy", "long", "no", 0), pair("math-prm", "long", "no", 1), pair("math-prm", "no", "long", 2)),
        *(pair("hep-python", "same", "size", 3), pair("donotanswer", "no", "long", 4), pair("donotanswer", "skip", "x", 5)),
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in pairs))
    return path


def test_accuracy_by_subset_and_section_by_hand(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LONGER)
    overrides = [f"rewards=[{{use: '{tmp_path / 'mine.py'}:longer'}}]", "reward_budget.max_error_rate=1.0"]
    result = align.evaluate_pairs("evaluate/reward_bench", overrides, data=rows, out=tmp_path / "out")
    assert {name: one.value for name, one in result.subsets.items()} == {
        "donotanswer": 0.0,
        "hep-python": 0.5,
        "math-prm": 0.5,
        "mt-bench-easy": 1.0,
    }
    assert (result.accuracy.value, result.errors) == (2.5 / 5, 1)
    assert result.sections == {"chat": 1.0, "safety": 0.0, "reasoning": pytest.approx((0.5 * 984 + 0.5 * 1) / 985)}
    assert result.score == pytest.approx(0.5)
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written["subsets"]["math-prm"]["value"] == 0.5
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=120).print(pair_table(result))
    assert "1 pairs without a verdict" in out.getvalue()
    assert "mean of sections 0.500" in out.getvalue()


def test_a_reward_model_is_named_like_any_model(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "stored").mkdir()
    folder = _store(tmp_path / "stored", "bradley_terry", 0, {})
    result = align.evaluate_pairs("evaluate/reward_bench", model=folder, data=rows)
    assert result.errors == 0
    assert result.accuracy.problems == 6
    assert 0 <= result.judged.metrics["ece"] <= 1


def test_pairs_and_samples_are_not_confused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="samples none"):
        align.evaluate("evaluate/reward_bench", data=rows)
    with pytest.raises(RecipeError, match="no `pairs`"):
        align.evaluate_pairs("evaluate/gsm8k", data=rows)
    (tmp_path / "mine.py").write_text("def never(completions, **columns):\n    return [None for _ in completions]\n")
    with pytest.raises(RewardError, match="no pair got a verdict"):
        align.evaluate_pairs("evaluate/reward_bench", [f"rewards=[{{use: '{tmp_path / 'mine.py'}:never'}}]"], data=rows)
