"""Named methods: what they are made of, what overrides change, what is refused, and their advantages."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import get_args

import pytest

from align.algorithms.bundle import KL, Correction
from align.algorithms.entropy import AdaptiveEntropy, FixedEntropy
from align.algorithms.kl import AdaptiveKL, FixedKL
from align.algorithms.methods import _OWN_PIECES, METHODS, resolve
from align.algorithms.names import (
    ADVANTAGE_NAMES,
    ADVANTAGE_NEEDS,
    METHOD_ADVANTAGES,
    METHOD_LOSSES,
    METHOD_NAMES,
    MISMATCH_MODES,
    REDUCTION_NAMES,
    UNGROUPED_ADVANTAGES,
)
from align.recipe.schema import Algorithm, Mismatch, Overlong


def as_overrides(**keys):
    """What a recipe's algorithm section hands over."""
    algorithm = Algorithm(**keys)
    return {name: getattr(algorithm, name) for name in Algorithm.model_fields if name != "method"}


def test_names_without_torch_are_those_of_the_registries():
    assert tuple(METHODS) == METHOD_NAMES
    assert set(_OWN_PIECES) <= set(METHOD_NAMES)
    assert {name: method.loss for name, method in METHODS.items()} == METHOD_LOSSES
    assert {name: method.advantage for name, method in METHODS.items()} == METHOD_ADVANTAGES
    assert set(ADVANTAGE_NEEDS) | set(UNGROUPED_ADVANTAGES) <= set(ADVANTAGE_NAMES)
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
        ("ppo", ("gae", "none", "none", "clip", "token_mean", ("k1", "reward"))),
        ("remax", ("remax", "none", "none", "reinforce", "sequence_sum", ("k1", "reward"))),
        ("raft", ("selection", "none", "none", "raft", "token_mean", None)),
        ("expert_iteration", ("selection", "none", "none", "raft", "token_mean", None)),
        ("nft", ("group", "mean", "group_std", "nft", "token_mean", None)),
        ("opo", ("opo", "none", "none", "reinforce", "sequence_sum", None)),
        ("topr", ("group", "mean", "none", "tapered", "sequence_sum", None)),
        ("gmpo", ("group", "mean", "group_std", "gmpo", "sequence_mean", None)),
        ("sapo", ("group", "mean", "group_std", "sapo", "sequence_mean", None)),
        ("dppo", ("group", "mean", "group_std", "dppo", "token_mean", None)),
        ("clip_cov", ("group", "mean", "group_std", "clip_cov", "token_mean", None)),
        ("kl_cov", ("group", "mean", "group_std", "kl_cov", "token_mean", None)),
        ("rebel", ("group", "mean", "none", "rebel", "sequence_sum", None)),
        ("copg", ("group", "mean", "none", "copg", "sequence_sum", ("k1", "reward"))),
        ("opmd", ("group", "mean", "none", "opmd", "sequence_sum", None)),
        ("pass@k", ("pass@k", "none", "none", "clip", "token_mean", None)),
        ("distill", ("distill", "none", "none", "importance", "token_mean", None)),
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
            entropy_mask=0.2, entropy_target=0.3, reference={"every": 50, "mix": 0.5}, demonstrations={"mode": "mixture"},
            macro_actions={"by": "sentence"},
        ),
    )  # fmt: skip
    assert method.describe() == {
        "name": "grpo",
        "advantage": "group",
        "baseline": "leave_one_out",
        "scale": "batch_std",
        "pass_k": 4,
        "choose": "best",
        "threshold": 0.0,
        "gamma": 1.0,
        "lam": 0.95,
        "length_adaptive_lambda": None,
        "critic_lam": None,
        "bootstrap_truncated": False,
        "teacher_coefficient": 0.0,
        "macro_actions": {"by": "sentence", "length": 5},
        "loss": "clip",
        "knobs": {"eps_low": 0.1, "eps_high": 0.3, "dual_clip": 4.0},
        "demonstrations": {"mode": "mixture", "gamma": None, "vocabulary": None},
        "reduce": "sequence_sum_norm",
        "norm_length": 128,
        "entropy_mask": 0.2,
        "mismatch": {"mode": "token_mask", "low": 0.1, "high": 3.0},
        "kl": {"kind": "k2", "where": "reward", "beta": 0.2, "target": 0.5, "horizon": 77},
        "reference": {"every": 50, "mix": 0.5, "reset_optimizer": False},
        "entropy_coefficient": 0.01,
        "entropy_target": 0.3,
        "entropy_increment": 0.005,
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
        ("grpo", {"advantage": "gea"}, "did you mean gae"),
        ("opo", {"baseline": "mean"}, "no effect on the advantage opo"),
        ("grpo", {"advantage": "opo", "scale": "group_std"}, "without a baseline"),
        ("grpo", {"advantage": "min_form", "scale": "group_std"}, "min_form has no scale"),
        ("grpo", {"pass_k": 2}, "belongs to pass@k"),
        ("grpo", {"choose": "best"}, "belongs to selection"),
        ("raft", {"choose": "bset"}, "did you mean best"),
        ("grpo", {"lam": 0.9}, "belongs to gae"),
        ("ppo", {"lam": 1.5}, "share"),
        ("ppo", {"length_adaptive_lambda": 0.0}, "above 0"),
        ("pass@k", {"pass_k": 0}, "above 0"),
        ("grpo", {"entropy_mask": 0.0}, "share"),
        ("grpo", {"entropy_target": -1.0}, "above 0"),
        ("grpo", {"entropy_target": 1.0, "entropy_coefficient": -0.1}, "at least 0"),
        ("grpo", {"macro_actions": {"by": "word"}}, "macro action"),
        ("grpo", {"macro_actions": {"lenght": 3}}, "did you mean length"),
        ("grpo", {"demonstrations": {"mode": "shape"}}, "did you mean shaped"),
        ("grpo", {"reference": {"every": 0}}, "reference.every"),
        ("grpo", {"reference": {"every": 5, "mix": 1.5}}, "reference.mix"),
        ("dapo", {"reference": {"every": 5}}, "give beta"),
        ("dr_grpo", {"loss": "nft"}, "scale group_std"),
        ("distill", {"beta": 0.1, "kl_in": "reward"}, "put it into the loss"),
        ("kl_cov", {"knobs": {"share": -0.1}}, "at least 0"),
        ("rebel", {"knobs": {"beta": 0.0}}, "above 0"),
        ("grpo", {"norm_length": 5}, "sequence_sum_norm"),
        ("grpo", {"mismatch": {"mode": "token", "low": 0.5, "high": 2.0}}, "did you mean token_mask"),
        ("grpo", {"mismatch": {"mode": "token_mask", "low": 3.0, "high": 2.0}}, "leaves none"),
    ],
)
def test_what_does_not_fit_is_refused(name, overrides, says):
    with pytest.raises(ValueError, match=says):
        resolve(name, **overrides)


