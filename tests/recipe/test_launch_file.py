"""`--on`: what is laid over what, where each value is from, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import align
from align.errors import RecipeError
from align.recipe.launch_file import cluster_files, find_any_file, launch_file_names
from align.recipe.load import load_recipe
from align.recipe.schema import RLRecipe
from align.recipe.validate import launch as rules

Write = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("everything_installed")
SFT = "recipe: sft\nmodel: {path: gpt2}\ndata: {train: [{task: chain_sum}]}\n"


def test_it_lies_over_the_recipe_and_under_the_overrides(write: Write) -> None:
    write("launch: {learners: 4, restarts: 0}\ntrain:\n  steps: 20\n  learning_rate: 0.5\n", "mine.yaml")
    resolved = load_recipe(write(), ["train.steps=30", "launch.restarts=1"], on="mine.yaml")
    assert isinstance(resolved.recipe, RLRecipe)
    train, launch = resolved.recipe.train, resolved.recipe.launch
    assert (train.steps, train.learning_rate, launch.learners, launch.restarts) == (30, 0.5, 4, 1)
    assert resolved.recipe.rollout.num_generations == 4  # the recipe's own
    assert resolved.origins["train.learning_rate"] == "mine.yaml:4"
    assert resolved.origins["launch.learners"] == "mine.yaml:1"
    assert resolved.origins["train.steps"] == "command line"
    assert resolved.origins["rollout.num_generations"] == "grpo.yaml:10"


@pytest.mark.parametrize("name", launch_file_names())
def test_every_built_in_file_serves_every_kind_of_recipe(write: Write, name: str) -> None:
    rl = load_recipe(write(), on=name).recipe
    assert rl.launch.learners > 1
    sft = load_recipe(write(SFT, "sft.yaml"), on=f"launch/{name}.yaml").recipe
    assert sft.launch.learners == rl.launch.learners
    assert (sft.launch.engines, sft.launch.placement) == (0, "separate")


def test_a_path_wins_and_environment_variables_are_filled_in(write: Write) -> None:
    write("launch: {learners: 3, address: null}\n", "node_8.yaml")
    assert load_recipe(write(), on="node_8.yaml").recipe.launch.learners == 3
    write("launch: {learners: '${RANKS}'}\n", "quoted.yaml")
    with pytest.raises(RecipeError, match="whole number"):
        load_recipe(write(), on="quoted.yaml", environ={"RANKS": "5"})
    write("launch:\n  learners: ${RANKS}\n", "many.yaml")
    assert load_recipe(write(), on="many.yaml", environ={"RANKS": "5"}).recipe.launch.learners == 5


@pytest.mark.parametrize(
    ("text", "said", "place", "fix"),
    [
        ("launch:\n  lerners: 2\n", "unknown key launch.lerners", "mine.yaml:2", "did you mean `learners`?"),
        ("trian: {zero_stage: 2}\n", "trian does not belong", "mine.yaml:1", "did you mean train?"),
        ("launch: {}\nmodel: {path: gpt2}\n", "model does not belong", "mine.yaml:2", "move model into the recipe"),
        ("launch:\n  learners: two\n", "must be a whole number", "mine.yaml:2", "10"),
        ("launch: [2]\n", "must be", "mine.yaml:1", "put its keys below it"),
        ("", "the launch file is empty", "mine.yaml", "begin with `launch:"),
        ("- launch\n", "a launch file is a mapping", "mine.yaml:1", "begin with `launch:"),
        ("launch: {learners: 2\n", "not valid YAML", "mine.yaml", "brackets"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(write: Write, text: str, said: str, place: str, fix: str) -> None:
    write(text, "mine.yaml")
    with pytest.raises(RecipeError) as error:
        load_recipe(write(), on="mine.yaml")
    assert said in error.value.message
    assert str(error.value.place).startswith(place)
    assert fix in str(error.value.fix)


def test_a_file_that_is_not_there(write: Write) -> None:
    with pytest.raises(RecipeError, match="no built-in launch file") as error:
        load_recipe(write(), on="node_9")
    assert "did you mean node_8?" in str(error.value.fix)
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(write(), on=".")
    with pytest.raises(RecipeError, match="no built-in file"):
        find_any_file("slurm/align.sbatsch")


def test_files_of_clusters_are_found_by_their_path() -> None:
    names = {"docker/Dockerfile", "kuberay/ray_cluster.yaml", "kuberay/ray_job.yaml", "ray_up/cluster.yaml", "slurm/align.sbatch"}
    assert names <= set(cluster_files())
    assert all(find_any_file(name).is_file() for name in [*cluster_files(), *launch_file_names()])


COLOCATED = "launch={on: ray, learners: 2, engines: 2, placement: colocated, device_memory_gib: 80}"


@pytest.mark.parametrize(
    ("overrides", "said", "fix"),
    [
        (["launch={placement: colocated, engines: 1}"], "is for Ray", "on: ray"),
        (["launch.address=auto"], "is for Ray", "remove address"),
        ([COLOCATED, "launch.engines=0", "rollout.engine=vllm"], "launch.engines is 0", "engines: 2"),
        ([COLOCATED], "only vllm can sleep", "placement: separate"),
        ([COLOCATED, "rollout={engine: vllm, vllm: {tensor_parallel_size: 2}}"], "do not find room", "engines: 1"),
        ([COLOCATED, "rollout={engine: vllm, mode: async}"], "sleep meanwhile", "mode: sync"),
    ],
)
def test_processes_that_do_not_go_together(write: Write, overrides: list[str], said: str, fix: str) -> None:
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe(write(), overrides)
    assert fix in str(error.value.fix)


def test_processes_without_work(write: Write) -> None:
    with pytest.raises(RecipeError, match="samples nothing while it trains"):
        load_recipe(write(SFT, "sft.yaml"), ["launch.engines=1"])
    with pytest.raises(RecipeError, match="has no rewards"):
        load_recipe(write(SFT, "sft.yaml"), ["launch.reward_workers=1"])


def test_ray_that_is_not_installed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "installed", lambda *names: "ray" not in names)
    with pytest.raises(RecipeError, match="not installed") as error:
        load_recipe(write(), ["launch.on=ray"])
    assert "pip install 'align[ray]'" in str(error.value.fix)


def test_colocated_engines_need_a_gpu_here_or_a_plan_for_elsewhere(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "GPU_DEVICES", ("/nowhere/nvidia0",))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = ["launch={on: ray, learners: 2, engines: 2, placement: colocated}", "rollout.engine=vllm"]
    with pytest.raises(RecipeError, match="this machine has none"):
        load_recipe(write(), here)
    load_recipe(write(), [*here, "launch.address=auto"])
    load_recipe(write(), [*here, "launch.device_memory_gib=80"])
    monkeypatch.setattr(rules, "GPU_DEVICES", ("/",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    load_recipe(write(), here)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RecipeError, match="this machine has none"):
        load_recipe(write(), here)


@pytest.mark.slow
def test_a_run_goes_where_the_file_says(write: Write) -> None:
    """Two ranks, each of which has read the launch file."""
    sizes = "{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}"
    text = (
        f"recipe: sft\noutput_dir: run\nmodel: {{init: {{config: {sizes}}}}}\ndata: {{train: [{{task: chain_sum, size: 40}}]}}\n"
    )
    write("launch: {learners: 2}\ntrain: {steps: 2, sequences_per_step: 4, max_length: 128}\n", "two.yaml")
    summary = align.train(write(text, "sft.yaml"), "log.tensorboard=false", on="two.yaml")
    assert (summary["status"], summary["steps"]) == ("done", 2)
    assert "learners: 2" in Path("run/resolved.yaml").read_text()
