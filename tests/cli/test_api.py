"""The commands as Python functions of `align`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import align
from align.errors import RecipeError


def test_functions_are_there_before_and_after_their_packages_are_imported(tmp_path: Path) -> None:
    """`align.evaluate` is a package and a function; importing the one must not hide the other."""
    script = (
        "import align\n"
        "from align.errors import RecipeError\n"
        "def refused():\n"
        "    try:\n"
        "        align.evaluate()\n"
        "    except RecipeError as error:\n"
        "        assert '--model' in str(error)\n"
        "        return True\n"
        "assert refused()\n"
        "import align.evaluate.statistics\n"
        "assert refused()\n"
        "assert align.evaluate.statistics.pass_at_k(4, 1, 2) == 0.5\n"
        "import align.doctor\n"
        "assert any(finding.subject == 'python' for finding in align.doctor())\n"
        "assert 'quickstart/grpo' in align.recipes()\n"
        "assert all(callable(getattr(align, name)) for name in ('train', 'check', 'evaluate', 'score', 'export'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_evaluate_recipe_does_not_train(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"recipe: evaluate\nmodel: {{path: {model}}}\ndata: {{eval: [{{task: countdown, size: 5}}]}}\nrewards: [{{use: task}}]\n"
    )
    with pytest.raises(RecipeError, match="trains none") as caught:
        align.train(recipe)
    assert caught.value.place == f"{recipe}:1"
    assert "align evaluate" in str(caught.value.fix)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="trian"):
        align.trian  # noqa: B018


def test_dir_shows_the_public_functions() -> None:
    assert dir(align) == sorted(
        [
            "__version__",
            "audit",
            "calibrate",
            "check",
            "compare",
            "convert_samples",
            "doctor",
            "evaluate",
            "evaluate_models",
            "evaluate_pairs",
            "export",
            "power",
            "recipes",
            "regrade",
            "report",
            "score",
            "train",
        ]
    )


def test_one_text_stands_for_a_list_of_one(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"completion": "so 4", "answer": "4"}\n')
    assert align.score("exact", rows, out, params={"ignore_case": True}).rows == 1
    with pytest.raises(RecipeError, match=r"unknown key train\.stepz"):
        align.train("quickstart/sft", "train.stepz=3")
    with pytest.raises(RecipeError, match="there is no reward 'maths'"):
        align.evaluate(model="some/model", data="task:chain_sum@3", rewards="maths", k=1)


def test_a_bad_recipe_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys, align\n"
        "from align.errors import RecipeError\n"
        "bad = ['rewards.0.params={extrat: boxed}', 'rewards.0.use=json.dumpz', 'algorithm.knobs={cap: 2.0}',\n"
        "       'model.init.model_type=lama', 'model.init.config.hidden_sise=64', 'algorithm.kl=k3']\n"
        "for change in bad:\n"
        "    model = 'model={init: {}}'\n"
        "    for run in (align.train, align.check):\n"
        "        try:\n"
        "            run('quickstart/grpo', [model, change])\n"
        "        except RecipeError as error:\n"
        "            assert error.place == 'command line', error\n"
        "        else:\n"
        "            raise SystemExit(change)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_only_the_model_can_tell_has_its_line_too(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "recipe: sft\nmodel:\n  init:\n    config: {hidden_size: 64, num_attention_heads: 5}\n"
        f"data: {{train: [{{task: chain_sum, size: 8}}]}}\noutput_dir: {tmp_path / 'run'}\n"
    )
    for run in (align.train, align.check):
        with pytest.raises(RecipeError, match="not a multiple") as caught:
            run(recipe)
        assert caught.value.place == f"{recipe}:4"
    assert not (tmp_path / "run").exists()
