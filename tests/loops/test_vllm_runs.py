"""Whole runs whose samples vLLM writes, and the parity check that finds each way in which it could be another model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from align.errors import RolloutError
from align.learner.fresh import build_model, train_tokenizer
from align.loops import rl
from align.recipe.schema import ModelInit
from tests.loops.conftest import MODEL, RL, kept, merged

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
HEADS_OF_32 = merged(MODEL, {"init": {"config": {"hidden_size": 64}}})
VLLM = {"engine": "vllm", "vllm": {"kv_cache_gib": 0.06}, "parity_every": 1}


@pytest.fixture
def run(resolved: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Train for three steps, which are large, the whole model or adapters of a stored one; the run's folder."""

    def train(lora: bool = False, **changes: Any) -> Path:
        base = merged({**RL, "model": {} if lora else HEADS_OF_32}, {"rollout": VLLM, "train": {"learning_rate": 1e-2}})
        if lora:
            init = ModelInit(**HEADS_OF_32["init"])
            tokenizer = train_tokenizer(init.tokenizer, ["What is 1+2?", "23+45-17=0896"])
            build_model(init, tokenizer, 0).save_pretrained(tmp_path / "base")
            tokenizer.save_pretrained(tmp_path / "base")
            base["model"] = {"path": str(tmp_path / "base"), "lora": {"r": 4, "alpha": 64}}
        recipe = resolved(base, **changes)
        assert rl.train(recipe)["status"] == "done"
        return Path(recipe.recipe.output_dir)

    return train


@pytest.mark.parametrize("lora", [False, True])
def test_every_step_samples_from_the_weights_of_the_one_before(run: Callable[..., Path], lora: bool) -> None:
    folder = run(lora=lora)
    rows = [row for row in kept(folder) if "reward" in row]
    assert [row["parity/mean"] < 1e-3 for row in rows] == [True] * 3
    files = sorted((folder / "rollouts").glob("*.parquet"))
    versions = [{sample["weights_version"] for sample in pq.read_table(file).to_pylist()} for file in files]
    assert versions == [{0}, {1}, {2}]


def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first publish arrives."""
    from align.rollout.vllm import VLLMEngine

    publish = VLLMEngine.publish
    done: list[int] = []

    def once(self: Any, weights: Any, version: int) -> None:
        if not done:
            publish(self, weights, version)
        done.append(version)

    monkeypatch.setattr(VLLMEngine, "publish", once)


def temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    import align.rollout.vllm as module

    params = module._params
    monkeypatch.setattr(module, "_params", lambda sampling, *more: _hotter(params(sampling, *more)))


def _hotter(params: Any) -> Any:
    params.temperature *= 1.5
    return params


def dropped_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    import align.learner.plain as module

    monkeypatch.setattr(module, "_with_adapters", lambda layer, weight, whole: weight)


def other_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine reads each prompt with the ids of its neighbours."""
    from align.rollout.vllm import VLLMEngine

    def shifted(self: Any, prompts: Any, sampling: Any) -> Iterator[Any]:

        return generate(
            self, [replace(prompt, token_ids=tuple(1 + token for token in prompt.token_ids)) for prompt in prompts], sampling
        )

    generate = VLLMEngine.generate
    monkeypatch.setattr(VLLMEngine, "generate", shifted)


def other_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    from align.rollout.vllm import VLLMEngine

    start = VLLMEngine.__init__
    monkeypatch.setattr(VLLMEngine, "__init__", lambda self, *a, **named: start(self, *a, **{**named, "dtype": "bfloat16"}))


@pytest.mark.parametrize(
    ("plant", "changes", "said"),
    [
        (stale, {}, "stale"),
        (temperature, {}, "temperature"),
        (dropped_adapter, {"lora": True}, "dropped adapter"),
        (other_tokens, {}, "another tokenizer"),
        (other_dtype, {"rollout": {"parity_tolerance": 1e-5}}, "dtypes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_parity_check_stops_a_run_whose_sampler_is_another_model(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, plant: Any, changes: dict[str, Any], said: str
) -> None:
    plant(monkeypatch)
    with pytest.raises(RolloutError, match="sampler and trainer disagree") as caught:
        run(**changes)
    assert said in caught.value.message