def test_gamma_belongs_to_methods_with_time_steps():
    assert resolve("reinforce++", gamma=0.9).gamma == 0.9
    assert resolve("ppo", gamma=0.9, lam=0.8, critic_lam=1.0).critic_lam == 1.0


def test_another_advantage_brings_its_own_baseline():
    assert (resolve("grpo", advantage="opo").baseline, resolve("grpo", advantage="opo").scale) == ("none", "none")
    assert (resolve("raft", advantage="group").baseline, resolve("raft", advantage="group").scale) == ("mean", "none")
    assert resolve("raft", advantage="group", scale="group_std").scale == "group_std"
    assert resolve("grpo", advantage="min_form", baseline="leave_one_out").baseline == "leave_one_out"


def test_what_a_method_needs_of_a_step():
    assert resolve("dapo").needs == frozenset()
    assert resolve("ppo").needs == {"critic", "old"}
    assert resolve("ppo", beta=0.0).needs == {"critic"}
    assert resolve("remax", beta=0.0).needs == {"greedy"}
    assert resolve("distill").needs == {"teacher", "old"}
    assert resolve("dapo", teacher_coefficient=0.5).needs == {"teacher", "old"}
    assert resolve("dapo", entropy_mask=0.2, macro_actions={"by": "sentence"}).needs == {"entropy", "sentences"}


def test_the_scope_of_a_method_is_that_of_its_loss():
    assert (resolve("dapo").scope, resolve("gspo").scope, resolve("rebel").scope) == ("token", "sequence", "batch")
    assert resolve("dapo", macro_actions={"length": 3}).scope == "sequence"
    assert resolve("kl_cov", macro_actions={"length": 3}).scope == "batch"


def test_the_schedule_of_the_reference():
    schedule = resolve("grpo", reference={"every": 3, "mix": 0.25}).reference
    assert schedule is not None
    assert [schedule.share(step) for step in range(1, 7)] == [0, 0, 0.25, 0, 0, 0.25]


def test_the_entropy_bonus_makes_its_controller():
    assert isinstance(resolve("grpo").entropy_controller(), FixedEntropy)
    assert resolve("grpo", entropy_coefficient=0.1).entropy_controller().coefficient == 0.1
    assert isinstance(resolve("grpo", entropy_target=0.5).entropy_controller(), AdaptiveEntropy)
    assert [resolve("grpo").entropy_gradient, resolve("grpo", entropy_target=0.5).entropy_gradient] == [False, True]
