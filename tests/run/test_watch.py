"""Each note comes when it should, not before, and not at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from align.run.watch import Watch


def kinds(history: Sequence[dict[str, float]], every: int = 20) -> list[list[str]]:
    watch = Watch(every=every)
    return [[note.kind for note in watch.look(step, metrics)] for step, metrics in enumerate(history, start=1)]


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        ({"reward": math.nan, "frac_reward_zero_std": 1.0}, "reward_missing"),
        ({"reward": 0.0, "frac_reward_zero_std": 1.0}, "all_equal"),
        ({"completions/clipped_ratio": 0.95}, "truncated"),
        ({"rewards/math/error_rate": 0.02, "rewards/task/error_rate": 0.0}, "reward_errors"),
        ({"grad_norm": math.nan}, "gradient"),
    ],
)
def test_seen_in_a_single_step(metrics: dict[str, float], kind: str) -> None:
    assert kinds([metrics]) == [[kind]]


def test_a_healthy_run_gets_no_notes() -> None:
    healthy = {
        "reward": 0.4,
        "frac_reward_zero_std": 0.3,
        "completions/clipped_ratio": 0.1,
        "kl": 0.01,
        "entropy": 0.6,
        "grad_norm": 0.4,
    }
    assert kinds([healthy | {"rewards/math/error_rate": 0.0}] * 30) == [[]] * 30
    assert kinds([{}, {"loss": 1.0}]) == [[], []]


def test_a_critic_learns_from_equal_groups_that_differ_from_each_other() -> None:
    equal = {"reward": 0.5, "frac_reward_zero_std": 1.0, "critic/value_mean": 0.4}
    assert kinds([equal | {"reward_std": 0.5}, equal | {"reward_std": 0.0}]) == [[], ["all_equal"]]


def test_what_is_usual_is_learned_first() -> None:
    for key, usual, jump, kind in [("kl", 0.01, 0.06, "kl_jump"), ("grad_norm", 0.5, 11.0, "gradient")]:
        assert kinds([{key: jump}]) == [[]]
        assert kinds([{key: usual}] * 5 + [{key: jump}])[-1] == [kind]
        assert kinds([{key: usual}] * 4 + [{key: jump}])[-1] == []
        assert kinds([{key: usual}] * 5 + [{key: usual * 4}])[-1] == []


def test_entropy_is_compared_with_the_start() -> None:
    rl = {"reward": 0.5}
    low, lower = {"entropy": 0.11}, {"entropy": 0.09}
    assert kinds([rl | {"entropy": 1.0}] * 5 + [rl | low, rl | lower])[-2:] == [[], ["entropy_collapse"]]
    assert kinds([{"entropy": 1.0}] * 5 + [lower])[-1] == []  # without a reward it is imitation, which is meant to lower it


def test_the_same_note_rests_for_a_while_but_others_come_through() -> None:
    cut = {"completions/clipped_ratio": 1.0}
    found = kinds([cut, cut, cut | {"grad_norm": math.inf}, cut, cut], every=3)
    assert found == [["truncated"], [], ["gradient"], ["truncated"], []]


def test_a_note_says_what_happened_and_what_to_try() -> None:
    (note,) = Watch().look(1, {"rewards/math/error_rate": 0.25})
    assert "rewards/math failed on 25.0% of the samples" in note.text
    assert "/detail" in note.suggestion
