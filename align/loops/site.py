"""The parts of a run and how they are started: model, learner, rollout engine, rewards, data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from align.data.cursor import Cursor
from align.data.demonstrated_prompts import training_prompts
from align.data.demonstrations import load_demonstrations
from align.data.items import ItemSet
from align.data.online_items import load_online_items
from align.data.prompts import load_prompts
from align.data.sources import row_texts
from align.learner.learner import Learner
from align.learner.model import load_model, load_tokenizer
from align.loops.preflight import Rows
from align.recipe.schema import OnlinePreferenceRecipe, Rollout, SFTRecipe
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.rollout.transformers import TransformersEngine
from align.rollout.turns import TakingTurns
from align.types import Prompt

if TYPE_CHECKING:
    from align.data.prompts import PromptSet
    from align.recipe.schema import TrainRecipe
    from align.rollout.engine import RolloutEngine
    from align.run.console import RunConsole


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything a loop works with. The transformers engine shares the learner's model in float32."""

    tokenizer: Any
    learner: Learner
    engine: RolloutEngine
    scorer: Scorer
    cursor: Cursor[Any]
    eval_prompts: Sequence[Prompt]
    plain: bool  # the engine wants the weights of the plain model, adapters added

    def publish(self, version: int) -> None:
        """Give the engine the learner's present weights."""
        self.engine.publish(self.learner.weights(plain=self.plain), version=version)


@contextmanager
def open_site(recipe: TrainRecipe, rows: Rows, console: RunConsole, learner_options: dict[str, Any]) -> Iterator[Site]:
    """Start all parts, rewards first: a reward that cannot start is refused before a model is loaded; close them at the end."""
    with Scorer(RewardStack(recipe.reward_specs, getattr(recipe, "reward_budget", None), recipe.combination)) as scorer:
        with console.activity(f"loading the model {recipe.model.path or '(fresh weights)'}"):
            tokenizer = load_tokenizer(recipe.model, row_texts(rows.train))
            causal_lm = load_model(recipe.model, tokenizer, seed=recipe.seed)
        with console.activity("preparing the data"):
            train, evaluation = _items(recipe, tokenizer, rows)
        for items in (train, evaluation) if evaluation else (train,):
            for note in items.remarks():
                console.show(note)
        learner = Learner(causal_lm, recipe.train, dtype=recipe.model.dtype, **learner_options)
        rollout = getattr(recipe, "rollout", None) or Rollout()
        with console.activity(f"starting the rollout engine {rollout.engine}"):
            engine = TakingTurns(_open_engine(rollout, learner.model, tokenizer, recipe.model.dtype))
        scorer.stack.attach(engine, tokenizer)
        try:
            yield Site(
                tokenizer=tokenizer,
                learner=learner,
                engine=engine,
                scorer=scorer,
                cursor=Cursor(train.by_source, train.weights, seed=recipe.seed, shuffle=recipe.data.shuffle),
                eval_prompts=evaluation.prompts if evaluation else [],
                plain=rollout.engine != "transformers",
            )
        finally:
            engine.close()


def _open_engine(rollout: Rollout, model: Any, tokenizer: Any, dtype: str) -> RolloutEngine:
    if rollout.engine == "vllm":
        from align.rollout.vllm import VLLMEngine

        return VLLMEngine(model, tokenizer, rollout.vllm, dtype=dtype, max_batch_sequences=rollout.max_batch_sequences)
    return TransformersEngine(_sampled_model(model, dtype), tokenizer, max_batch_sequences=rollout.max_batch_sequences)


def _sampled_model(model: Any, dtype: str) -> Any:
    """What the engine samples from: the learner's own model, or in bfloat16 a copy that publishing keeps up to date."""
    if dtype == "float32":
        return model
    return copy.deepcopy(model).to(torch.bfloat16).requires_grad_(False)


def _items(recipe: TrainRecipe, tokenizer: Any, rows: Rows) -> tuple[ItemSet[Any], PromptSet | None]:
    bad, longest = recipe.data.max_bad_rows, recipe.data.max_prompt_length
    train: ItemSet[Any]
    if recipe.recipe == "rl":
        train = training_prompts(recipe, rows.train, tokenizer)
    elif isinstance(recipe, OnlinePreferenceRecipe):
        train = load_online_items(recipe, rows.train, tokenizer)
    else:
        assert isinstance(recipe, SFTRecipe), "the other kinds have sites of their own"
        length, loss_on = recipe.train.max_length, recipe.train.loss_on
        train = load_demonstrations(rows.train, tokenizer, loss_on=loss_on, max_length=length, max_bad_rows=bad)
    if not rows.eval:
        return train, None
    return train, load_prompts(rows.eval, tokenizer, max_prompt_length=longest, max_bad_rows=bad)
