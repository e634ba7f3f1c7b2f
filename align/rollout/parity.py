"""Do sampler and trainer mean the same distribution? Compares the log-probabilities both give to the same sampled tokens.

They are computed by different code, often in different processes and precisions. When they disagree, every importance ratio
is wrong and training fails slowly and for no visible reason, so a run checks them after its first publish and then regularly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.errors import RolloutError


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How far the two sets of log-probs (natural logs) are apart, token by token."""

    tokens: int
    mean: float  # of |sampler - trainer|
    max: float  # of |sampler - trainer|
    kl: float  # mean of sampler - trainer: estimates KL(sampler || trainer), near 0 for equal distributions
    correlation: float  # Pearson's; 1 where both are constant
    slope: float  # of the trainer's log-probs regressed on the sampler's; 1 where they are equal or the sampler's constant

    def metrics(self) -> dict[str, float]:
        return {f"parity/{name}": getattr(self, name) for name in ("mean", "max", "kl", "correlation")}


def parity(sampler_N: Sequence[float] | Tensor, trainer_N: Sequence[float] | Tensor) -> ParityReport:
    """Compare the sampler's and the trainer's log-probs of the same N tokens.

    Raises ValueError when the lengths differ or there is no token.
    """
    sampler = torch.as_tensor(sampler_N).detach().to("cpu", torch.float64).flatten()
    trainer = torch.as_tensor(trainer_N).detach().to("cpu", torch.float64).flatten()
    if sampler.shape != trainer.shape or not len(sampler):
        raise ValueError(f"parity needs the same tokens from both sides, got {len(sampler)} and {len(trainer)}")
    difference = sampler - trainer
    centred_s, centred_t = sampler - sampler.mean(), trainer - trainer.mean()
    spread_s, spread_t = centred_s.square().sum().item(), centred_t.square().sum().item()
    common = (centred_s * centred_t).sum().item()
    both_vary = spread_s > 0 and spread_t > 0
    return ParityReport(
        tokens=len(sampler),
        mean=difference.abs().mean().item(),
        max=difference.abs().max().item(),
        kl=difference.mean().item(),
        correlation=common / math.sqrt(spread_s * spread_t) if both_vary else float(spread_s == spread_t),
        slope=common / spread_s if spread_s else 1.0,
    )


def check_parity(report: ParityReport, tolerance: float) -> None:
    """Raise RolloutError with the likely cause when the mean absolute difference exceeds `tolerance`, or is not finite."""
    if report.mean <= tolerance:
        return
    cause, fix = _likely_cause(report)
    raise RolloutError(
        f"sampler and trainer disagree on the log-probs of {report.tokens} sampled tokens: mean difference {report.mean:.4g} "
        f"(allowed {tolerance:g}), largest {report.max:.4g}, correlation {report.correlation:.4f}, slope {report.slope:.3f}. "
        f"Likely cause: {cause}",
        place="rollout.parity_tolerance",
        fix=fix,
    )


def _likely_cause(report: ParityReport) -> tuple[str, str]:
    """A guess from the pattern of the differences, and what to try."""
    if not math.isfinite(report.mean):
        return "log-probs that are not finite", "look for non-finite weights or an overflow of the dtype; try dtype: float32"
    if report.correlation < 0.5:
        return (
            "the two sides do not score the same tokens (another tokenizer or chat template, positions shifted by one), or hold "
            "weights with little in common (stale ones, a dropped adapter)",
            "check that both load the same model folder and tokenizer, that prompts reach both as the same token ids, and that "
            "every step publishes",
        )
    if report.correlation > 0.9 and abs(report.slope - 1) > 0.1:
        return (
            "another temperature on one side (the differences grow with -log p), or scaled logits",
            "check that the trainer divides its logits by rollout.temperature and that both apply the same soft-capping",
        )
    if report.correlation > 0.999:
        return (
            "rounding: different dtypes or attention kernels",
            "use the same dtype and attn_implementation on both sides, or raise rollout.parity_tolerance for bfloat16",
        )
    return (
        "the sampler holds other weights (stale ones, a publish that left out tied embeddings, a dropped adapter), or "
        "reads other prompts (another tokenizer or chat template)",
        "check that every step publishes, that all names arrive, and that a LoRA adapter is active on both sides",
    )
