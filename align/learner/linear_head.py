"""A linear head on the embeddings of a model that stays as it is: fitted at once, on a CPU in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from align.learner.packing import Batch
from align.learner.scores import ScoreLearner, score_head

GRID = tuple(10.0**power for power in range(-4, 2))  # weights of the penalty that cross-validation tries
FOLDS = 5
MOST_ITERATIONS = 100

# (score_MK of the items with these numbers, the numbers) -> the sum of their losses
Objective = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The model's last hidden states at the marked tokens, in float64, item after item."""

    hidden_MD: Tensor
    item_M: Tensor  # the number of the item that each belongs to

    def of(self, items: Sequence[int]) -> Tensor:
        return self.hidden_MD[torch.isin(self.item_M, torch.tensor(items))]


def embed(learner: ScoreLearner, batches: Iterable[Batch]) -> Embeddings:
    """What the head of the learner's model is applied to, of all batches; their groups count on from one batch to the next."""
    hidden, items, before = [], [], 0
    with _headless(learner.model):
        for batch in batches:
            hidden.append(learner.scores(batch)[batch.mask_N].double())
            items.append(before + batch.group_B[batch.segment_N[batch.mask_N]])
            before += len(batch.group_B.unique())
    return Embeddings(hidden_MD=torch.cat(hidden), item_M=torch.cat(items))


@contextmanager
def _headless(model: Any) -> Iterator[None]:
    """A context in which the model's scores are the embeddings themselves."""
    head = score_head(model)
    name = next(name for name, module in model.named_children() if module is head)
    setattr(model, name, nn.Identity())
    try:
        yield
    finally:
        setattr(model, name, head)


def fit_linear(
    embeddings: Embeddings, objective: Objective, count: int, *, outputs: int, bias: bool, l2: float | None
) -> tuple[Tensor, Tensor, float]:
    """(weight_KD, bias_K, l2) of the head with the least mean loss over the `count` items, plus l2/2 of the squared norm.

    The norm is that of the weights of embeddings scaled to a standard deviation of 1. Without `l2` the best of GRID is taken, by
    the loss on the folds that a fit has not seen. Losses that are convex in the scores have one minimum, which L-BFGS finds.
    """
    scale_D = embeddings.hidden_MD.std(0, correction=0).clamp(min=1e-8)
    scaled = Embeddings(hidden_MD=embeddings.hidden_MD / scale_D, item_M=embeddings.item_M)
    if l2 is None:
        folds = [list(range(fold, count, FOLDS)) for fold in range(min(FOLDS, count))]
        l2 = min(GRID, key=lambda one: _unseen_loss(scaled, objective, folds, outputs, bias, one))
    weight_KD, bias_K = _fit(scaled, objective, list(range(count)), outputs, bias, l2)
    return weight_KD / scale_D, bias_K, l2


def _unseen_loss(
    scaled: Embeddings, objective: Objective, folds: Sequence[Sequence[int]], outputs: int, bias: bool, l2: float
) -> float:
    """The sum of the losses of every item under the fit that was made without its fold."""
    total = 0.0
    for number, fold in enumerate(folds):
        others = sorted(item for other, items in enumerate(folds) if other != number for item in items)
        if others:
            weight_KD, bias_K = _fit(scaled, objective, others, outputs, bias, l2)
            total += float(objective(scaled.of(fold) @ weight_KD.T + bias_K, fold))
    return total


def _fit(
    scaled: Embeddings, objective: Objective, items: Sequence[int], outputs: int, bias: bool, l2: float
) -> tuple[Tensor, Tensor]:
    hidden_MD = scaled.of(items)
    weight_KD = torch.zeros(outputs, hidden_MD.shape[1], dtype=torch.float64, requires_grad=True)
    bias_K = torch.zeros(outputs, dtype=torch.float64, requires_grad=bias)
    optimizer = torch.optim.LBFGS(
        [weight_KD, bias_K] if bias else [weight_KD],
        max_iter=MOST_ITERATIONS,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-12,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(hidden_MD @ weight_KD.T + bias_K, items) / len(items) + l2 / 2 * weight_KD.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    return weight_KD.detach(), bias_K.detach()


def put_head(learner: ScoreLearner, weight_KD: Tensor, bias_K: Tensor) -> None:
    """Make the fitted head that of the learner's model."""
    head = score_head(learner.model)
    values = [(head.weight, weight_KD)] if head.bias is None else [(head.weight, weight_KD), (head.bias, bias_K)]
    learner.stepper.held.overwrite(values)  # type: ignore[arg-type]
