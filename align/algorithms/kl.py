"""KL penalties: per-token estimates against a reference policy, and the coefficient they are weighed with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from align.algorithms.names import KLKind
from align.algorithms.segments import LOG_RATIO_BOUND, widen


def kl_estimate(logp_N: Tensor, ref_N: Tensor, kind: KLKind) -> Tensor:
    """Estimates of KL(policy || reference) from the policy's own samples: kl_N (Schulman 2020, "Approximating KL Divergence").

    With d = logp - ref: k1 = d (unbiased, may be negative); k2 = d^2 / 2 (its gradient is that of the KL);
    k3 = exp(-d) - 1 + d (unbiased, never negative). Raises ValueError on another kind.
    """
    d_N = widen(logp_N) - widen(ref_N)
    match kind:
        case "k1":
            return d_N
        case "k2":
            return d_N.square() / 2
        case "k3":
            return torch.expm1((-d_N).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)) + d_N
    raise ValueError(f"KL estimate {kind!r} is none of k1, k2, k3")


class KLController(Protocol):
    """Decides the coefficient of the KL term from step to step."""

    @property
    def beta(self) -> float: ...

    def update(self, kl: float, samples: int) -> None: ...

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: Mapping[str, float]) -> None: ...


class FixedKL:
    """A constant coefficient."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    @property
    def beta(self) -> float:
        return self._beta

    def update(self, kl: float, samples: int) -> None:
        """Nothing moves a fixed coefficient."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """A constant is the recipe's, also on resume."""


class AdaptiveKL:
    """A coefficient that grows while the KL is above `target` and shrinks below it (Ziegler et al. 2019, sec. 2.2).

    After a step with `samples` sequences at mean KL `kl`: beta *= 1 + clip(kl / target - 1, -0.2, 0.2) * samples / horizon,
    where a step larger than the horizon counts as one horizon, so that beta stays above 0.
    """

    def __init__(self, beta: float, *, target: float, horizon: int) -> None:
        if beta <= 0 or target <= 0 or horizon <= 0:
            raise ValueError(f"an adaptive KL needs beta, target and horizon above 0, got {beta}, {target} and {horizon}")
        self._beta, self.target, self.horizon = beta, target, horizon

    @property
    def beta(self) -> float:
        return self._beta

    def update(self, kl: float, samples: int) -> None:
        """Move the coefficient after a step. Raises ValueError when `kl` is not finite: it would poison every later step."""
        if not math.isfinite(kl):
            raise ValueError(f"cannot adapt the KL coefficient to a KL of {kl}")
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self._beta *= 1 + error * min(samples / self.horizon, 1.0)

    def state_dict(self) -> dict[str, float]:
        return {"beta": self._beta}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._beta = state["beta"]
