"""Reward models in vLLM's own server: the scores are those of the same model in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from transformers import LlamaForSequenceClassification

from align.learner.reward_model import RewardModelCard
from align.recipe.schema import RewardSpec
from align.rewards.registry import open_reward
from tests.rewards.vllm_server import LONGEST, save_tiny, serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One number for an answer, and a card."""
    folder = save_tiny(tmp_path_factory.mktemp("model"), LlamaForSequenceClassification, "please 42 no 17+25=? ", labels=1)
    RewardModelCard(loss="bradley_terry", labels=("reward",), mean=(0.1,), std=(0.5,), max_length=500).write(folder)
    return folder


def scores(rollouts: list[Any], **params: Any) -> list[Any]:
    reward = open_reward(RewardSpec(use="reward_model", params=params))
    try:
        return asyncio.run(reward.score(rollouts))
    finally:
        reward.close()


@pytest.mark.timeout(600)
def test_scores_equal_those_in_this_process(model: Any, rollout: Any, tmp_path: Any) -> None:
    texts = ["please", "no 42", "", "17+25=42 " * 30, "é漢字🙂", "7" * 600] + [f"{n} please" for n in range(60)]
    rollouts = [rollout(text, prompt="17+25=?") for text in texts]
    with serve(model, str(model), tmp_path / "log", "--runner", "pooling", "--max-model-len", str(LONGEST)) as address:
        served = scores(rollouts, path=str(model), server=address)
        raw = scores(rollouts, path=str(model), server=address, normalise=False)
    own = scores(rollouts, path=str(model))
    assert [verdict.status for verdict in served] == [verdict.status for verdict in own]
    assert served[5].status == "error", "too long, and not cut"
    known = [n for n, verdict in enumerate(own) if verdict.value is not None]
    assert [served[n].value for n in known] == pytest.approx([own[n].value for n in known], abs=1e-4)
    assert [raw[n].value for n in known] == pytest.approx([own[n].value * 0.5 + 0.1 for n in known], abs=1e-4)
    assert len({round(own[n].value, 3) for n in known}) > len(known) / 2, "the model tells answers apart"
