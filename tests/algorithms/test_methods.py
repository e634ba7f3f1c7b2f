"""Named methods: what they are made of, what overrides change, what is refused, and their advantages."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import get_args

import pytest
import torch

from align.algorithms.bundle import KL, Correction
from align.algorithms.kl import AdaptiveKL, FixedKL
from align.algorithms.methods import METHODS, resolve
from align.algorithms.names import METHOD_LOSSES, METHOD_NAMES, MISMATCH_MODES, REDUCTION_NAMES
from align.recipe.schema import Algorithm, Mismatch, Overlong


def as_overrides(**keys):
    """What a recipe's algorithm section hands over."""
    algorithm = Algorithm(**keys)
    return {name: getattr(algorithm, name) for name in Algorithm.model_fields if name != "method"}


def test_names_without_torch_are_those_of_the_registries():
    assert tuple(METHODS) == METHOD_NAMES
    assert {name: method.loss for name, method in METHODS.items()} == METHOD_LOSSES
    assert set(REDUCTION_NAMES) == set(get_args(get_args(Algorithm.model_fields["reduce"].annotation)[0]))
    assert set(MISMATCH_MODES) == set(get_args(Mismatch.model_fields["mode"].annotation))


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("grpo", ("group", "mean", "group_std", "clip", "sequence_mean", ("k3", "loss"))),
        ("dr_grpo", ("group", "mean", "none", "clip", "sequence_sum_norm", None)),
        ("dapo", ("group", "mean", "group_std", "clip", "token_mean", None)),
        ("gspo", ("group", "mean", "group_std", "gspo", "sequence_mean", None)),
        ("cispo", ("group", "mean", "group_std", "cispo", "token_mean", None)),
        ("rloo", ("group", "leave_one_out", "none", "importance", "sequence_sum", ("k1", "reward"))),
        ("reinforce", ("group", "none", "none", "reinforce", "token_mean", ("k1", "reward"))),
        ("reinforce++", ("reinforce++", "none", "none", "clip", "token_mean", ("k1", "reward"))),
        ("reinforce++_baseline", ("reinforce++_baseline", "mean", "none", "clip", "token_mean", ("k2", "loss"))),
    ],
)
def test_the_table(name, pieces):
    method = METHODS[name]
    kl = (method.kl.kind, method.kl.where) if method.kl else None
    assert (method.advantage, method.baseline, method.scale, method.loss, method.reduce, kl) == pieces
    assert (method.dynamic_sampling, method.overlong) == ((name == "dapo"),) * 2


