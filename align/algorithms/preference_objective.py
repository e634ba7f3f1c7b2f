"""The loss of a batch of preferences: a weighted sum of preference losses, and what is reported of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from align.algorithms.preference import PREFERENCE_LOSSES
from align.algorithms.preference_names import PREFERENCE_TABLE, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One loss of a weighted sum."""

    loss: str
    beta: float
    weight: float = 1.0
    knobs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Completions with what a loss may want to know of them, per sequence; None where there is no such thing.

    `score_B` says what they are. Of pairs, both sequences of a group: 1 for the chosen, 0 for the rejected, NaN for a sample
    that belongs to no pair. Of judged completions and of ranked lists (a group is a list) their scores. `margin_B` is the same
    for both sequences of a pair; `by_reference_B` is True for samples that the reference drew.
    """

    logp_B: Tensor
    length_B: Tensor
    score_B: Tensor
    group_B: Tensor
    ref_B: Tensor | None = None
    old_B: Tensor | None = None
    margin_B: Tensor | None = None
    by_reference_B: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of a whole optimizer step: what sums over its micro-batches are divided by."""

    groups: int  # pairs, judged completions or ranked lists
    good: int  # sequences that are the chosen of a pair, or good by themselves
    bad: int

    @classmethod
    def of(cls, rows: Rows, score_B: Tensor, group_B: Tensor, good_above: float) -> Counts:
        good, bad = _good_and_bad(rows, score_B, group_B, good_above)
        return cls(groups=len(group_B.unique()), good=len(good), bad=len(bad))


def preference_objective(
    terms: Sequence[Term], compared: Compared, *, rows: Rows, counts: Counts, good_above: float = 0.5
) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss, statistics), both shares of the step that `counts` describes: those of its micro-batches add up.

    A loss of pairs is a mean over pairs; one of judged completions a mean over completions, those of a pair being a good and a
    bad one; one of ranked lists a mean over lists. Statistics have trl's names; rewards are the first term's `implicit_rewards`.
    """
    good, bad = _good_and_bad(rows, compared.score_B, compared.group_B, good_above)
    loss = compared.logp_B.sum() * 0.0
    statistics: dict[str, Tensor] = {}
    for term in terms:
        loss_B, count = _term(term, compared, good, bad, rows, counts)
        value = loss_B.sum() / count
        loss = loss + term.weight * value
        if len(terms) > 1:
            statistics[f"loss/{term.loss}"] = value.detach()
    return loss, statistics | _statistics(implicit_rewards(terms[0], compared), compared, good, bad, rows, counts)


def implicit_rewards(term: Term, compared: Compared) -> Tensor:
    """What the policy itself is a reward model of (Rafailov et al. 2023, eq. 5), for each sequence: beta times the log-ratio.

    Without a reference beta times the log-prob; of a token, where the loss is about those.
    """
    entry = PREFERENCE_TABLE[term.loss]
    logp_B = compared.logp_B.detach()
    if entry.per_token:
        return term.beta * logp_B / compared.length_B
    return term.beta * (logp_B - compared.ref_B if entry.reference and compared.ref_B is not None else logp_B)


def _good_and_bad(rows: Rows, score_B: Tensor, group_B: Tensor, good_above: float) -> tuple[Tensor, Tensor]:
    """The sequences that were chosen and rejected, in the order of their pairs; of a list the best and the worst."""
    if rows == "label":
        return (score_B > good_above).nonzero().flatten(), (score_B <= good_above).nonzero().flatten()
    if rows == "pair":
        halves = [(score_B == score).nonzero().flatten() for score in (1, 0)]
        first, second = (half[torch.argsort(group_B[half], stable=True)] for half in halves)
        return first, second
    ends = []
    for sign in (-1, 1):
        order_B = torch.argsort(sign * score_B, stable=True)
        order_B = order_B[torch.argsort(group_B[order_B], stable=True)]
        sizes_L = group_B[order_B].unique_consecutive(return_counts=True)[1]
        ends.append(order_B[sizes_L.cumsum(0) - sizes_L])
    return ends[0], ends[1]


def _term(term: Term, compared: Compared, good: Tensor, bad: Tensor, rows: Rows, counts: Counts) -> tuple[Tensor, int]:
    """The values of one loss, and how many there are in the whole step."""
    entry, loss = PREFERENCE_TABLE[term.loss], PREFERENCE_LOSSES[term.loss]
    if rows == "ranking":
        both = {"score_B": compared.score_B, "group_B": compared.group_B}
        return loss(compared.logp_B, None, compared.ref_B, None, beta=term.beta, **both, **term.knobs), counts.groups
    extras = {name: value for name in entry.takes if (value := _extra(name, compared, good, bad)) is not None}
    values_B = loss(
        compared.logp_B[good],
        compared.logp_B[bad],
        None if compared.ref_B is None else compared.ref_B[good],
        None if compared.ref_B is None else compared.ref_B[bad],
        beta=term.beta,
        chosen_length_B=compared.length_B[good],
        rejected_length_B=compared.length_B[bad],
        **extras,
        **term.knobs,
    )
    return values_B, counts.good + counts.bad if entry.rows == "label" else counts.groups


def _extra(name: str, compared: Compared, good: Tensor, bad: Tensor) -> Any:
    """A tensor that a loss takes by this name, None where there is none."""
    alone = compared.score_B.isnan()
    match name:
        case "margin_B":
            return None if compared.margin_B is None else compared.margin_B[good]
        case "reward_B":
            return compared.score_B[torch.cat([good, bad])]
        case "old_chosen_B" | "old_rejected_B":
            return None if compared.old_B is None else compared.old_B[good if name == "old_chosen_B" else bad]
        case "reference_chosen_B":
            return None if compared.by_reference_B is None else compared.by_reference_B[good]
        case "online_B":
            return compared.logp_B[alone] if alone.any() else None
        case "ref_online_B":
            return compared.ref_B[alone] if compared.ref_B is not None and alone.any() else None
    return None


@torch.no_grad()
def _statistics(reward_B: Tensor, compared: Compared, good: Tensor, bad: Tensor, rows: Rows, counts: Counts) -> dict[str, Tensor]:
    statistics = {}
    for name, which, count in (("chosen", good, counts.good), ("rejected", bad, counts.bad)):
        statistics[f"rewards/{name}"] = reward_B[which].sum() / max(1, count)
        statistics[f"logps/{name}"] = compared.logp_B[which].sum() / max(1, count)
    statistics["rewards/margins"] = statistics["rewards/chosen"] - statistics["rewards/rejected"]
    if rows != "label":
        margin_B = reward_B[good] - reward_B[bad]
        statistics["rewards/accuracies"] = ((1 + margin_B.sign()) / 2).sum() / counts.groups
    if compared.ref_B is not None:
        statistics |= _kl(compared.logp_B - compared.ref_B, compared.score_B.isnan(), rows, counts)
    return statistics


def _kl(ratio_B: Tensor, alone_B: Tensor, rows: Rows, counts: Counts) -> dict[str, Tensor]:
    """The mean log-ratio of the policy's own samples, or of judged completions: what hypo and kto know of the KL."""
    if alone_B.any():
        return {"kl": ratio_B[alone_B].mean()}
    return {"kl": ratio_B.sum() / (counts.good + counts.bad)} if rows == "label" else {}
