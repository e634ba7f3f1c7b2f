from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from align.evaluate.statistics import compare_paired, holm
from align.evaluate.statistics.paired import flip_test


def all_flips(differences: list[float]) -> float:
    observed = abs(sum(differences)) - 1e-9
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(one >= observed for one in sums) / len(sums)


def test_mcnemars_exact_test_by_hand() -> None:
    """Eight problems gained, one lost: 2 * (C(9,8) + C(9,9)) / 2^9 = 20 / 512."""
    first = [0.0] * 8 + [1.0] + [1.0] * 11
    second = [1.0] * 8 + [0.0] + [1.0] * 11
    compared = compare_paired(first, second)
    assert compared.p_flip == 20 / 512
    assert (compared.difference, compared.higher, compared.lower, compared.problems) == (pytest.approx(7 / 20), 8, 1, 20)


@pytest.mark.parametrize("differences", [[0.5, 0.25, 0.25, -0.125], [1.0, -0.5, 0.5, 0.5, 0.25, 0.125], [0.3], [0.2, 0.2, -0.2]])
def test_equal_to_all_flips_one_by_one(differences: list[float]) -> None:
    assert flip_test(np.array(differences)) == pytest.approx(all_flips(differences), abs=1e-12)


def test_random_flips_agree_with_all_of_them() -> None:
    random = np.random.default_rng(0)
    differences = np.round(random.normal(0.1, 0.3, size=13), 2)
    repeated = np.concatenate([differences, [0.0, 0.0]])
    exact = flip_test(repeated)
    assert exact == pytest.approx(all_flips(differences.tolist()), abs=1e-12)
    from align.evaluate.statistics import paired

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired, "_EXACT_FLIPS", 0)
        assert flip_test(repeated, seed=1) == pytest.approx(exact, abs=0.006)
        assert flip_test(repeated, seed=1) == flip_test(repeated, seed=1)


def test_no_difference_has_p_one_and_an_interval_that_is_no_point() -> None:
    compared = compare_paired([1.0, 0.0] * 20, [1.0, 0.0] * 20)
    assert (compared.difference, compared.p_flip) == (0, 1)
    assert math.isnan(compared.p_t)
    assert compared.to_dict()["p_t"] is None
    assert compared.low == pytest.approx(-compared.high)
    assert 0.01 < compared.high < 0.15
    shares = compare_paired([0.25, 0.75] * 20, [0.25, 0.75] * 20)
    assert 0.01 < shares.high < 0.15


def test_the_standard_error_is_that_of_the_differences() -> None:
    random = np.random.default_rng(1)
    first = random.random(200)
    second = np.clip(first + random.normal(0.05, 0.1, 200), 0, 1)
    compared = compare_paired(first.tolist(), second.tolist())
    variance = first.var(ddof=1) + second.var(ddof=1) - 2 * np.cov(first, second)[0, 1]
    assert compared.standard_error == pytest.approx(math.sqrt(variance / 200))
    assert compared.standard_error < 0.5 * math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 200)
    assert compared.high - compared.low == pytest.approx(2 * 1.971957 * compared.standard_error, rel=1e-5)


def test_bonett_and_price_by_hand() -> None:
    """Of 20 problems 3 gained and 1 lost: mean 2/22 of the wider sample, sum of squares 6 - 22 (2/22)^2 over 21."""
    compared = compare_paired([0.0] * 3 + [1.0] + [1.0] * 16, [1.0] * 3 + [0.0] + [1.0] * 16)
    half = 2.079614 * math.sqrt((6 - 22 * (2 / 22) ** 2) / 21 / 22)
    assert (compared.low, compared.high) == (pytest.approx(2 / 22 - half, rel=1e-5), pytest.approx(2 / 22 + half, rel=1e-5))


def test_swapping_the_models_changes_the_sign_alone() -> None:
    random = np.random.default_rng(3)
    first, second = random.random(40).tolist(), random.random(40).tolist()
    there, back = compare_paired(first, second), compare_paired(second, first)
    assert (there.difference, there.low, there.high) == (
        pytest.approx(-back.difference),
        pytest.approx(-back.high),
        pytest.approx(-back.low),
    )
    assert (there.p_t, there.higher) == (pytest.approx(back.p_t), back.lower)
    assert there.p_flip == pytest.approx(back.p_flip, abs=0.01)


def test_clusters_flip_together() -> None:
    """Ten gains in two texts are two gains: no p-value below 1/2."""
    first, second = [0.0] * 10, [1.0] * 10
    assert compare_paired(first, second).p_flip == 2 / 2**10
    assert compare_paired(first, second, clusters_P=["a"] * 5 + ["b"] * 5).p_flip == 2 / 2**2


def test_false_alarms_are_as_rare_as_promised() -> None:
    random = np.random.default_rng(5)
    alarms_flip = alarms_t = 0
    for trial in range(300):
        chance = random.beta(2, 2, size=60)
        first, second = (random.binomial(4, chance) / 4 for _ in range(2))
        compared = compare_paired(first.tolist(), second.tolist(), flips=1000, seed=trial)
        alarms_flip += compared.p_flip <= 0.05
        alarms_t += compared.p_t <= 0.05
    assert alarms_flip <= 30  # 15 expected; 30 are four standard deviations more
    assert alarms_t <= 30


@pytest.mark.parametrize(("first", "second"), [([], []), ([0.1], [0.1, 0.2]), ([1.5], [0.0]), ([math.nan], [0.0])])
def test_values_that_cannot_be_compared_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        compare_paired(first, second)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.001]) == pytest.approx([0.04, 0.002])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="lie in"):
        holm([1.2])
