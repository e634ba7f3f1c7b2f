"""Loading: merging, overriding, defaults and origins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import RecipeError
from align.recipe.load import BUILT_IN, find_recipe, from_yaml, load_recipe, recipe_names, resolve_tree, to_yaml
from align.recipe.schema import RECIPE_KINDS, EvaluateRecipe, RLRecipe, SFTRecipe
from tests.recipe.conftest import GRPO

Write = Callable[..., Path]


def test_a_recipe_gets_types_defaults_and_origins(write: Write) -> None:
    resolved = load_recipe(write())
    recipe = resolved.recipe
    assert isinstance(recipe, RLRecipe)
    assert recipe.train.learning_rate == 1e-4
    assert recipe.rewards[0].weight == 1.0
    assert isinstance(resolved.tree["rewards"][0]["weight"], float)
    assert resolved.text == GRPO
    assert resolved.path == Path("grpo.yaml")
    assert {
        key: resolved.origins[key] for key in ("seed", "train.steps", "rewards.0.use", "rewards.0.name", "train", "log.wandb")
    } == {
        "seed": "grpo.yaml:2",
        "train.steps": "grpo.yaml:16",
        "rewards.0.use": "grpo.yaml:13",
        "rewards.0.name": "default",
        "train": "grpo.yaml:15",
        "log.wandb": "default",
    }
    assert recipe.output_dir == "runs/grpo"
    assert resolved.origins["output_dir"] == "default"


def test_place_is_the_nearest_line_that_was_written(write: Write) -> None:
    resolved = load_recipe(write())
    assert resolved.place("train.steps") == "grpo.yaml:16"
    assert resolved.place("train.warmup_steps") == "grpo.yaml:15"
    assert resolved.place("algorithm.beta") == "grpo.yaml:1"


def test_the_kinds_of_recipes(write: Write) -> None:
    common = "model: {path: gpt2}\ndata: {train: [{path: a/b}], eval: [{path: a/b}]}\n"
    assert isinstance(load_recipe(write("recipe: sft\n" + common)).recipe, SFTRecipe)
    assert isinstance(load_recipe(write("recipe: evaluate\nrewards: [{use: math}]\n" + common)).recipe, EvaluateRecipe)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.steps=25", "train.steps", 25),
        ("train.learning_rate=1e-6", "train.learning_rate", 1e-6),
        ("rewards.0.weight=2", "rewards.0.weight", 2.0),
        ("rewards.0.use=format.think", "rewards.0.use", "format.think"),
        ("evaluate.k=[1, 2]", "evaluate.k", [1, 2]),
        ("data.train.0.seed=4", "data.train.0.seed", 4),
        ("rollout.stop=['no', \"a\\n\"]", "rollout.stop", ["no", "a\n"]),
        ("output_dir=a=b", "output_dir", "a=b"),
        ("log.wandb=null", "log.wandb", None),
        ("output_dir=${WHERE}/x", "output_dir", "there/x"),
        ("rewards.0={use: json.dumps, params: {a: {b: 1}}}", "rewards.0.params.a.b", 1),
    ],
)
def test_overrides(write: Write, override: str, key: str, value: object) -> None:
    extra = ["data.eval=[{task: chain_sum, seed: 1, size: 8}]"] if key.startswith("evaluate") else []
    resolved = load_recipe(write(), [*extra, override], {"WHERE": "there"})
    found: object = resolved.tree
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]  # type: ignore[index]
    assert found == value
    assert resolved.origins[key] == "command line"


def test_later_overrides_win_and_keep_what_they_do_not_name(write: Write) -> None:
    resolved = load_recipe(write(), ["train.steps=3", "train.steps=4", "train={epochs: 2}"])
    assert isinstance(resolved.recipe, RLRecipe)
    assert (resolved.recipe.train.steps, resolved.recipe.train.epochs) == (100, 2)  # a whole section replaces the section
    resolved = load_recipe(write(), ["rollout.top_p=0.5"])
    assert isinstance(resolved.recipe, RLRecipe)
    assert (resolved.recipe.rollout.top_p, resolved.recipe.rollout.num_generations) == (0.5, 4)


def test_an_override_may_open_a_section_that_was_null(write: Write) -> None:
    path = write(GRPO + "evaluate: null\n")
    resolved = load_recipe(path, ["evaluate.every=5", "data.eval=[{task: chain_sum, seed: 1, size: 8}]"])
    assert isinstance(resolved.recipe, RLRecipe)
    assert resolved.recipe.evaluate is not None
    assert resolved.recipe.evaluate.every == 5


def test_includes_merge_and_are_relative_to_their_file(write: Write) -> None:
    write(
        "train: {steps: 5, epochs: 2, warmup_steps: 3}\nrewards: [{use: math}, {use: format.think}]\nseed: 1\n",
        "parts/deep/base.yaml",
    )
    write("include: deep/base.yaml\ntrain: {epochs: 4}\nlog: {samples_every: 0}\n", "parts/middle.yaml")
    write("log: {tensorboard: false}\n", "other.yaml")
    resolved = load_recipe(write("include: [parts/middle.yaml, other.yaml]\n" + GRPO))
    recipe = resolved.recipe
    assert isinstance(recipe, RLRecipe)
    assert (recipe.train.steps, recipe.train.epochs, recipe.train.warmup_steps, recipe.seed) == (10, 4, 3, 7)
    assert [reward.use for reward in recipe.rewards] == ["task"]  # lists replace
    assert (recipe.log.tensorboard, recipe.log.samples_every) == (False, 0)
    assert resolved.origins["train.warmup_steps"] == "parts/deep/base.yaml:1"
    assert resolved.origins["train.epochs"] == "parts/middle.yaml:2"
    assert resolved.origins["train.steps"] == "grpo.yaml:17"


def test_null_drops_what_an_include_brought(write: Write) -> None:
    write("algorithm: {overlong: {buffer: 500}}\nmodel: {path: gpt2}\n", "base.yaml")
    with pytest.raises(RecipeError, match=r"path \(base.yaml:2\), init \(grpo.yaml:5\)"):
        load_recipe(write("include: base.yaml\n" + GRPO))
    resolved = load_recipe(write("include: base.yaml\nalgorithm: null\n" + GRPO), ["model.path=null", "algorithm={}"])
    assert isinstance(resolved.recipe, RLRecipe)
    assert resolved.recipe.algorithm.overlong is None


def test_a_variable_that_is_overridden_need_not_be_set(write: Write) -> None:
    path = write(GRPO + "output_dir: ${NOWHERE}\n")
    with pytest.raises(RecipeError, match="NOWHERE is not set"):
        load_recipe(path, environ={})
    assert load_recipe(path, ["output_dir=here"], environ={}).recipe.output_dir == "here"


def test_the_resolved_tree_stands_for_the_same_recipe(write: Write) -> None:
    resolved = load_recipe(write(), ["data.train.0.prompt_template='$${text} {prompt}'"])
    assert resolved.tree["data"]["train"][0]["prompt_template"] == "${text} {prompt}"
    assert resolve_tree(resolved.tree) == resolved.recipe
    written = to_yaml(resolved.tree)
    assert resolve_tree(from_yaml(written)) == resolved.recipe
    again = load_recipe(write(written, "resolved.yaml"))
    assert again.recipe == resolved.recipe
    assert "default" not in again.origins.values()


def test_a_changed_tree_is_refused_by_key(write: Write) -> None:
    tree = load_recipe(write()).tree
    tree["train"]["stepz"] = 3
    with pytest.raises(RecipeError, match=r"train.stepz: unknown key train.stepz") as error:
        resolve_tree(tree)
    assert error.value.fix == "did you mean `steps`?"


def test_finding_built_in_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = tmp_path / "built_in"
    (built_in / "quickstart").mkdir(parents=True)
    (built_in / "quickstart" / "grpo.yaml").write_text(GRPO)
    (built_in / "quickstart" / "_shared.yaml").write_text("")
    monkeypatch.setattr("align.recipe.load.BUILT_IN", built_in)
    monkeypatch.chdir(tmp_path)
    assert recipe_names() == ["quickstart/grpo"]
    assert find_recipe("quickstart/grpo") == find_recipe("quickstart/grpo.yaml") == built_in / "quickstart" / "grpo.yaml"
    assert load_recipe("quickstart/grpo").recipe.output_dir == "runs/grpo"
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "grpo.yaml").write_text(GRPO)
    assert find_recipe("quickstart/grpo.yaml") == Path("quickstart/grpo.yaml")  # a path wins
    with pytest.raises(RecipeError, match="did you mean quickstart/grpo"):
        find_recipe("quikstart/grpo")
    with pytest.raises(RecipeError, match="did you mean quickstart/grpo"):
        find_recipe("grpo")


@pytest.mark.usefixtures("everything_installed")
def test_every_built_in_recipe_is_valid() -> None:
    names = recipe_names()
    assert len(names) == len(set(names))
    for name in names:
        assert load_recipe(name, check_files=False).recipe.recipe in RECIPE_KINDS, name
    assert BUILT_IN.is_dir()


def test_loading_is_light(write: Write) -> None:
    """Nothing heavy is imported on the way from a file to a checked recipe, and it takes a fraction of a second."""
    program = """if True:
        import sys, time
        start = time.perf_counter()
        from align.recipe.load import load_recipe
        load_recipe(sys.argv[1])
        seconds = time.perf_counter() - start
        heavy = {"torch", "transformers", "datasets", "pyarrow", "matplotlib", "numpy"} & set(sys.modules)
        print(seconds, sorted(heavy))
    """
    command = [sys.executable, "-c", program, str(write())]
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(maxsplit=1) for _ in range(3)]
    assert all(heavy.strip() == "[]" for _, heavy in outputs)
    assert min(float(seconds) for seconds, _ in outputs) < 1.0  # 0.25 s on a quiet core
