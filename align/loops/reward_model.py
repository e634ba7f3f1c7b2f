"""Training a reward model: scores that agree with what people preferred, step by step or in one fit of a linear head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from align.data.cursor import Cursor
from align.data.judged import judged_texts, load_judged
from align.evaluate.generate import spread
from align.evaluate.held_out import judge_held_out
from align.evaluate.pairs import HeldOutResult
from align.learner.linear_head import embed, fit_linear, put_head
from align.learner.model import load_tokenizer
from align.learner.packing import Batch
from align.learner.reward_model import RewardLearner, build_reward_model, labels_of
from align.learner.scores import score_head
from align.loops.judged import item_losses, pack_judged, score_loss
from align.loops.preflight import Rows, preflight
from align.loops.session import Session

if TYPE_CHECKING:
    from align.recipe.load import Resolved
    from align.recipe.schema import RewardModelRecipe
    from align.run.console import RunConsole

NORMALISED_ON = 256  # items of the training data whose scores give the mean and the standard deviation
AT_A_TIME = 64  # items that are scored between two looks at whether the run is to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSite:
    """What the loop works with."""

    tokenizer: Any
    learner: RewardLearner
    cursor: Cursor[Any]
    train: Sequence[Any]
    held_out: Sequence[Any]
    pad_id: int | None


def train(
    resolved: Resolved, rows: Rows | None = None, *, resume: bool = False, overwrite: bool = False, allow_changes: bool = False
) -> dict[str, Any]:
    """Train a reward model as the recipe says; return the run's summary. `rows` are those of its data, if they were read before.

    One pass of the loop is one optimizer step, or the whole fit of a linear head.
    """
    recipe: RewardModelRecipe = resolved.recipe  # type: ignore[assignment]
    how = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
    rows = rows or preflight(resolved, **how)
    with Session(resolved, **how) as session:
        site = open_reward_site(recipe, rows, session.console)
        session.begin(site, {"cursor": site.cursor}, held_out=lambda on_progress: held_out(recipe, site, on_progress))
        for step in session.steps():
            with session.phase("update"):
                linear = recipe.algorithm.head == "linear"
                metrics, tokens = fit(recipe, site) if linear else update(recipe, site, step)
            session.end_step(step, metrics, tokens=tokens)
        return session.finish()


def update(recipe: RewardModelRecipe, site: RewardSite, step: int) -> tuple[dict[str, Any], int]:
    """One optimizer step: its metrics, and how many tokens it read."""
    items = site.cursor.draw(recipe.train.rows_per_step)
    batch = pack_judged(items, site.pad_id)
    loss = score_loss(recipe.algorithm, items, recipe.seed)
    result = site.learner.update(batch, loss, index=step - 1, together=True)
    return {**result.metrics, "skipped": int(not result.applied)}, len(batch.token_ids_N)


def fit(recipe: RewardModelRecipe, site: RewardSite) -> tuple[dict[str, Any], int]:
    """Fit a linear head on the embeddings of all training items: its metrics, and how many tokens were read."""
    item_loss, count = item_losses(recipe.algorithm, site.train, recipe.seed)
    per_item = len(site.train) / count  # steps are the unit of a process model's loss, items that of the fit

    def objective(score_MK: Tensor, numbers: Sequence[int]) -> Tensor:
        return item_loss(score_MK, numbers)[0] * per_item

    batches = list(_batches(site.train, site.pad_id))
    embeddings = embed(site.learner, batches)
    labels = labels_of(recipe.algorithm)
    bias = score_head(site.learner.model).bias is not None
    weight_KD, bias_K, l2 = fit_linear(
        embeddings, objective, len(site.train), outputs=len(labels), bias=bias, l2=recipe.algorithm.l2
    )
    put_head(site.learner, weight_KD, bias_K)
    everything = list(range(len(site.train)))
    loss, statistics = item_loss(embeddings.hidden_MD @ weight_KD.T + bias_K, everything)
    metrics = {"loss": float(loss) / count, "l2": l2, **{name: float(total) / count for name, total in statistics.items()}}
    return metrics, sum(len(batch.token_ids_N) for batch in batches)


def held_out(recipe: RewardModelRecipe, site: RewardSite, on_progress: Callable[[int], None]) -> HeldOutResult:
    """Score the held-out items and compare with what people said."""
    found = []
    for batch in _batches(site.held_out, site.pad_id):
        found.append(site.learner.marked_scores(batch))
        on_progress(len(batch.group_B.unique()))
    score_MK = torch.cat(found).double().numpy()
    return judge_held_out(site.held_out, np.asarray(score_MK), labels=labels_of(recipe.algorithm), seed=recipe.seed)


def open_reward_site(recipe: RewardModelRecipe, rows: Rows, console: RunConsole) -> RewardSite:
    """Load the model, tokenize the data, and make the learner; say on the console what was left out."""
    with console.activity(f"loading the model {recipe.model.path or '(fresh weights)'}"):
        tokenizer = load_tokenizer(recipe.model, judged_texts(recipe, rows.train))
        model = build_reward_model(recipe, tokenizer)
    with console.activity("preparing the data"):
        sets = [load_judged(recipe, some, tokenizer) for some in (rows.train, rows.eval) if some]
    for found in sets:
        for note in found.remarks():
            console.show(note)
    train, *evaluation = [[item for items in found.by_source for item in items] for found in sets]
    pad_id = model.config.pad_token_id
    sample = pack_judged(spread(train, NORMALISED_ON), pad_id)
    limit = recipe.evaluate.max_rows if recipe.evaluate else None
    return RewardSite(
        tokenizer=tokenizer,
        learner=RewardLearner(model, recipe, sample),
        cursor=Cursor(sets[0].by_source, sets[0].weights, seed=recipe.seed, shuffle=recipe.data.shuffle),
        train=train,
        held_out=spread(evaluation[0], limit) if evaluation else [],
        pad_id=pad_id,
    )


def _batches(items: Sequence[Any], pad_id: int | None) -> Iterator[Batch]:
    for start in range(0, len(items), AT_A_TIME):
        yield pack_judged(items[start : start + AT_A_TIME], pad_id)
