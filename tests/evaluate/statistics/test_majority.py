from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from align.evaluate.statistics import AnswerClass, answer_classes, maj_at_k, majority


def classes_of(right: Sequence[int], wrong: Sequence[int]) -> list[AnswerClass]:
    return [AnswerClass(count=count, correct=correct) for side, correct in ((right, True), (wrong, False)) for count in side]


def by_enumeration(right: Sequence[int], wrong: Sequence[int], silent: int, k: int) -> Fraction:
    """Every subset, one by one."""
    samples = [(index, True) for index, count in enumerate(right) for _ in range(count)]
    samples += [(index, False) for index, count in enumerate(wrong) for _ in range(count)]
    samples += [(-1, False)] * silent
    subsets = list(itertools.combinations(samples, k))
    won = Fraction(0)
    for subset in subsets:
        votes = Counter(sample for sample in subset if sample[0] >= 0)
        best = [sample for sample, count in votes.items() if count == max(votes.values())]
        won += Fraction(sum(correct for _, correct in best), len(best)) if best else 0
    return won / len(subsets)


def test_by_hand() -> None:
    # Two right, one wrong, draw two: {r, r} wins, the two {r, w} are ties: (1 + 1/2 + 1/2) / 3.
    assert maj_at_k(classes_of([2], [1]), 2).value == pytest.approx(2 / 3)
    # All three: two votes to one.
    assert maj_at_k(classes_of([2], [1]), 3).value == 1
    # A tie of one right answer with two wrong ones.
    assert maj_at_k(classes_of([2], [2, 2]), 6).value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("right", "wrong", "silent"),
    [([3], [2, 1], 0), ([2], [4, 2], 1), ([2, 1], [2, 2], 0), ([1], [1, 1, 1], 3), ([5], [], 3), ([4], [3], 2), ([1, 1], [1], 0)],
)
def test_equal_to_every_subset_one_by_one(right: list[int], wrong: list[int], silent: int) -> None:
    for k in range(1, sum(right) + sum(wrong) + silent + 1):
        vote = maj_at_k(classes_of(right, wrong), k, silent=silent)
        assert vote.value == pytest.approx(float(by_enumeration(right, wrong, silent, k)), abs=1e-12), k
        assert vote.error == 0


def test_one_vote_is_the_average_and_order_does_not_matter() -> None:
    assert maj_at_k(classes_of([30], [50, 20]), 1).value == pytest.approx(0.3)
    forward, backward = (maj_at_k(classes_of([30], wrong), 7).value for wrong in ([50, 20, 3], [3, 20, 50]))
    assert forward == pytest.approx(backward, rel=1e-12)


def test_sampled_votes_agree_with_exact_ones_within_their_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for right, wrong, silent, k in (([40], [30, 20], 10, 9), ([10], [12, 5, 5], 0, 16), ([10, 8], [9], 3, 5)):
        exact = maj_at_k(classes_of(right, wrong), k, silent=silent)
        with monkeypatch.context() as patch:
            patch.setattr(majority, "_EXACT_WORK", 0)
            sampled = maj_at_k(classes_of(right, wrong), k, silent=silent, seed=5)
            assert sampled == maj_at_k(classes_of(right, wrong), k, silent=silent, seed=5)
            assert sampled != maj_at_k(classes_of(right, wrong), k, silent=silent, seed=6)
        assert 0 < sampled.error < 0.005
        assert abs(sampled.value - exact.value) < 4 * sampled.error


def test_large_counts_are_sampled_and_say_how_well() -> None:
    vote = maj_at_k(classes_of([500_000], [300_000, 200_000]), 9)
    # With so many samples a draw is as good as one with replacement.
    random = np.random.default_rng(1)
    votes = random.multinomial(9, [0.5, 0.3, 0.2], size=200_000)
    tied = votes == votes.max(axis=1, keepdims=True)
    assert vote.value == pytest.approx(float((tied[:, 0] / tied.sum(axis=1)).mean()), abs=4 * vote.error + 0.004)
    assert 0 < vote.error < 0.01


def test_nothing_right_nothing_said_and_only_right() -> None:
    assert maj_at_k(classes_of([], [3]), 2).value == 0
    assert maj_at_k([], 2, silent=3).value == 0
    assert maj_at_k(classes_of([3], []), 2).value == 1
    assert maj_at_k(classes_of([1], []), 1, silent=3).value == pytest.approx(1 / 4)


@pytest.mark.parametrize("k", [0, 6])
def test_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        maj_at_k(classes_of([2], [3]), k)


def test_answers_are_grouped_by_the_verifiers_equality() -> None:
    answers = ["1/2", "0.5", "2", "2.0", "one half", "0.50"]
    value = {"1/2": 0.5, "0.5": 0.5, "0.50": 0.5, "2": 2, "2.0": 2, "one half": None}
    classes = answer_classes(
        answers, [True, True, False, False, False, True], lambda a, b: value[a] is not None and value[a] == value[b]
    )
    assert [(one.count, one.correct) for one in classes] == [(3, True), (2, False), (1, False)]


def test_a_class_is_never_half_right() -> None:
    """A verifier that is not transitive may call a wrong answer equal to a right one."""
    classes = answer_classes(["a", "b", "a"], [True, False, True], lambda a, b: True)
    assert [(one.count, one.correct) for one in classes] == [(2, True), (1, False)]
