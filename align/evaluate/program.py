"""The evaluation of a model by itself, outside of a training run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.prompts import PromptSet, load_prompts
from align.data.sources import read_all
from align.evaluate.engine import open_engine
from align.evaluate.generate import EvaluationResult, evaluate_model, spread
from align.evaluate.identity import evaluation_head, model_identity
from align.evaluate.progress import Progress
from align.evaluate.store import RESULT, SampleStore
from align.learner.model import load_tokenizer
from align.recipe.evaluation import evaluation_sampling
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.run.console import RunConsole
from align.storage import storage_errors, write_atomically

if TYPE_CHECKING:
    from align.recipe.schema import EvaluateRecipe
    from align.rollout.engine import SharedEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSite:
    """What an evaluation works with."""

    prompts: PromptSet
    engine: SharedEngine
    scorer: Scorer
    commit: str | None  # of the model, where it came from the hub


@contextmanager
def open_evaluation(recipe: EvaluateRecipe, console: RunConsole) -> Iterator[EvaluationSite]:
    """Load what the recipe names: the problems of `data.eval`, the model and the rewards.

    Rewards and data are opened before the model, so that a mistake in them costs seconds.
    """
    rowsets = read_all(recipe.data.eval, max_bad_rows=recipe.data.max_bad_rows)
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer(RewardStack(recipe.rewards, recipe.reward_budget, recipe.combine)))
        with console.activity(f"loading {recipe.model.path}"):
            tokenizer = load_tokenizer(recipe.model)
            loaded = load_prompts(
                rowsets, tokenizer, max_prompt_length=recipe.data.max_prompt_length, max_bad_rows=recipe.data.max_bad_rows
            )
            engine, commit = stack.enter_context(open_engine(recipe, tokenizer))
        scorer.stack.attach(engine, tokenizer)
        for remark in loaded.remarks():
            console.show(remark)
        yield EvaluationSite(prompts=loaded, engine=engine, scorer=scorer, commit=commit)


def evaluate_recipe(
    recipe: EvaluateRecipe, console: RunConsole, folder: Path | None = None, *, overwrite: bool = False
) -> EvaluationResult:
    """Load what the recipe names and estimate pass@k of its model on `data.eval`.

    With `folder` samples are written there as they are graded, and those that are there already, of the same evaluation, are
    not drawn again.
    """
    with ExitStack() as stack:
        site = stack.enter_context(open_evaluation(recipe, console))
        evaluation, ends = recipe.evaluate, evaluation_sampling(recipe, recipe.evaluate)
        prompts = spread(site.prompts.prompts, evaluation.max_problems)
        store = None
        if folder is not None:
            head = evaluation_head(recipe, model_identity(recipe, site.commit), site.scorer.stack.versions, prompts)
            store = stack.enter_context(SampleStore(folder, head, prompts, overwrite=overwrite))
        total = len(prompts) * evaluation.num_generations
        with console.activity("sampling", total=total) as advance:
            progress = Progress(console, advance, total=total, threshold=evaluation.threshold, by=evaluation.correct_by)
            if store is not None and (found := sum(len(one.answers) for one in store.done(prompts).values())):
                console.show(f"{found:,} of {total:,} samples are there already")
                progress.found(found)
            result = evaluate_model(
                site.engine,
                prompts,
                site.scorer,
                evaluation,
                seed=recipe.seed,
                max_completion_length=ends.max_tokens,
                stop=ends.stop,
                stop_token_ids=ends.stop_token_ids,
                on_progress=progress.written,
                on_graded=progress.graded,
                store=store,
            )
        if store is not None:
            store.flush()
            write_result(result.to_dict(), recipe, store.folder)
        return result


def write_result(figures: dict[str, Any], recipe: EvaluateRecipe, folder: Path) -> None:
    """Write result.json: the figures and the recipe they belong to."""
    write_figures({**figures, "recipe": {"recipe": recipe.recipe, **recipe.model_dump()}}, folder)


def write_figures(figures: dict[str, Any], folder: Path) -> None:
    """Write result.json."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RESULT, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
