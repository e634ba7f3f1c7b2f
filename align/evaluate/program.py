"""The evaluation of a model by itself, outside of a training run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.prompts import PromptSet, load_prompts
from align.data.sources import read_all
from align.evaluate.generate import EvaluationResult, evaluate_model, spread
from align.learner.model import load_model, load_tokenizer
from align.recipe.evaluation import evaluation_sampling
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.rollout.transformers import TransformersEngine
from align.rollout.turns import TakingTurns
from align.run.console import RunConsole
from align.run.records import write_samples
from align.storage import storage_errors, write_atomically

if TYPE_CHECKING:
    from align.recipe.schema import EvaluateRecipe, Model
    from align.rollout.engine import RolloutEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSite:
    """What an evaluation works with."""

    prompts: PromptSet
    engine: RolloutEngine
    scorer: Scorer


@contextmanager
def open_evaluation(recipe: EvaluateRecipe, console: RunConsole) -> Iterator[EvaluationSite]:
    """Load what the recipe names: the problems of `data.eval`, the model and the rewards.

    Rewards and data are opened before the model, so that a mistake in them costs seconds.
    """
    rowsets = read_all(recipe.data.eval, max_bad_rows=recipe.data.max_bad_rows)
    with Scorer(RewardStack(recipe.rewards, recipe.reward_budget, recipe.combine)) as scorer:
        with console.activity(f"loading {recipe.model.path}"):
            tokenizer = load_tokenizer(recipe.model)
            loaded = load_prompts(
                rowsets, tokenizer, max_prompt_length=recipe.data.max_prompt_length, max_bad_rows=recipe.data.max_bad_rows
            )
            engine = TakingTurns(TransformersEngine(_model_on_device(recipe.model, tokenizer, recipe.seed), tokenizer))
            scorer.stack.attach(engine, tokenizer)
        for remark in loaded.remarks():
            console.show(remark)
        yield EvaluationSite(prompts=loaded, engine=engine, scorer=scorer)


def evaluate_recipe(recipe: EvaluateRecipe, console: RunConsole) -> EvaluationResult:
    """Load what the recipe names and estimate pass@k of its model on `data.eval`."""
    with open_evaluation(recipe, console) as site:
        ends = evaluation_sampling(recipe, recipe.evaluate)
        prompts = spread(site.prompts.prompts, recipe.evaluate.max_problems)
        with console.activity("sampling", total=len(prompts) * recipe.evaluate.num_generations) as advance:
            return evaluate_model(
                site.engine,
                prompts,
                site.scorer,
                recipe.evaluate,
                seed=recipe.seed,
                max_completion_length=ends.max_tokens,
                stop=ends.stop,
                stop_token_ids=ends.stop_token_ids,
                on_progress=lambda *_: advance(1),
            )


def write_result(result: EvaluationResult, recipe: EvaluateRecipe, folder: Path) -> None:
    """Write result.json (the figures and the recipe they belong to) and samples.jsonl.gz (every sample with its verdicts)."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = {**result.to_dict(), "recipe": {"recipe": recipe.recipe, **recipe.model_dump()}}
    write_samples(folder / "samples.jsonl.gz", result.rows())
    write_atomically(folder / "result.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _model_on_device(model: Model, tokenizer: Any, seed: int) -> Any:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(model, tokenizer, seed=seed).to(device=device, dtype=getattr(torch, model.dtype)).eval()
