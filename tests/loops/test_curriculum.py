"""A curriculum in whole runs: the steps report how easy their prompts were, and a resumed run goes on in the same order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import align
from align.errors import DataError, RecipeError
from tests.loops.conftest import RL, SFT, kept, write_recipe

STEPS = 6


@pytest.fixture
def rated(tmp_path: Path) -> str:
    """36 sums; the larger, the harder."""
    rows = [{"prompt": f"{n}+{n}", "completion": f"so {2 * n}", "answer": str(2 * n), "pass_rate": 1 - n / 35} for n in range(36)]
    file = tmp_path / "rated.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def rates(run: dict[str, Any] | Path) -> list[float]:
    return [row["curriculum/pass_rate"] for row in kept(Path(str(run))) if "curriculum/pass_rate" in row]


@pytest.mark.parametrize(("base", "size"), [(RL, "prompts_per_step"), (SFT, "sequences_per_step")])
@pytest.mark.parametrize("order", ["easy_to_hard", "hard_to_easy"])
def test_steps_become_harder_or_easier(tmp_path: Path, rated: str, base: dict[str, Any], size: str, order: str) -> None:
    data = {"train": [{"path": rated}], "curriculum": {"order": order}}
    recipe = write_recipe(tmp_path, base, data=data | ({"eval": []}), train={"steps": STEPS, size: 6})
    align.train(recipe)
    seen = rates(tmp_path / "run")
    assert len(seen) == STEPS
    assert seen == sorted(seen, reverse=order == "easy_to_hard")
    assert sum(seen) / STEPS == pytest.approx(0.5)  # one pass: every row once


def test_an_interrupted_run_goes_on_in_the_same_order(tmp_path: Path, rated: str) -> None:
    data = {"train": [{"path": rated}], "eval": [], "curriculum": {"order": "easy_to_hard", "band": [0.1, 0.9]}}
    runs = []
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        (tmp_path / name).mkdir()
        for number, stop in enumerate(stops):
            changes = {"steps": stop, "prompts_per_step": 4, "save_steps": 2}
            recipe = write_recipe(tmp_path / name, RL, data=data, train=changes)
            align.train(recipe, resume=number > 0, allow_changes=number > 0)
        runs.append(rates(tmp_path / name / "run"))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 4


def test_changed_rates_are_noticed_when_resuming(tmp_path: Path, rated: str) -> None:
    data = {"train": [{"path": rated}], "eval": [], "curriculum": {"order": "middle"}}
    recipe = write_recipe(tmp_path, RL, data=data, train={"steps": 1, "prompts_per_step": 2, "save_steps": 1})
    align.train(recipe)
    rows = [json.loads(line) for line in Path(rated).read_text().splitlines()]
    rows[3]["pass_rate"] = 0.0
    Path(rated).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="curriculum was"):
        align.train(recipe, ["train.steps=2"], resume=True, allow_changes=True)


def test_rows_without_rates_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RL, data={"curriculum": {"order": "middle"}}, model={"init": None, "path": "nowhere/nothing"})
    with pytest.raises(DataError, match=r"pass_rate(.|\n)*align data difficulty"):
        align.train(recipe)


@pytest.mark.parametrize(
    ("base", "data", "words"),
    [
        (RL, {"curriculum": {}}, "neither an order nor a band"),
        (RL, {"curriculum": {"band": [0.8, 0.2]}}, r"band: 0.8 is above 0.2(.|\n)*\[0.2, 0.8\]"),
        (RL, {"curriculum": {"band": [0.8]}}, "band"),
        (RL, {"curriculum": {"order": "random"}}, "order"),
        (RL, {"curriculum": {"order": "middle", "by": " "}}, "by is empty"),
        (SFT, {"curriculum": {"order": "middle"}, "shuffle": False}, "data.shuffle: false keeps the order"),
        (
            SFT | {"recipe": "preference"},
            {"train": [{"path": "pairs.jsonl"}], "curriculum": {"order": "middle"}},
            "not for recipe: preference",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, base: dict[str, Any], data: dict[str, Any], words: str) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    train: dict[str, Any] = {"train": {}} if base["recipe"] == "preference" else {}
    if base["recipe"] == "preference":
        base = {key: value for key, value in base.items() if key != "train"}
    with pytest.raises(RecipeError, match=words):
        align.check(write_recipe(tmp_path, base, data=data, **train))


def test_check_notes_that_a_short_run_never_meets_the_hard_rows(tmp_path: Path, rated: str) -> None:
    data = {"train": [{"path": rated}], "eval": [], "curriculum": {"order": "easy_to_hard"}}
    short, long = (
        align.check(write_recipe(tmp_path, RL, data=data, train={"steps": steps, "prompts_per_step": 6})).notes
        for steps in (5, 6)
    )
    assert [note for note in short if "5 steps draw 30 of 36 rows" in note]
    assert not [note for note in long if "data.curriculum" in note]
