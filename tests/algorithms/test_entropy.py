"""The coefficient of the entropy bonus: constant, or with a target."""

from __future__ import annotations

import math

import pytest

from align.algorithms.entropy import AdaptiveEntropy, FixedEntropy


def test_a_fixed_coefficient_stays():
    fixed = FixedEntropy(0.1)
    fixed.update(5.0)
    fixed.load_state_dict(fixed.state_dict())
    assert fixed.coefficient == 0.1


def test_the_coefficient_grows_below_the_target_and_rests_above():
    adaptive, seen = AdaptiveEntropy(0.0, target=0.5, increment=0.1), []
    for entropy in (0.4, 0.3, 0.5, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9):
        adaptive.update(entropy)
        seen.append(adaptive.coefficient)
    assert seen == pytest.approx([0.1, 0.2, 0.1, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0])
    adaptive.update(0.1)
    assert adaptive.coefficient == pytest.approx(0.1)  # it has not gone below 0


def test_it_goes_on_where_it_was_saved():
    one = AdaptiveEntropy(0.2, target=0.5, increment=0.1)
    assert one.coefficient == 0.2
    one.update(0.9)
    other = AdaptiveEntropy(0.2, target=0.5, increment=0.1)
    other.load_state_dict(one.state_dict())
    assert other.coefficient == 0.0
    for entropy in (0.1, 0.1):
        one.update(entropy)
        other.update(entropy)
    assert other.coefficient == one.coefficient == pytest.approx(0.3)


@pytest.mark.parametrize("settings", [(-0.1, 1.0, 0.1), (0.0, 0.0, 0.1), (0.0, 1.0, 0.0)])
def test_what_means_nothing_is_refused(settings):
    coefficient, target, increment = settings
    with pytest.raises(ValueError, match="entropy target"):
        AdaptiveEntropy(coefficient, target=target, increment=increment)
    with pytest.raises(ValueError, match="nan"):
        AdaptiveEntropy(0.0, target=1.0, increment=0.1).update(math.nan)