def test_the_table_s_bounds():
    assert METHODS["dapo"].knobs == {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": None}
    assert METHODS["grpo"].knobs == {"eps_low": 0.2, "eps_high": 0.2, "dual_clip": None}
    assert METHODS["gspo"].knobs == {"eps_low": 3e-4, "eps_high": 4e-4, "dual_clip": None}


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_recipe_that_says_nothing_changes_nothing(name):
    assert resolve(name) == METHODS[name]
    method = resolve(name, **as_overrides())
    assert asdict(method) == asdict(METHODS[name]) | {"kl": asdict(method.kl) if method.kl else None}


def test_every_key_of_the_schema_is_understood():
    method = resolve(
        "grpo",
        **as_overrides(
            baseline="leave_one_out", scale="batch_std", loss="clip", epsilon=0.1, epsilon_high=0.3, dual_clip=4.0,
            knobs={"eps_low": 0.1}, reduce="sequence_sum_norm", norm_length=128, beta=0.2, kl="k2", kl_in="reward", kl_target=0.5,
            kl_horizon=77, entropy_coefficient=0.01, mismatch=Mismatch(mode="token_mask", low=0.1, high=3.0),
            dynamic_sampling=True, max_resamples=3, overlong=Overlong(), mask_truncated=True,
        ),
    )  # fmt: skip
    assert method.describe() == {
        "name": "grpo",
        "advantage": "group",
        "baseline": "leave_one_out",
        "scale": "batch_std",
        "loss": "clip",
        "knobs": {"eps_low": 0.1, "eps_high": 0.3, "dual_clip": 4.0},
        "reduce": "sequence_sum_norm",
        "norm_length": 128,
        "kl": {"kind": "k2", "where": "reward", "beta": 0.2, "target": 0.5, "horizon": 77},
        "gamma": 1.0,
        "entropy_coefficient": 0.01,
        "mismatch": {"mode": "token_mask", "low": 0.1, "high": 3.0},
        "dynamic_sampling": True,
        "max_resamples": 3,
        "overlong": True,
        "mask_truncated": True,
    }


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_descriptions_are_plain_and_complete(name):
    described = METHODS[name].describe()
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {field.name for field in fields(METHODS[name])}


def test_epsilon_sets_both_bounds():
    assert resolve("dapo", epsilon=0.1).knobs == {"eps_low": 0.1, "eps_high": 0.1, "dual_clip": None}
    assert resolve("dapo", epsilon_high=0.5).knobs == {"eps_low": 0.2, "eps_high": 0.5, "dual_clip": None}
    assert resolve("cispo", knobs={"cap": 3.0}).knobs == {"cap": 3.0}
    assert resolve("grpo", epsilon=0.0).knobs["eps_high"] == 0


def test_another_loss_brings_its_own_knobs():
    assert resolve("dapo", loss="gspo").knobs == METHODS["gspo"].knobs
    assert resolve("dapo", loss="sapo", knobs={"tau_neg": 2.0}).knobs == {"tau_pos": 1.0, "tau_neg": 2.0}
    assert resolve("dapo", loss="clip").knobs == METHODS["dapo"].knobs


def test_beta_adds_and_removes_the_kl_term():
    assert resolve("grpo", beta=0.0).kl is None
    assert resolve("dapo", beta=0.3).kl == KL(kind="k3", where="loss", beta=0.3)
    assert resolve("dapo", beta=0.3, kl="k1", kl_in="reward").kl == KL(kind="k1", where="reward", beta=0.3)
    assert resolve("rloo", beta=0.3).kl == KL(kind="k1", where="reward", beta=0.3)
    assert resolve("grpo", kl="k2").kl == KL(kind="k2", where="loss", beta=0.04)
    assert resolve("dr_grpo", kl_horizon=10_000).kl is None


def test_the_kl_term_makes_its_controller():
    fixed, adaptive = resolve("grpo").kl, resolve("grpo", kl_target=2.0, kl_horizon=5).kl
    assert fixed is not None
    assert isinstance(fixed.controller(), FixedKL)
    assert fixed.controller().beta == 0.04
    assert adaptive is not None
    controller = adaptive.controller()
    assert isinstance(controller, AdaptiveKL)
    assert (controller.beta, controller.target, controller.horizon) == (0.04, 2.0, 5)


def test_mismatch_and_overlong_come_as_objects_or_mappings():
    expected = Correction(mode="token_truncate", low=0.5, high=2.0)
    assert resolve("grpo", mismatch=Mismatch()).mismatch == expected
    assert resolve("grpo", mismatch=Mismatch().model_dump()).mismatch == expected
    assert resolve("grpo", overlong=Overlong().model_dump()).overlong is True
    assert resolve("dapo", overlong=False).overlong is False


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("grop", {}, "did you mean grpo"),
        ("trpo!", {"beta": 1}, "no method 'trpo!'"),
        ("grpo", {"epslion": 0.1}, "did you mean epsilon"),
        ("grpo", {"loss": "clipp"}, "did you mean clip"),
        ("grpo", {"reduce": "token_men"}, "did you mean token_mean"),
        ("grpo", {"baseline": "men"}, "did you mean mean"),
        ("grpo", {"scale": "std"}, "group_std"),
        ("grpo", {"kl": "k7"}, "k1"),
        ("grpo", {"kl_in": "los"}, "did you mean loss"),
        ("grpo", {"knobs": {"cap": 2.0}}, "eps_low, eps_high, dual_clip"),
        ("cispo", {"epsilon": 0.2}, "it takes: cap"),
        ("reinforce", {"dual_clip": 2.0}, "it takes: none"),
        ("grpo", {"epsilon": 0.2, "knobs": {"eps_low": 0.3}}, "given twice"),
        ("grpo", {"dual_clip": 1.0}, "above 1"),
        ("grpo", {"epsilon": -0.1}, "at least 0"),
        ("cispo", {"knobs": {"cap": 0.0}}, "above 0"),
        ("grpo", {"beta": -1.0}, "negative"),
        ("dapo", {"kl": "k2"}, "give beta"),
        ("dapo", {"kl_target": 1.0}, "give beta"),
        ("grpo", {"beta": 0.0, "kl_target": 1.0}, "above 0"),
        ("grpo", {"beta": 0.0, "kl": "k2"}, "kl has no effect"),
        ("dapo", {"beta": 0.0, "kl_in": "reward"}, "kl_in has no effect"),
        ("reinforce++", {"baseline": "mean"}, "whitens"),
        ("reinforce++_baseline", {"scale": "group_std"}, "whitens"),
        ("reinforce", {"scale": "group_std"}, "baseline"),
        ("grpo", {"gamma": 0.9}, "gamma"),
        ("grpo", {"norm_length": 5}, "sequence_sum_norm"),
        ("grpo", {"mismatch": {"mode": "token", "low": 0.5, "high": 2.0}}, "did you mean token_mask"),
        ("grpo", {"mismatch": {"mode": "token_mask", "low": 3.0, "high": 2.0}}, "leaves none"),
    ],
)
def test_what_does_not_fit_is_refused(name, overrides, says):
    with pytest.raises(ValueError, match=says):
        resolve(name, **overrides)


