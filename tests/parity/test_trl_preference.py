"""Our preference losses give the losses, gradients and metrics that trl's trainers compute for the same log-probs.

trl averages over the pairs of a batch where we return one value a pair; `ipo` and `dpo_norm` divide by the lengths of the
completions in both.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from align.algorithms.preference import PREFERENCE_LOSSES

PAIRS, WIDTH = 6, 9
# ours: trl's loss_type and settings
DPO = {
    "dpo": ("sigmoid", {}, {}),
    "dpo_norm": ("sigmoid_norm", {}, {}),
    "robust": ("robust", {"label_smoothing": 0.2}, {"label_smoothing": 0.2}),
    "ipo": ("ipo", {}, {}),
    "hinge": ("hinge", {}, {}),
    "exo_pair": ("exo_pair", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "nca_pair": ("nca_pair", {}, {}),
    "bco_pair": ("bco_pair", {}, {}),
    "apo_zero": ("apo_zero", {}, {}),
    "apo_down": ("apo_down", {}, {}),
    "sppo_hard": ("sppo_hard", {}, {}),
    "discopop": ("discopop", {"discopop_tau": 0.05}, {"tau": 0.05}),
    "aot": ("aot", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "aot_unpaired": ("aot_unpaired", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "online_dpo": ("sigmoid", {}, {}),  # the online trainer has the same formula inside its training step
    "dno": ("sigmoid", {}, {}),
}
# ours: trl's CPO loss_type and settings; its simpo takes log-probs a token, its losses leave the imitation to be added outside
CPO = {
    "cpo": ("sigmoid", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "simpo": ("simpo", {"simpo_gamma": 0.4, "label_smoothing": 0.1}, {"gamma": 0.4, "label_smoothing": 0.1}),
}


class Alone:
    """An accelerator of one process."""

    device = torch.device("cpu")

    def gather(self, x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather


class Drawn:
    """Random pairs: log-probs [2 x pairs, width] of the policy, chosen first, and sums of the reference."""

    def __init__(self, seed: int, pairs: int = PAIRS) -> None:
        random = torch.Generator().manual_seed(seed)
        shape = (2 * pairs, WIDTH)
        length_B = torch.randint(2, WIDTH + 1, shape[:1], generator=random)
        self.mask_BT = torch.arange(WIDTH) < length_B[:, None]
        self.logp_BT = (-torch.randn(shape, generator=random, dtype=torch.float64).abs() * self.mask_BT).requires_grad_()
        moved_BT = 0.5 * torch.randn(shape, generator=random, dtype=torch.float64)
        self.ref_B = ((self.logp_BT.detach() + moved_BT) * self.mask_BT).sum(1)

    def ours(self, name: str, *, beta: float, **knobs: Any) -> Tensor:
        chosen_B, rejected_B = self.logp_BT.sum(1).chunk(2)
        chosen_length_B, rejected_length_B = self.mask_BT.sum(1).double().chunk(2)
        return PREFERENCE_LOSSES[name](
            chosen_B,
            rejected_B,
            *self.ref_B.chunk(2),
            beta=beta,
            chosen_length_B=chosen_length_B,
            rejected_length_B=rejected_length_B,
            **knobs,
        )

    def model(self, **_: Any) -> Any:
        """What trl's forward pass returns; only the log-probs reach the loss."""
        zeros_BT = torch.zeros(self.mask_BT.shape)
        return SimpleNamespace(log_probs=self.logp_BT, entropy=zeros_BT, mean_logits=zeros_BT, is_top1=zeros_BT.bool())

    def inputs(self) -> dict[str, Tensor]:
        prompt_B1 = torch.zeros(len(self.mask_BT), 1, dtype=torch.bool)
        completion = torch.cat([prompt_B1, self.mask_BT], 1).long()
        chosen_B, rejected_B = self.ref_B.chunk(2)
        return {
            "input_ids": torch.zeros_like(completion),
            "attention_mask": torch.ones_like(completion),
            "completion_mask": completion,
            "ref_chosen_logps": chosen_B,
            "ref_rejected_logps": rejected_B,
        }


def trl_self(**settings: Any) -> Any:
    """What the loss methods read of a trainer."""
    attributes: dict[str, Any] = {
        "accelerator": Alone(),
        "model": SimpleNamespace(training=True),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "aux_loss_enabled": False,
        "use_weighting": False,
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl",
        "label_smoothing": 0.0,
        "loss_weights": [1.0],
        "beta": 0.3,
    }
    return SimpleNamespace(**attributes | settings)


