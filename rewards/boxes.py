"""`boxes`: boxes of an image by intersection over union (IoU), for answers such as `[[10, 20, 110, 220]]`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from align.rewards.answers import final_answer, visible_part
from align.rewards.golds import column_of, structure_of
from align.rewards.json_text import JSONTextError, read_json
from align.rewards.matching import best_pairs
from align.rewards.reward import Params, TextReward, gold_of
from align.rewards.verdict import Verdict
from align.types import Rollout

Layout = Literal["xyxy", "xywh", "cxcywh"]
Scale = Literal["pixel", "unit", "thousand"]

_GOLD_COLUMNS = ("boxes", "bboxes", "bbox", "bbox_2d")
_SIZE_COLUMNS = (("width", "image_width", "img_width"), ("height", "image_height", "img_height"))
_KEYS = ("bbox_2d", "bbox", "box", "box_2d")
_FOUR_NUMBERS = re.compile(r"[\[(<]\s*(-?\d{1,9}(?:\.\d{1,9})?(?:\s*,\s*-?\d{1,9}(?:\.\d{1,9})?){3})\s*[\])>]")
_LONGEST = 20_000  # characters
_ROUNDING = 1e-6  # share of the image


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Corners as shares of the image (pixel scale without a size: in pixels), and what the box is said to hold."""

    corners: tuple[float, float, float, float]
    label: str = ""


class BoxError(ValueError):
    """These are no boxes; the text says why."""


class BoxesParams(Params):
    layout: Layout = Field("xyxy", description="Of the answer: two corners; corner, width and height; or centre, width, height")
    scale: Scale = Field("pixel", description="Of the answer: pixels, shares of the image (0 to 1), or thousandths of it")
    gold_layout: Layout | None = Field(None, description="Of the reference; default: as the answer")
    gold_scale: Scale | None = Field(None, description="Of the reference; default: as the answer")
    reward: Literal["iou", "f1", "threshold"] = Field(
        "iou", description="Mean IoU, the F1 of the boxes that meet the threshold, or 1 where all meet it and else 0"
    )
    threshold: float = Field(0.5, gt=0, le=1, description="IoU from which a box is found; the status goes by it")
    labels: bool = Field(False, description="Boxes match only with the same label")
    max_boxes: int = Field(100, ge=1, le=500, description="An answer of more boxes earns 0")


