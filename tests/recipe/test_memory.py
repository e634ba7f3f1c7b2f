"""Memory estimates against numbers by hand and against tensors that exist."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.errors import CheckpointError, RecipeError
from align.recipe import hardware as hardware_module
from align.recipe.fitting import fitting_notes
from align.recipe.load import Resolved, load_recipe
from align.recipe.loading_memory import loaded_part
from align.recipe.memory import Estimator, Memory, estimate_memory
from align.recipe.method import recipe_method
from align.recipe.schema import RLRecipe

Write = Callable[..., Path]
CONFIG = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160,
    "max_position_embeddings": 512,
}  # fmt: skip


def resolve(write: Write, *overrides: str, kind: str = "llama") -> Resolved:
    model = json.dumps({"model_type": kind, "config": CONFIG, "tokenizer": {"vocab_size": 300}})
    sizes = ["data.max_prompt_length=40", "rollout.max_completion_length=60", "train.micro_batch_tokens=800"]
    return load_recipe(write(), [f"model={{init: {model}}}", *sizes, *overrides])


def resolve_adapters(write: Write) -> Resolved:
    AutoConfig.for_model("llama", vocab_size=300, **CONFIG).save_pretrained("base")
    return load_recipe(write(), ["model={path: ./base, lora: {r: 4}}"])


def estimate(resolved: Resolved) -> Memory:
    method = recipe_method(resolved) if isinstance(resolved.recipe, RLRecipe) else None
    return estimate_memory(resolved, method)


def parts(memory: Memory) -> dict[str, int]:
    return {part.name: part.bytes for part in memory.first.parts}


def real_model(kind: str = "llama") -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=300, **CONFIG), dtype=torch.float32)


def test_what_is_held_by_hand(write: Write) -> None:
    memory = estimate(resolve(write))
    count = sum(parameter.numel() for parameter in real_model().parameters())
    found = parts(memory)
    assert found["sampler"] == 4 * 32 * 300 * 4  # copies, sequences, vocabulary, float32
    assert (memory.shape.sizes.all, memory.shape.sizes.trained, memory.shape.positions) == (count, count, 512)
    assert found["weights"] == found["reference model"] == found["gradients"] == 4 * count
    assert found["optimizer (AdamW)"] == 8 * count
    assert found["key-value cache"] == 32 * 100 * (
        3 * 2 * 2 * 16 * 4
    )  # sequences, tokens, layers x (k, v) x heads x size x float32
    assert found["logits"] == 4 * 4 * 8 * 100 * 300  # at most the micro-batch, of 8 x 100 tokens
    always = found["weights"] + found["reference model"] + found["optimizer (AdamW)"]
    own = next(value for name, value in found.items() if name in ("Python and libraries", "CUDA context"))
    assert memory.first.peak("generate") == own + always + found["key-value cache"] + found["sampler"]
    assert memory.first.peak("update") == own + always + found["gradients"] + found["activations"] + found["logits"]
    assert memory.total == max(memory.first.peak("generate"), memory.first.peak("update"))


def test_the_larger_of_rollouts_and_evaluations_counts(write: Write) -> None:
    problems = "data.eval=[{task: chain_sum, seed: 1, size: 8}]"
    rollouts = parts(estimate(resolve(write)))
    longer = parts(estimate(resolve(write, problems, "evaluate={max_completion_length: 160, max_problems: 5}")))
    assert longer["key-value cache"] == 5 * 8 * 200 * (3 * 2 * 2 * 16 * 4)
    fewer = parts(estimate(resolve(write, problems, "evaluate={max_problems: 2}")))
    assert fewer["key-value cache"] == rollouts["key-value cache"]
    filtered = parts(estimate(resolve(write, "rollout.top_p=0.9")))
    assert filtered["sampler"] == 2 * rollouts["sampler"]


def test_the_process_is_measured_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    known = hardware_module.resident()
    monkeypatch.setattr(hardware_module, "STATM", "/nowhere/statm")
    assert known / 2 < hardware_module.resident() < 4 * known


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_a_teacher_is_held_as_well(write: Write, dtype: str, width: int) -> None:
    AutoConfig.for_model("llama", vocab_size=300, **{**CONFIG, "num_hidden_layers": 5}).save_pretrained("teacher")
    found = parts(estimate(resolve(write, f"algorithm.teacher={{path: ./teacher, dtype: {dtype}}}")))
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160 + 2 * 64  # queries and outputs, keys and values, the MLP, two norms
    assert found["teacher"] == width * (5 * layer + 2 * 300 * 64 + 64)


def test_models_that_are_only_asked_are_divided_with_the_weights(write: Write) -> None:
    AutoConfig.for_model("llama", vocab_size=3000, **CONFIG).save_pretrained("teacher")
    layers = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160 + 2 * 64) + 64
    whole, size = {}, {}
    for stage in (2, 3):
        more = [f"train.zero_stage={stage}", "launch.learners=4", "algorithm.teacher={path: ./teacher, dtype: bfloat16}"]
        memory = estimate(resolve(write, *more))
        whole[stage], size[stage] = parts(memory), memory.shape.sizes.all
    assert whole[2]["reference model"] == 4 * size[2]
    assert whole[2]["teacher"] == 2 * (layers + 2 * 3000 * 64)
    assert whole[3]["reference model"] == whole[3]["weights"] == 4 * (size[3] // 4 + size[3])  # small ones stay whole
    assert whole[3]["teacher"] == 2 * ((layers + 2 * 3000 * 64) // 4 + layers)  # but for the embedding and the output head


def test_a_host_holds_what_its_learners_load(write: Write) -> None:
    """By hand, for 16 learners on two nodes: whole models, one tensor, what is drawn, and experts that are put together."""
    AutoConfig.for_model("llama", vocab_size=300, **CONFIG).save_pretrained("dense")
    size = sum(parameter.numel() for parameter in real_model().parameters())
    where = ["launch={on: ray, learners: 16, gpus_per_node: 8, device_memory_gib: 80}"]

    def host(stage: int, held: str = "start", *, drawn: bool = False) -> int:
        overrides = [*where, f"train.zero_stage={stage}"]
        resolved = resolve(write, *overrides) if drawn else load_recipe(write(), ["model={path: ./dense}", *overrides])
        return sum(part.bytes for part in estimate(resolved).host if part.held == held)

    assert host(0) == host(2) == 8 * 4 * size
    assert host(3) == 4 * 300 * 64  # the embedding
    assert host(3, drawn=True) == 4 * size
    assert (host(0, "save"), host(3, "save")) == (0, 8 * size)
    resolved = load_recipe(write(), ["model={path: ./dense}", *where, "train.zero_stage=3"])
    part = loaded_part(resolved.recipe, estimate(resolved).shape, AutoConfig.for_model("mixtral"), ranks=8)
    assert part.bytes == 8 * 2 * size


def test_there_is_a_reference_only_where_a_kl_term_wants_one(write: Write) -> None:
    assert "reference model" not in parts(estimate(resolve(write, "algorithm.beta=0")))
    assert "reference model" not in parts(estimate(resolve(write, "algorithm.method=dapo")))
    assert "reference model" not in parts(estimate(resolve_adapters(write)))


def test_a_critic_counts_with_its_optimizer(write: Write) -> None:
    memory = estimate(resolve(write, "algorithm.method=ppo"))
    found, layers = parts(memory), memory.shape.sizes.all - 300 * 64  # without the output head
    assert found["critic"] == 4 * (layers + 64 + 1)
    assert found["critic's optimizer"] == 2 * found["critic"]
    assert "critic's gradients" not in found  # made when those of the policy, which are more, are freed
    shared = parts(estimate(resolve(write, "algorithm={method: ppo, critic: {trunk: shared}}")))
    assert shared["value head"] == 4 * 4 * 65
    assert "critic" not in shared


def test_the_critic_of_adapters_is_a_whole_model(write: Write) -> None:
    resolve_adapters(write)
    memory = estimate(load_recipe("grpo.yaml", ["model={path: ./base, lora: {r: 4}}", "algorithm.method=ppo"]))
    found = parts(memory)
    assert found["critic's gradients"] == found["critic"] - found["gradients"]
    AutoConfig.for_model("llama", vocab_size=300, **CONFIG | {"hidden_size": 128}).save_pretrained("larger")
    other = ["model={path: ./base, lora: {r: 4}}", "algorithm={method: ppo, critic: {path: ./larger, frozen: true}}"]
    larger = parts(estimate(load_recipe("grpo.yaml", other)))
    assert larger["critic"] > found["critic"]
    assert not {"critic's optimizer", "critic's gradients"} & larger.keys()


def test_an_architecture_without_value_models_is_refused(write: Write) -> None:
    with pytest.raises(RecipeError, match="no value model"):
        estimate(resolve(write, "algorithm.method=ppo", kind="cohere"))


def test_adapters(write: Write) -> None:
    memory = estimate(resolve_adapters(write))
    attention, mlp = (64 + 64) * 2 + (64 + 32) * 2, (64 + 160) * 3  # inputs + outputs of q, o; k, v; gate, up, down
    assert memory.shape.sizes.trained == 4 * 3 * (attention + mlp)
    assert parts(memory)["gradients"] == 4 * memory.shape.sizes.trained
    assert parts(memory)["weights"] == 4 * memory.shape.sizes.all > 4 * (memory.shape.sizes.all - memory.shape.sizes.trained)


def kept_by_autograd(model: Any, rows: int, width: int, dtype: str) -> int:
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids, positions = torch.zeros(rows, width, dtype=torch.int64), torch.arange(width).expand(rows, width)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        model.train().get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_those_of_a_real_forward_pass(write: Write, kind: str, dtype: str) -> None:
    estimated = parts(estimate(resolve(write, f"model.dtype={dtype}", kind=kind)))["activations"]
    kept = kept_by_autograd(real_model(kind), 8, 100, dtype)
    assert kept < estimated < 1.2 * kept


def test_gradient_checkpointing_keeps_one_layer_and_the_borders(write: Write) -> None:
    whole = parts(estimate(resolve(write)))["activations"]
    checkpointed = parts(estimate(resolve(write, "train.gradient_checkpointing=true")))["activations"]
    assert whole / 3 < checkpointed < whole / 3 + 8 * 100 * 64 * 4 * 6  # a third, and a few hidden states


def test_a_large_model_is_not_allocated(write: Write, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "qwen2", hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        vocab_size=151936, tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "qwen")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resolved = load_recipe(write(), ["model={path: ./qwen, dtype: bfloat16}", "rollout.max_completion_length=512"])
    memory = estimate(resolved)
    assert memory.shape.sizes.all == 1_543_714_304
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 500e6  # the weights alone are 6.2 GB
    if not memory.fits:
        estimator = Estimator.of(resolved, recipe_method(resolved))
        assert any("GiB are needed" in note for note in fitting_notes(estimator, memory))


@pytest.mark.parametrize(
    ("override", "said", "fix"),
    [
        ("model.init.config.hidden_sise=64", "has no 'hidden_sise'", "did you mean hidden_size?"),
        ("model.init.config.num_attention_heads=5", "not a multiple", "sizes that divide"),
        ("model.init.model_type=lama", "no model type 'lama'", "llama"),
        ("model.init.config.hidden_size=wide", "llama", "LlamaConfig"),
        ("model.init.config.num_key_value_heads=3", "not a multiple", "sizes that divide"),
    ],
)
def test_a_configuration_that_makes_no_model(write: Write, override: str, said: str, fix: str) -> None:
    with pytest.raises(RecipeError) as error:
        estimate(resolve(write, override))
    assert said in error.value.message
    assert fix in str(error.value.fix)
    assert error.value.place == "command line"


def test_a_broken_configuration_file(write: Write) -> None:
    write("{", "model/config.json")
    with pytest.raises(CheckpointError, match="no configuration of"):
        estimate(load_recipe(write(), ["model={path: ./model}"]))
