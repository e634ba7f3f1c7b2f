"""The parts of a run and how they are started: model, learner, rollout engine, rewards, data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from align.data.curriculum import ease_of
from align.data.cursor import Cursor
from align.data.demonstrated_prompts import training_prompts
from align.data.demonstrations import load_demonstrations
from align.data.items import ItemSet
from align.data.online_items import load_online_items
from align.data.prompts import load_prompts
from align.data.sources import row_texts
from align.learner.learner import Learner
from align.learner.model import load_model, load_tokenizer
from align.learner.partition import Partition
from align.learner.ranks import Ranks
from align.loops.engines import blueprint_for, open_engines
from align.loops.preflight import Rows
from align.loops.rewards import open_rewards
from align.recipe.arithmetic import unmet_rows
from align.recipe.schema import OnlinePreferenceRecipe, Rollout, SFTRecipe
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.rollout.bystander import Bystander
from align.rollout.pool import EnginePool
from align.rollout.transformers import TransformersEngine
from align.rollout.turns import TakingTurns
from align.types import Prompt

if TYPE_CHECKING:
    from align.data.prompts import PromptSet
    from align.recipe.schema import TrainRecipe
    from align.rollout.engine import SharedEngine, SteppingEngine
    from align.run.console import RunConsole


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything a loop works with. The transformers engine shares the learner's model in float32."""

    tokenizer: Any
    learner: Learner
    engine: SharedEngine
    scorer: Scorer
    cursor: Cursor[Any]
    eval_prompts: Sequence[Prompt]
    plain: bool  # the engine wants the weights of the plain model, adapters added

    def publish(self, version: int) -> None:
        """Give the engine the learner's present weights."""
        self.engine.publish(self.learner.weights(plain=self.plain), version=version)


@contextmanager
def open_site(recipe: TrainRecipe, rows: Rows, console: RunConsole, learner_options: dict[str, Any]) -> Iterator[Site]:
    """Start all parts, rewards first: a reward that cannot start is refused before a model is loaded; close them at the end.

    Of several ranks the first one alone has rewards and an engine.
    """
    first = Ranks.present().is_first
    with Scorer(open_rewards(recipe, console.activity, console.show) if first else RewardStack([])) as scorer:
        with console.activity(f"loading the model {recipe.model.path or '(fresh weights)'}"):
            tokenizer = load_tokenizer(recipe.model, row_texts(rows.train))
            partition = Partition.of(recipe.train)
            causal_lm = load_model(recipe.model, tokenizer, seed=recipe.seed, partition=partition)
        with console.activity("preparing the data"):
            train, evaluation = _items(recipe, tokenizer, rows)
        for items in (train, evaluation) if evaluation else (train,):
            for note in items.remarks():
                console.show(note)
        for note in unmet_rows(recipe, sum(map(len, train.by_source))):
            console.show(note)
        rollout = getattr(recipe, "rollout", None) or Rollout()
        apart = recipe.launch.engines if getattr(recipe, "rollout", None) else 0
        blueprint = blueprint_for(recipe, rollout, causal_lm, tokenizer) if first and apart else None
        sampled = None if apart else _sampled_model(causal_lm, recipe, rollout, partition)
        learner = Learner(causal_lm, recipe.train, dtype=recipe.model.dtype, **learner_options)
        starts = rollout.engine != "transformers"  # which is there with the model
        with console.activity(f"starting {rollout.engine}") if starts or blueprint else nullcontext():
            if blueprint is not None:
                engine: SharedEngine = open_engines(recipe, rollout, blueprint, console.show)
            else:
                make = partial(_open_engine, rollout, sampled, tokenizer, recipe.model.dtype)
                engine = _shared_engine(rollout, make, first=first)
        scorer.stack.attach(engine, tokenizer)
        try:
            yield Site(
                tokenizer=tokenizer,
                learner=learner,
                engine=engine,
                scorer=scorer,
                cursor=Cursor(
                    train.by_source,
                    train.weights,
                    seed=recipe.seed,
                    shuffle=recipe.data.shuffle,
                    ease=ease_of(rows.train, recipe.data.curriculum),
                ),
                eval_prompts=evaluation.prompts if evaluation else [],
                plain=starts,
            )
        finally:
            engine.close()


def _shared_engine(rollout: Rollout, make: Callable[[], SteppingEngine], *, first: bool) -> SharedEngine:
    """Used by turns between training, or in a pool beside it."""
    if not first:
        return TakingTurns(Bystander())
    return TakingTurns(make()) if rollout.mode == "sync" else EnginePool(lambda _: make())


def _open_engine(rollout: Rollout, model: Any, tokenizer: Any, dtype: str) -> SteppingEngine:
    if rollout.engine == "vllm":
        from align.rollout.vllm import VLLMEngine

        # In a process that trains together with others, or at the same time, vLLM would share in what is global there.
        apart = rollout.vllm.separate_process or Ranks.present().world > 1 or rollout.mode != "sync"
        settings = rollout.vllm.model_copy(update={"separate_process": apart})
        return VLLMEngine(
            model,
            tokenizer,
            settings,
            dtype=dtype,
            max_batch_sequences=rollout.max_batch_sequences,
            publish_timeout=rollout.publish_timeout,
        )
    return TransformersEngine(model, tokenizer, max_batch_sequences=rollout.max_batch_sequences)


def _sampled_model(model: Any, recipe: TrainRecipe, rollout: Rollout, partition: Partition | None) -> Any:
    """What the engine samples from: the learner's own model, or a copy that publishing keeps up to date.

    The transformers engine needs one in bfloat16, where the learner's weights are about to be sharded, and beside training. Of
    several ranks the first one alone samples; where weights are divided, all have to call.
    """
    half, sharded = recipe.model.dtype == "bfloat16", recipe.train.zero_stage == 3
    if rollout.engine != "transformers" or not (half or sharded or rollout.mode != "sync"):
        return model
    if partition is not None:
        copied = partition.whole_copy(model, torch.bfloat16 if half else torch.float32)
    else:
        copied = copy.deepcopy(model) if Ranks.present().is_first else None
    if copied is None:
        return None
    copied.requires_grad_(False)
    return copied.to(torch.bfloat16) if half else copied


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
