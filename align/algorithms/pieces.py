"""The optional pieces of a method, each a few settings."""

from __future__ import annotations

from dataclasses import dataclass

from align.algorithms.kl import AdaptiveKL, FixedKL, KLController
from align.algorithms.names import DemonstrationMode, KLKind, KLPlace, MacroKind, MismatchMode


@dataclass(frozen=True, slots=True, kw_only=True)
class KL:
    """A KL term: which estimate, in the loss or in the reward, and its coefficient, adapted where there is a target."""

    kind: KLKind = "k3"
    where: KLPlace = "loss"
    beta: float
    target: float | None = None
    horizon: int = 10_000

    def controller(self) -> KLController:
        return FixedKL(self.beta) if self.target is None else AdaptiveKL(self.beta, target=self.target, horizon=self.horizon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Weights for a sampler that differs from the trainer, see `mismatch.mismatch_weight`."""

    mode: MismatchMode
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.high <= 0 or (self.mode.endswith("mask") and self.low > self.high):
            raise ValueError(f"mismatch keeps weights within low = {self.low} and high = {self.high}, which leaves none")


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroActions:
    """Tokens credited and clipped in runs, see `macro_actions`: of `length` tokens, or up to the end of a sentence."""

    by: MacroKind = "ngram"
    length: int = 5  # of an ngram

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"macro_actions.length = {self.length} must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """How demonstrations in a group are weighed, see `demonstrations`; `mixture` needs the size of the vocabulary."""

    mode: DemonstrationMode = "shaped"
    gamma: float | None = None  # None: 0.1 for shaped, 1 for mixture
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        if self.gamma is not None and self.gamma <= 0:
            raise ValueError(f"demonstrations.gamma = {self.gamma} must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSchedule:
    """Every `every` steps the reference moves: to `mix` * policy + (1 - `mix`) * reference.

    A `mix` of 1 replaces it (prolonged RL, Liu et al. 2025, "ProRL"); less follows the policy (TR-DPO, Gorbatovski et al. 2024).
    """

    every: int
    mix: float = 1.0
    reset_optimizer: bool = False  # forget the optimizer's moments at every move, as ProRL does

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"reference.every = {self.every} must be at least 1: a number of steps")
        if not 0 < self.mix <= 1:
            raise ValueError(f"reference.mix = {self.mix} must be above 0 and at most 1: the policy's share")

    def share(self, step: int) -> float:
        """The policy's share in the new reference after step `step` (from 1); 0 where it stays."""
        return self.mix if step % self.every == 0 else 0.0
