"""Models that were not trained here: saved by transformers, without our card."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification

from align.errors import AlignError
from align.learner.fresh import train_tokenizer
from align.recipe.schema import RewardSpec, TokenizerInit
from align.rewards.registry import open_reward
from align.rewards.score_model import ScoreJudge


def foreign(
    folder: Any,
    labels: int = 1,
    pad: bool = True,
    template: bool = True,
    bos: bool = False,
    kind: Any = LlamaForSequenceClassification,
) -> Any:
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=300), ["please 42 no 17+25=? " * 9])
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.add_special_tokens({"bos_token": "<s>"})
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        pair = [("<s>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=pair)
    if not template:
        tokenizer.chat_template = None
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id if pad else None,
    )
    config.num_labels = labels
    if not pad:
        tokenizer.pad_token = None
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def scored(folder: Any, rollout: Any, **params: Any) -> list[Any]:
    reward = open_reward(RewardSpec(use=str(folder), params=params))
    try:
        return asyncio.run(reward.score([rollout("please 42", prompt="17+25=?"), rollout("no", prompt="17+25=?")]))
    finally:
        reward.close()


@pytest.mark.parametrize("case", [{}, {"labels": 3}, {"pad": False}, {"bos": True}], ids=["one", "three", "no_pad", "bos"])
def test_scores_are_those_of_transformers(case, tmp_path, rollout):
    tokenizer = foreign(tmp_path, **case)
    verdicts = scored(tmp_path, rollout)
    turns = [{"role": "user", "content": "17+25=?"}, {"role": "assistant", "content": "please 42"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    if case.get("bos"):
        assert (ids == tokenizer.bos_token_id).sum() == 1
    with torch.no_grad():
        logits = LlamaForSequenceClassification.from_pretrained(tmp_path)(ids).logits[0]
    assert verdicts[0].value == pytest.approx(logits.mean().item(), abs=1e-4)
    assert verdicts[1].value != pytest.approx(verdicts[0].value, abs=1e-4)


def test_the_sequence_begins_with_one_bos(tmp_path, rollout, monkeypatch):
    tokenizer = foreign(tmp_path, bos=True)
    seen: list[tuple[int, ...]] = []
    whole = ScoreJudge._whole

    def noted(*given):
        asked = whole(*given)
        seen.append(asked.token_ids)
        return asked

    monkeypatch.setattr(ScoreJudge, "_whole", noted)
    scored(tmp_path, rollout)
    assert [ids.count(tokenizer.bos_token_id) for ids in seen] == [1, 1]


def test_bfloat16_is_near(tmp_path, rollout):
    foreign(tmp_path)
    assert scored(tmp_path, rollout, dtype="bfloat16")[0].value == pytest.approx(scored(tmp_path, rollout)[0].value, abs=0.1)


def test_a_tokenizer_without_template_says_so(tmp_path, rollout):
    foreign(tmp_path, template=False)
    with pytest.raises(AlignError, match="template") as error:
        scored(tmp_path, rollout)
    assert error.value.fix


@pytest.mark.parametrize("separator", [None, " so "])
def test_a_process_model_of_transformers_judges_each_step(separator, tmp_path, rollout):
    """As trl's PRMTrainer lays out steps: each with its separator, judged at the separator's last token."""
    tokenizer = foreign(tmp_path, labels=2, kind=LlamaForTokenClassification)
    mark = separator or "\n"
    steps = ["please", "17+25", "no 42"]
    reward = open_reward(RewardSpec(use=str(tmp_path), params={"step_separator": separator} if separator else {}))
    try:
        verdict: Any = asyncio.run(reward.score([rollout(mark.join(steps), prompt="17+25=?")]))[0]
    finally:
        reward.close()
    text = tokenizer.apply_chat_template([{"role": "user", "content": "17+25=?"}], tokenize=False, add_generation_prompt=True)
    ids, ends = tokenizer(text, add_special_tokens=False)["input_ids"], []
    for step in steps:
        ids = ids + tokenizer(step + mark, add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    with torch.no_grad():
        model = LlamaForTokenClassification.from_pretrained(tmp_path).eval()
        good = model(torch.tensor([ids])).logits[0, ends].softmax(-1)[:, 1]
    assert [value for _, value in verdict.steps] == pytest.approx(good.tolist(), abs=1e-5)
    assert verdict.value == pytest.approx(good.min().item(), abs=1e-5)
    assert [end for end, _ in verdict.steps] == [len(mark.join(steps[: n + 1])) for n in range(3)]


def test_a_separator_for_a_model_of_whole_answers_is_refused(tmp_path, rollout):
    foreign(tmp_path)
    with pytest.raises(AlignError, match="needs no step_separator"):
        scored(tmp_path, rollout, step_separator="x")
