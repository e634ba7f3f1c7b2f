"""`boxes`: intersection over union, matching, ranges, layouts and scales."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from random import Random

import pytest

from align.rewards.boxes import Box, iou
from align.rewards.matching import best_pairs
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]


def test_iou_by_hand() -> None:
    a, b = Box(corners=(0, 0, 2, 2)), Box(corners=(1, 1, 3, 3))
    assert iou(a, b) == pytest.approx(1 / 7)
    assert iou(a, a) == 1.0
    assert iou(a, Box(corners=(2, 0, 4, 2))) == 0.0


@pytest.mark.parametrize(
    ("text", "gold", "params", "value", "status"),
    [
        ("[0, 0, 2, 2]", [0, 0, 2, 2], {}, 1.0, "pass"),
        ("The box is \\boxed{[0,0,2,1]}", [0, 0, 2, 2], {}, 0.5, "pass"),
        ("It is at (1, 1, 3, 3), I think.", [0, 0, 2, 2], {}, 1 / 7, "fail"),
        ("[[4, 4, 6, 6], [0, 0, 2, 2]]", [[0, 0, 2, 2], [4, 4, 6, 6]], {}, 1.0, "pass"),
        ("[[0, 0, 2, 2]]", [[0, 0, 2, 2], [4, 4, 6, 6]], {}, 0.5, "fail"),
        ("[[0, 0, 2, 2], [4, 4, 6, 6]]", [0, 0, 2, 2], {}, 0.5, "fail"),
        ("[[0, 0, 2, 2]]", [[0, 0, 2, 2], [4, 4, 6, 6]], {"reward": "f1"}, 2 / 3, "fail"),
        ("[0, 0, 2, 1.2]", [0, 0, 2, 2], {"reward": "threshold"}, 1.0, "pass"),
        ("[0, 0, 2, 0.8]", [0, 0, 2, 2], {"reward": "threshold"}, 0.0, "fail"),
        ("[0, 0, 2, 2]", [0, 0, 2, 2], {"layout": "xywh"}, 1.0, "pass"),
        ("[1, 1, 2, 2]", [0, 0, 2, 2], {"layout": "cxcywh", "gold_layout": "xyxy"}, 1.0, "pass"),
        (
            '[{"bbox_2d": [0, 0, 2, 2], "label": "Cat"}]',
            '[{"bbox_2d": [0, 0, 2, 2], "label": "cat"}]',
            {"labels": True},
            1.0,
            "pass",
        ),
        ('[{"bbox_2d": [0, 0, 2, 2], "label": "dog"}]', [{"bbox": [0, 0, 2, 2], "label": "cat"}], {"labels": True}, 0.0, "fail"),
        ("[2, 2, 0, 0]", [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("[-1, 0, 2, 2]", [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("[0, 0, 2, 1e400]", [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("[0, 0, 1, 1.5]", [0, 0, 1, 1], {"scale": "unit"}, 0.0, "unparsable"),
        ("[]", [0, 0, 2, 2], {}, 0.0, "fail"),
        ("no box", [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("", [0, 0, 2, 2], {}, 0.0, "unparsable"),
        (str([[0, 0, 2, 2]] * 200), [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("[" * 19_000, [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("[" * 400 + "]" * 400, [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("9" * 1_000_000, [0, 0, 2, 2], {}, 0.0, "unparsable"),
        ("[0, 0, 2, 2]", None, {}, None, "error"),
        ("[0, 0, 2, 2]", [2, 2, 0, 0], {}, None, "error"),
        ("[0, 0, 2, 2]", "somewhere", {}, None, "error"),
        ("[0, 0, 1, 1]", [0, 0, 2, 2], {"gold_scale": "unit"}, None, "error"),
    ],
)
def test_verdicts(judge: Judge, rollout: Make, text: str, gold: object, params: dict, value: float | None, status: str) -> None:
    verdict = judge("boxes", [rollout(text, gold)], **params)[0]
    assert verdict.status == status, verdict.detail
    assert verdict.value == (None if value is None else pytest.approx(value))


def test_pixels_are_checked_against_the_image_and_scaled(judge: Judge, rollout: Make) -> None:
    size = {"width": 200, "height": 100}
    inside, outside = rollout("[0, 0, 200, 100]", [0, 0, 200, 100], **size), rollout("[0, 0, 201, 100]", [0, 0, 200, 100], **size)
    assert [one.status for one in judge("boxes", [inside, outside])] == ["pass", "unparsable"]
    mixed = rollout("[0, 0, 500, 1000]", [0, 0, 100, 100], **size)
    assert judge("boxes", [mixed], scale="thousand", gold_scale="pixel")[0].value == pytest.approx(1.0)


def test_pairs_are_the_best_there_are() -> None:
    """Against all permutations."""
    random = Random(0)
    for _ in range(200):
        rows, columns = random.randint(1, 5), random.randint(1, 5)
        likeness = [[random.random() for _ in range(columns)] for _ in range(rows)]
        found = sum(likeness[row][column] for row, column in best_pairs(likeness))
        if rows <= columns:
            best = max(sum(likeness[r][c] for r, c in enumerate(p)) for p in permutations(range(columns), rows))
        else:
            best = max(sum(likeness[r][c] for c, r in enumerate(p)) for p in permutations(range(rows), columns))
        assert found == pytest.approx(best)
    assert len(best_pairs([[1.0] * 100] * 70)) == 70
    assert best_pairs([]) == []
