"""Several models side by side: paired differences, where curves cross, and what is said of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

import align
from align.errors import DataError, RecipeError
from align.evaluate.curves import compare_curves, crossing, write_plot
from align.evaluate.generate import EvaluationResult, summarize
from align.evaluate.graded import Answer, Graded
from align.evaluate.names import model_names, read_ks
from align.evaluate.table import curves_table
from align.rewards.verdict import Verdict
from align.types import Prompt

KS = [1, 2, 4, 8, 16]


def result(correct_P: Sequence[int], n: int = 16, prefix: str = "p") -> EvaluationResult:
    """Problem number i has so many correct ones of n samples."""
    problems = []
    for number, correct in enumerate(correct_P):
        verdicts = [Verdict.passed()] * correct + [Verdict.failed()] * (n - correct)
        answers = tuple(
            Answer(sample=g, text="", tokens=1, finish_reason="stop", weights_version=0, reward=v.value or 0.0, verdicts={"r": v})
            for g, v in enumerate(verdicts)
        )
        prompt = Prompt(id=f"{prefix}{number}", messages=({"role": "user", "content": "?"},), token_ids=())
        problems.append(Graded(prompt=prompt, answers=answers))
    return summarize(problems, k=KS, threshold=1.0)


def test_differences_are_paired_by_problem() -> None:
    """By hand: pass@1 of 8/16 and 0/16 against 16/16 and 0/16 is a difference of 1/2 and 0; at k = 16 there is none."""
    curves = compare_curves({"base": result([8, 0] * 20), "trained": result([16, 0] * 20)})
    found = curves.differences["trained"]
    assert found[1].value == pytest.approx(0.25)
    assert found[16].value == 0
    assert -1 <= found[1].low < 0.25 < found[1].high <= 1


def test_a_gain_that_stays_is_called_widening() -> None:
    curves = compare_curves({"base": result([4, 0, 0, 0] * 20), "trained": result([12, 8, 8, 0] * 20)})
    assert curves.sentences["trained"].startswith("trained widens: it solves more than base at k = 1")
    assert "at k = 16 (+0.500" in curves.sentences["trained"]


def test_a_gain_that_turns_into_a_loss_is_called_sharpening() -> None:
    """The base solves every problem now and then, the trained model some always and the others never."""
    curves = compare_curves({"base": result([4] * 80), "trained": result([16, 0] * 40)})
    sentence = curves.sentences["trained"]
    assert sentence.startswith("trained only sharpens")
    differences = {k: one.value for k, one in curves.differences["trained"].items()}
    at = crossing(differences)
    assert at is not None
    assert 2 < at < 4  # pass@2 of the base is 1 - (12*11)/(16*15) = 0.45, pass@4 is 0.728; the trained one stays at 0.5
    assert f"cross at about k = {at:.3g}" in sentence


def test_a_gain_that_vanishes_is_left_open() -> None:
    sentence = compare_curves({"base": result([4, 2] * 20), "trained": result([8, 12] * 20)}).sentences["trained"]
    assert "sharpens, and whether it widens is open" in sentence


def test_equal_models_are_not_told_apart() -> None:
    sentence = compare_curves({"base": result([4, 8] * 20), "trained": result([4, 8] * 20)}).sentences["trained"]
    assert "cannot be told from base at k = 1" in sentence


def test_the_crossing_is_on_the_straight_line_over_log_k() -> None:
    assert crossing({1: 0.2, 4: -0.2}) == pytest.approx(2.0)
    assert crossing({1: 0.3, 2: 0.1, 8: -0.1}) == pytest.approx(math.exp((math.log(2) + math.log(8)) / 2))
    assert crossing({1: 0.3, 2: 0.1}) is None
    assert crossing({1: -0.3, 2: -0.1}) is None


def test_other_problems_are_not_compared() -> None:
    with pytest.raises(DataError, match="other problems"):
        compare_curves({"base": result([4] * 3), "trained": result([4] * 3, prefix="q")})


def test_the_plot_and_the_table_hold_every_model(tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    curves = compare_curves({"base": result([4] * 40), "trained": result([16, 0] * 20)})
    write_plot(tmp_path / "plot.png", curves, title="curves")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    out = StringIO()
    Console(file=out, width=160).print(curves_table(curves))
    lines = out.getvalue().splitlines()
    (head,) = [line for line in lines if "trained - base" in line]
    assert head.index("base") < head.index("trained")
    assert sum("pass@" in line for line in lines) == len(KS)
    assert json.loads(json.dumps(curves.to_dict()))["differences"]["trained"]["1"]["value"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("texts", "ks"),
    [
        (["8"], [8]),
        (["8", "1"], [1, 8]),
        (["1,2,4,...,256"], [1, 2, 4, 8, 16, 32, 64, 128, 256]),
        (["1, 2, 4, ..., 100"], [1, 2, 4, 8, 16, 32, 64, 100]),
        (["2,5,...,11"], [2, 5, 8, 11]),
    ],
)
def test_lists_of_k(texts: list[str], ks: list[int]) -> None:
    assert read_ks(texts) == ks


@pytest.mark.parametrize("text", ["", "a", "0", "1,...", "...,8", "1,...,8", "4,2,...,8", "1,2,...,4,...,8", "-1"])
def test_what_is_no_list_of_k_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="names no numbers"):
        read_ks([text])


def test_models_get_short_names_that_differ() -> None:
    assert model_names(["runs/a", "Qwen/Qwen2.5-0.5B"]) == {"a": "runs/a", "Qwen2.5-0.5B": "Qwen/Qwen2.5-0.5B"}
    steps = ["runs/a/checkpoints/step-1", "runs/b/checkpoints/step-1"]
    assert list(model_names(steps)) == ["a_checkpoints_step-1", "b_checkpoints_step-1"]
    with pytest.raises(RecipeError, match="named twice"):
        model_names(["runs/a", "runs/a"])


def test_two_models_end_in_one_folder(tmp_path: Path) -> None:
    from tests.evaluate.test_store import REWARDS, make_model

    (tmp_path / "mine.py").write_text(REWARDS)
    models = [make_model(tmp_path / name, seed) for name, seed in (("base", 3), ("trained", 4))]
    curves = align.evaluate_models(
        models=models,
        data="task:chain_sum",
        rewards=f"{tmp_path / 'mine.py'}:even",
        limit=5,
        num_generations=4,
        k=[1, 4],
        max_completion_length=5,
        out=tmp_path / "out",
    )
    assert list(curves.results) == ["base", "trained"]
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written["sentences"] == dict(curves.sentences)
    for name in ("base", "trained"):
        alone = json.loads((tmp_path / "out" / name / "result.json").read_text())
        assert alone["pass_at_k"] == written["models"][name]["pass_at_k"]
    assert (tmp_path / "out" / "pass_at_k.png").exists()
