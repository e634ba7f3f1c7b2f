"""The recipes of real sizes: valid, within their devices' memory, and as docs/sizes.md says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from align.errors import CheckpointError
from align.learner.config import read_config
from align.recipe.fitting import engine_notes, fitting_notes, placement_notes
from align.recipe.known_models import config_or_facts
from align.recipe.load import load_recipe, recipe_names
from align.recipe.memory import Estimator, Memory
from align.recipe.method import recipe_method
from align.recipe.placement import nodes_of
from align.recipe.plan import Plan, make_plan
from align.recipe.schema import Model, RLRecipe

Write = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("everything_installed")
# Recipe, launch file, parameters, nodes, devices. The parameters are those of the models' cards.
SIZES = {
    "grpo_1.5b_lora": (None, 1_543_714_304, 1, 1),
    "grpo_7b": ("node_8", 7_615_616_512, 1, 8),
    "grpo_7b_async": ("split_4_4", 7_615_616_512, 1, 8),
    "grpo_32b": ("nodes_4", 32_763_876_352, 4, 32),
    "reward_70b": ("nodes_4", 70_553_706_496, 4, 32),
}


def local_data(write: Write) -> str:
    rows = [{"question": f"What is {i}+{i}?", "answer": f"#### {2 * i}"} for i in range(8)]
    pairs = [{"prompt": f"What is {i}+{i}?", "chosen": f"{2 * i}", "rejected": f"{2 * i + 1}"} for i in range(8)]
    write("".join(json.dumps(row | pair) + "\n" for row, pair in zip(rows, pairs, strict=True)), "rows.jsonl")
    return "data.train=[{path: rows.jsonl}]"


@cache
def memory_of(name: str) -> tuple[Memory, list[str]]:
    resolved = load_recipe(f"sizes/{name}", on=SIZES[name][0])
    method = recipe_method(resolved) if isinstance(resolved.recipe, RLRecipe) else None
    estimator = Estimator.of(resolved, method)
    memory, recipe = estimator.estimate(resolved.recipe), resolved.recipe
    notes = [*fitting_notes(estimator, memory), *engine_notes(memory, recipe), *placement_notes(memory, recipe)]
    return memory, notes


def plan_of(write: Write, name: str) -> Plan:
    return make_plan(load_recipe(f"sizes/{name}", [local_data(write)], on=SIZES[name][0]))


def test_every_recipe_of_a_size_is_looked_at() -> None:
    assert {name.removeprefix("sizes/") for name in recipe_names() if name.startswith("sizes/")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_it_fits_with_nothing_to_say_against_it(name: str) -> None:
    _, parameters, nodes, devices = SIZES[name]
    memory, notes = memory_of(name)
    sizes = memory.shape.sizes
    plain = memory.shape.plain
    head = parameters - plain if name.startswith("reward") else 0  # in place of the output head there is one for scores
    assert plain + head == parameters
    assert head in (0, 128_256 * 8192 - 2 * 8192)
    assert sizes.trained == sizes.all or "lora" in name
    assert notes == []
    assert nodes_of(memory.seats) == nodes
    assert sum(len(device.seats) for device in memory.devices) == devices


def test_a_plan_is_made_without_the_hub(write: Write) -> None:
    plan = plan_of(write, "grpo_1.5b_lora")
    assert plan.memory is not None
    assert plan.memory.known_as == "Qwen/Qwen2.5-1.5B"
    assert any("memory is that of Qwen/Qwen2.5-1.5B, whose sizes are built in" in note for note in plan.notes)
    found = {quantity.name: quantity.value for quantity in plan.quantities}
    tokens, parameters = 32 * 8 * (512 + 1024), plan.memory.shape.sizes.all
    assert found["PFLOP of sampling a step"] == pytest.approx(2 * parameters * tokens / 1e15)
    assert found["PFLOP of training a step"] == pytest.approx(8 * parameters * tokens / 1e15)


def test_facts_serve_where_there_is_no_configuration_and_never_instead_of_one(write: Write, monkeypatch) -> None:
    config, name = config_or_facts(Model(path="meta-llama/Meta-Llama-3.1-70B-Instruct"), "model.path")
    assert (config.hidden_size, config.num_hidden_layers, name) == (8192, 80, "meta-llama/Llama-3.1-70B")
    with pytest.raises(CheckpointError):
        config_or_facts(Model(path="no-such-owner/no-such-model"), "model.path")
    config.hidden_size = 64
    config.save_pretrained("Qwen/Qwen2.5-7B")
    found, name = config_or_facts(Model(path="Qwen/Qwen2.5-7B"), "model.path")
    assert (found.hidden_size, name) == (read_config(Model(path="Qwen/Qwen2.5-7B"), "model.path").hidden_size, None)


def test_the_page_has_the_numbers_of_the_plans(checkout: Path) -> None:
    """Rows of its first table: recipe, launch file, GiB of a GPU while it samples and trains, GiB of a node's host."""
    page = (checkout / "docs" / "sizes.md").read_text()
    rows = re.findall(r"^\| `sizes/([\w.]+)` \| (?:`(\w+)`|none) \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \|", page, flags=re.M)
    assert {name for name, *_ in rows} == set(SIZES)
    for name, on, sampling, training, host in rows:
        memory, _ = memory_of(name)
        assert on == (SIZES[name][0] or "")
        assert float(sampling) == pytest.approx(max(device.peak("generate") for device in memory.devices) / 2**30, abs=0.051)
        assert float(training) == pytest.approx(max(device.peak("update") for device in memory.devices) / 2**30, abs=0.051)
        start = sum(part.bytes for part in memory.host if part.held == "start")
        assert float(host.replace(",", "")) == pytest.approx(start / 2**30, abs=0.51)