def assert_equal(ours: Tensor, theirs: Tensor, drawn: Drawn) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6, rel=1e-6)
    a_BT, b_BT = (torch.autograd.grad(loss, drawn.logp_BT, retain_graph=True)[0] * drawn.mask_BT for loss in (ours, theirs))
    assert torch.allclose(a_BT, b_BT, atol=1e-6)
    assert a_BT.abs().sum() > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", DPO)
def test_dpo_trainer(name: str, seed: int) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    drawn, (loss_type, settings, knobs) = Drawn(seed), DPO[name]
    args = SimpleNamespace(discopop_tau=settings.get("discopop_tau"))
    trainer = trl_self(loss_types=[loss_type], args=args, **settings)
    theirs = DPOTrainer._compute_loss(trainer, drawn.model, drawn.inputs(), False)
    assert_equal(drawn.ours(name, beta=0.3, **knobs).mean(), theirs, drawn)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rpo_is_sigmoid_with_imitation(seed: int) -> None:
    """trl averages its `sft` over the tokens of the batch: of a single pair that is the pair's own average."""
    from trl.trainer.dpo_trainer import DPOTrainer

    drawn = Drawn(seed, pairs=1)
    trainer = trl_self(loss_types=["sigmoid", "sft"], loss_weights=[1.0, 0.7])
    theirs = DPOTrainer._compute_loss(trainer, drawn.model, drawn.inputs(), False)
    assert_equal(drawn.ours("rpo", beta=0.3, alpha=0.7).mean(), theirs, drawn)
    mixed_B = drawn.ours("dpo", beta=0.3) + 0.7 * drawn.ours("sft", beta=0.3)
    assert_equal(mixed_B.mean(), theirs, drawn)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mismatched", [[0.4, 1.5], [-2.0, 0.5]])  # the second is clamped at 0
def test_kto_trainer(seed: int, mismatched: list[float]) -> None:
    from trl.trainer.kto_trainer import KTOTrainer

    drawn, kl_B = Drawn(seed), torch.tensor(mismatched, dtype=torch.float64)
    trainer = trl_self(
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=1.3,
        undesirable_weight=0.6,
        _compute_kl_logps=lambda *_: kl_B,
    )
    labels = torch.arange(2 * PAIRS) < PAIRS
    inputs = {**drawn.inputs(), "label": labels, "ref_logps": drawn.ref_B, "ref_KL_logps": torch.zeros_like(kl_B)}
    theirs = KTOTrainer._compute_loss(trainer, drawn.model, inputs, False)
    ours_B = drawn.ours("kto", beta=0.3, kl_B=kl_B, desirable_weight=1.3, undesirable_weight=0.6)
    assert_equal(ours_B.mean(), theirs, drawn)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", CPO)
def test_cpo_trainer(name: str, seed: int) -> None:
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    drawn, (loss_type, settings, knobs) = Drawn(seed), CPO[name]
    sums: Any = drawn.logp_BT.sum(1).chunk(2)
    chosen_B, rejected_B = sums
    lengths_B = drawn.mask_BT.sum(1).chunk(2)
    if name == "simpo":
        chosen_B, rejected_B = chosen_B / lengths_B[0], rejected_B / lengths_B[1]
    theirs_B, *_ = CPOTrainer.cpo_loss(trl_self(loss_type=loss_type, alpha=0.0, **settings), chosen_B, rejected_B)
    ours_B = drawn.ours(name, beta=0.3, **knobs, **({"alpha": 0.0} if name == "cpo" else {}))
    assert_equal(ours_B.sum(), theirs_B.sum(), drawn)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_orpo_trainer(seed: int) -> None:
    """trl's loss takes log-probs a token, in float32, has the opposite sign, and leaves the imitation to be added outside."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    drawn = Drawn(seed)
    means: Any = (drawn.logp_BT.sum(1) / drawn.mask_BT.sum(1)).chunk(2)
    chosen_B, rejected_B = means
    theirs_B, *_ = ORPOTrainer.odds_ratio_loss(trl_self(), chosen_B, rejected_B)
    assert_equal(drawn.ours("orpo", beta=0.3).sum(), (-chosen_B).sum() - theirs_B.sum(), drawn)