def test_gamma_belongs_to_reinforce_plus_plus():
    assert resolve("reinforce++", gamma=0.9).gamma == 0.9


SEGMENT_N, MASK_N = torch.tensor([0, 0, 1, 2, 2, 3]), torch.tensor([1, 0, 1, 1, 1, 1])
REWARDS_PG = torch.tensor([[1.0, 0.0], [2.0, math.nan]], dtype=torch.float64)
KL_N = torch.tensor([0.5, math.nan, 0.25, 1.0, 2.0, 3.0], dtype=torch.float64)


def test_group_advantages_are_spread_over_trained_tokens():
    got = resolve("dr_grpo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N)
    assert got.tolist() == [0.5, 0, -0.5, 0, 0, 0]


def test_kl_in_the_reward_goes_before_the_baseline():
    # rewards 1 - 0.1 * 0.5 and 0 - 0.1 * 0.25, each minus the other
    got = resolve("rloo").advantages(REWARDS_PG, KL_N, SEGMENT_N, MASK_N, 0.1)
    torch.testing.assert_close(got, torch.tensor([0.975, 0, -0.975, 0, 0, 0], dtype=torch.float64))
    # without a baseline, and with the method's own coefficient of 0.05: 2 - 0.05 * 3 in the second prompt
    got = resolve("reinforce").advantages(REWARDS_PG, KL_N, SEGMENT_N, MASK_N)
    torch.testing.assert_close(got, torch.tensor([0.975, 0, -0.0125, 1.85, 1.85, 0], dtype=torch.float64))


def test_kl_in_the_loss_leaves_advantages_alone():
    assert torch.equal(
        resolve("grpo").advantages(REWARDS_PG, KL_N, SEGMENT_N, MASK_N, 9.0),
        resolve("grpo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N),
    )


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_equal_rewards_give_exactly_nothing(name):
    rewards_PG = torch.full((2, 2), 0.1)
    method = resolve(name, beta=0.0, **({"baseline": "mean"} if name == "reinforce" else {}))
    assert (method.advantages(rewards_PG, None, SEGMENT_N, MASK_N) == 0).all()


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_without_a_verdict_there_is_no_advantage(name):
    method, random = resolve(name, beta=0.0), torch.Generator().manual_seed(1)
    segment_N, mask_N = torch.arange(12) // 2, torch.ones(12)
    rewards_PG = torch.randn(2, 3, generator=random, dtype=torch.float64)
    rewards_PG[0, 1] = math.nan
    got = method.advantages(rewards_PG, None, segment_N, mask_N)
    assert got.isfinite().all()
    assert (got[segment_N == 1] == 0).all()
    assert (got[segment_N != 1] != 0).all()


def test_needs_are_said():
    with pytest.raises(ValueError, match="kl_N"):
        resolve("rloo").advantages(REWARDS_PG, None, SEGMENT_N, MASK_N)
    with pytest.raises(ValueError, match="rewards_PG"):
        resolve("grpo").advantages(REWARDS_PG[:1], None, SEGMENT_N, MASK_N)
