"""Who is on which device, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.recipe.fitting import changed, changes, engine_notes, fitting_notes
from align.recipe.load import load_recipe
from align.recipe.memory import Estimator
from align.recipe.placement import nodes_of, placement
from tests.recipe.test_memory import resolve

Write = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("everything_installed")


def seats(write: Write, gpus_per_node: int | None, *overrides: str) -> dict[tuple[int, int | None], tuple[tuple[int, ...], ...]]:
    recipe = load_recipe(write(), list(overrides)).recipe
    found = placement(recipe, gpus_per_node)
    return {(seat.node, seat.device): (seat.learners, seat.engines, seat.reward_workers) for seat in found}


VLLM = "rollout={engine: vllm, vllm: {tensor_parallel_size: 2}}"


def test_one_process_is_everything(write: Write) -> None:
    assert seats(write, None) == {(0, None): ((0,), (), ())}
    assert seats(write, 8) == {(0, 0): ((0,), (), ())}


def test_without_gpus_all_share_the_machine(write: Write) -> None:
    found = seats(write, None, "launch={learners: 2, engines: 2, reward_workers: 1}")
    assert found == {(0, None): ((0, 1), (0, 1), (0,))}


def test_separate_engines_follow_the_learners_and_stay_on_one_node(write: Write) -> None:
    found = seats(write, 4, "launch={on: ray, learners: 3, engines: 2, reward_workers: 3}", VLLM)
    assert found == {
        (0, 0): ((0,), (), ()),
        (0, 1): ((1,), (), ()),
        (0, 2): ((2,), (), ()),
        (0, None): ((), (), (0, 2)),
        (1, 0): ((), (0,), ()),  # GPU 3 of the first node is one, and an engine has two
        (1, 1): ((), (0,), ()),
        (1, 2): ((), (1,), ()),
        (1, 3): ((), (1,), ()),
        (1, None): ((), (), (1,)),
    }


def test_colocated_engines_share_the_learners_devices(write: Write) -> None:
    launch = "launch={on: ray, learners: 4, engines: 2, placement: colocated, device_memory_gib: 80}"
    found = seats(write, 2, launch, VLLM)
    assert found == {
        (0, 0): ((0,), (0,), ()), (0, 1): ((1,), (0,), ()), (1, 0): ((2,), (1,), ()), (1, 1): ((3,), (1,), ()),
    }  # fmt: skip


def test_nodes_are_counted(write: Write) -> None:
    recipe = load_recipe(write(), on="nodes_4").recipe
    assert nodes_of(placement(recipe, 8)) == 4


def test_what_a_device_of_each_kind_holds(write: Write) -> None:
    launch = "launch={on: ray, learners: 2, engines: 1, device_memory_gib: 10, gpus_per_node: 4}"
    resolved = resolve(
        write,
        launch,
        VLLM,
        "rollout.vllm.kv_cache_gib=2",
        "model.dtype=bfloat16",
        "train.zero_stage=2",
        "rollout.num_generations=8",
    )
    memory = Estimator.of(resolved, None).estimate(resolved.recipe)
    learner, engine = memory.devices
    assert [(seat.node, seat.device) for seat in learner.seats] == [(0, 0), (0, 1)]
    assert [(seat.node, seat.device) for seat in engine.seats] == [(0, 2), (0, 3)]
    count = memory.shape.sizes.all
    held = {part.name: part.bytes for part in engine.parts}
    assert held["vLLM: weights"] == count  # two bytes on two devices
    assert held["vLLM: key-value cache"] == 2 << 30
    held = {part.name: part.bytes for part in learner.parts}
    assert held["optimizer (AdamW)"] == 4 * count
    assert "vLLM: weights" not in held
    # 3 layers x keys and values x 2 heads x 16 x bfloat16 are 384 bytes a token, of which each device has the half.
    notes = list(engine_notes(memory, resolved.recipe))
    assert notes == []
    room = next(part.how for part in engine.parts if part.name == "vLLM: key-value cache")
    assert room.startswith(f"room for {(2 << 30) // (192 * 296):,} sequences of 296 tokens, up to 64")  # 40 + the usual 256


def test_every_change_that_is_advised_was_worked_out(write: Write) -> None:
    launch = "launch={on: ray, learners: 2, device_memory_gib: 0.51, gpus_per_node: 2}"
    resolved = resolve(write, launch, "algorithm.beta=0", "train.micro_batch_tokens=3200")
    estimator = Estimator.of(resolved, None)
    memory = estimator.estimate(resolved.recipe)
    assert not memory.fits
    notes = list(fitting_notes(estimator, memory))
    assert notes[0].startswith("node 0, GPU 0: about 0.5 GiB are needed and a GPU of 0.51 GiB has 0.5 GiB")
    checkpointing = next(change for change in changes(resolved.recipe) if change.key == "train.gradient_checkpointing")
    after = estimator.estimate(changed(resolved.recipe, checkpointing))
    assert after.total < memory.total
    assert any(note.startswith("train.gradient_checkpointing: true makes it") for note in notes)
    assert not any("zero_stage" in note for note in notes)  # DeepSpeed's buffers alone are more than the device has


def test_what_no_setting_mends_is_said(write: Write) -> None:
    resolved = resolve(write, "launch={device_memory_gib: 0.1}")
    estimator = Estimator.of(resolved, None)
    assert any("no setting makes it fit" in note for note in fitting_notes(estimator, estimator.estimate(resolved.recipe)))