class BoxesReward(TextReward):
    """Mean IoU of the boxes with those of the reference, matched one to one as well as can be.

    Surplus and missing boxes count as IoU 0. An answer outside its range (x within 0 and the image's width, where a column says
    it), with a side of 0 or less, or with a number that is not finite earns 0. Parts: `iou`, `precision`, `recall`, `f1`.
    """

    params_type = BoxesParams

    def __init__(self, name: str, params: BoxesParams) -> None:
        super().__init__(name, params)
        self._params = params

    def judge(self, rollout: Rollout) -> Verdict:
        params = self._params
        size = [column_of(rollout, names) for names in _SIZE_COLUMNS]
        gold_scale = params.gold_scale or params.scale
        if (gold_scale == "pixel") != (params.scale == "pixel") and None in size:
            return Verdict.error("pixels and shares are compared: the row must have the columns width and height")
        try:
            width, height = (None if one is None else _side(one) for one in size)
            gold = column_of(rollout, _GOLD_COLUMNS)
            read = _listed(structure_of(gold_of(rollout) if gold is None else gold))
            wanted = [_box(one, params.gold_layout or params.layout, gold_scale, width, height) for one in read]
        except (BoxError, ValueError) as error:
            return Verdict.error(f"the reference: {error}")
        if not wanted:
            return Verdict.error(f"the row has no boxes (columns {', '.join(_GOLD_COLUMNS)}, answer)")
        text = visible_part(rollout.completion.text)
        if text is None:
            return Verdict.unparsable("the thinking part never ends")
        try:
            found = [_box(one, params.layout, params.scale, width, height) for one in _answered(text, params.max_boxes)]
        except BoxError as error:
            return Verdict.unparsable(str(error))
        return _verdict(found, wanted, params)


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 where they do not meet."""
    left, top = max(one.corners[0], other.corners[0]), max(one.corners[1], other.corners[1])
    right, bottom = min(one.corners[2], other.corners[2]), min(one.corners[3], other.corners[3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    return common / (_area(one) + _area(other) - common)


def _verdict(found: Sequence[Box], wanted: Sequence[Box], params: BoxesParams) -> Verdict:
    comparable = [[0.0 if params.labels and a.label != b.label else iou(a, b) for b in wanted] for a in found]
    ious = [comparable[row][column] for row, column in best_pairs(comparable)]
    hits = sum(value >= params.threshold for value in ious)
    parts = {
        "iou": sum(ious) / max(len(found), len(wanted)),
        "precision": hits / len(found) if found else 0.0,
        "recall": hits / len(wanted),
        "f1": 2 * hits / (len(found) + len(wanted)),
    }
    passed = hits == len(wanted) == len(found)
    value = float(passed) if params.reward == "threshold" else min(1.0, parts[params.reward])
    detail = f"{hits} of {len(wanted)} found with {len(found)} boxes, mean IoU {parts['iou']:.3f}"
    return Verdict(value=value, status="pass" if passed else "fail", parts=parts, detail=detail)


def _answered(text: str, most: int) -> list[tuple[list[float], str]]:
    """The boxes of an answer: JSON, else every bracket with four numbers in it."""
    if len(text) > _LONGEST:
        raise BoxError(f"longer than {_LONGEST} characters")
    marked = final_answer(text)
    text = text if marked is None else marked
    try:
        boxes = _listed(read_json(text))
    except (JSONTextError, BoxError, RecursionError):
        boxes = [([float(number) for number in found.split(",")], "") for found in _FOUR_NUMBERS.findall(text)]
    if not boxes and text.strip() != "[]":
        raise BoxError("no boxes")
    if len(boxes) > most:
        raise BoxError(f"{len(boxes)} boxes, at most {most} are compared")
    return boxes


def _listed(value: Any) -> list[tuple[list[float], str]]:
    """Boxes as numbers and label: one box, a list of boxes, or objects that have one."""
    if isinstance(value, dict):
        key = next((key for key in _KEYS if key in value), None)
        if key is None:
            raise BoxError(f"an object without {' or '.join(_KEYS)}")
        return [(numbers, str(value.get("label", ""))) for numbers, _ in _listed(value[key])]
    if not isinstance(value, list | tuple):
        raise BoxError(f"{str(value)[:40]!r} is no box")
    if len(value) == 4 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        return [([float(one) if abs(one) < 1e12 else math.inf for one in value], "")]
    boxes = [_listed(one) for one in value]
    if any(len(one) != 1 for one in boxes):
        raise BoxError("a list within a list of boxes")
    return [one[0] for one in boxes]


def _box(read: tuple[list[float], str], layout: Layout, scale: Scale, width: float | None, height: float | None) -> Box:
    """Corners as shares of the image where its size is known or not needed. Raises BoxError for an impossible box."""
    (x1, y1, x2, y2), label = read
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise BoxError("a number that is not finite")
    if layout == "cxcywh":
        x1, y1 = x1 - x2 / 2, y1 - y2 / 2
    if layout != "xyxy":
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        raise BoxError(f"{read[0]} has no area")
    sizes = {"unit": (1.0, 1.0), "thousand": (1000.0, 1000.0), "pixel": (width or math.inf, height or math.inf)}[scale]
    if min(x1, y1) < -_ROUNDING * min(1.0, *sizes) or x2 > sizes[0] * (1 + _ROUNDING) or y2 > sizes[1] * (1 + _ROUNDING):
        raise BoxError(f"{read[0]} is not within the image")
    if math.inf in sizes:
        return Box(corners=(x1, y1, x2, y2), label=label.strip().casefold())
    return Box(corners=(x1 / sizes[0], y1 / sizes[1], x2 / sizes[0], y2 / sizes[1]), label=label.strip().casefold())


def _side(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise BoxError(f"a side of the image is {value!r}")
    return float(value)


def _area(box: Box) -> float:
    return (box.corners[2] - box.corners[0]) * (box.corners[3] - box.corners[1])
