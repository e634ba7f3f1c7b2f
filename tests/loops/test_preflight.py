"""What is refused before anything starts."""

import json

import pytest

from align.errors import RecipeError
from align.loops import supervised
from align.loops.preflight import preflight
from align.recipe.load import load_recipe
from tests.loops.conftest import RL, SFT, merged, write_recipe


@pytest.mark.parametrize("inside", ["", "checkpoints/step-000003"])
def test_a_run_is_not_written_over_the_model_it_starts_from(tmp_path, inside):
    supervised.train(load_recipe(write_recipe(tmp_path, SFT)))
    tree = merged(RL, {"model": None, "output_dir": str(tmp_path / "run")})
    tree["model"] = {"path": str(tmp_path / "run" / inside)}
    tree["rewards"] = [{"use": "task"}]
    file = tmp_path / "next.yaml"
    file.write_text(json.dumps(tree))
    with pytest.raises(RecipeError, match="over the model it starts from"):
        preflight(load_recipe(file), overwrite=True)
    assert (tmp_path / "run" / "checkpoints" / "step-000003" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "rl", "algorithm": {"method": "distill", "teacher": {"path": "{inside}"}}},
        {"recipe": "preference", "algorithm": {"reference": "{inside}"}, "data": {"train": [{"path": "org/pairs"}]}},
    ],
    ids=["teacher", "reference"],
)
def test_nor_over_a_teacher_or_reference(tmp_path, changes):
    base = RL if changes["recipe"] == "rl" else {"model": RL["model"]}
    inside = tmp_path / "run" / "checkpoints" / "step-000003"
    inside.mkdir(parents=True)
    (inside / "config.json").write_text("{}")
    file = write_recipe(tmp_path, base, **json.loads(json.dumps(changes).replace("{inside}", str(inside))))
    with pytest.raises(RecipeError, match="over the model it starts from"):
        preflight(load_recipe(file), overwrite=True)
