"""Each option of `math` changes what it says it changes, and the reward's version with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.rewards.math import MathParams, MathReward
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

CASES: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    (
        {"units": "require"},
        [
            ("5\\text{ cm}", "5", "fail"),
            ("5\\text{ cm}", "5\\text{ centimeters}", "pass"),
            ("\\sqrt{3}\\text{ m}", "\\sqrt{3}", "fail"),
        ],
    ),
    ({"units": "ignore"}, [("5\\text{ cm}", "5\\text{ m}", "pass"), ("5\\text{ cm}", "6\\text{ cm}", "fail")]),
    (
        {"percent": "strict"},
        [("50\\%", "50", "fail"), ("50", "50\\%", "fail"), ("50\\%", "0.5", "pass"), ("50\\%", "\\frac{1}{2}", "pass")],
    ),
    (
        {"tolerance": 0.01},
        [
            ("100", "101", "pass"),
            ("100", "101.1", "fail"),
            ("\\pi", "3.14", "pass"),
            ("\\pi", "3.2", "fail"),
            ("(\\frac{3}{5}, \\frac{8}{3}]", "(0.6, 2.6667]", "pass"),
            ("(\\frac{3}{5}, \\frac{8}{3}]", "(0.6, 2.6667)", "fail"),
            ("\\begin{pmatrix}\\frac13\\\\ \\frac15\\end{pmatrix}", "\\begin{pmatrix}0.333\\\\0.2\\end{pmatrix}", "pass"),
            ("\\begin{pmatrix}\\frac13\\\\ \\frac15\\end{pmatrix}", "\\begin{pmatrix}0.333\\\\0.3\\end{pmatrix}", "fail"),
            ("\\{\\sqrt{2}, 5\\}", "\\{5, 1.414\\}", "pass"),
            ("\\{\\sqrt{2}, 5\\}", "\\{5, 1.5\\}", "fail"),
            ("0", "0.001", "fail"),
        ],
    ),
    (
        {"gold_type": "number"},
        [("5", "5.0", "pass"), ("5", "x=5", "pass"), ("5", "\\{5,6\\}", "fail"), ("x+1", "5", "error"), ("5", "x", "fail")],
    ),
    (
        {"gold_type": "interval"},
        [("(1,2)", "1<x<2", "pass"), ("(1,2)", "[1,2]", "fail"), ("(1,2)", "\\{1,2\\}", "fail"), ("5", "5", "error")],
    ),
    (
        {"gold_type": "set"},
        [
            ("1, 2", "2, 1", "pass"),
            ("(1, 2)", "2, 1", "pass"),
            ("1, 2", "1, 2, 2", "pass"),
            ("1, 2", "1, 3", "fail"),
            ("1", "1, 2", "fail"),
        ],
    ),
    (
        {"gold_type": "tuple"},
        [
            ("1, 2", "(1, 2)", "pass"),
            ("1, 2", "2, 1", "fail"),
            ("(1, \\frac12)", "[1, 0.5]", "pass"),
            ("1, 2", "1, 2, 3", "fail"),
        ],
    ),
    (
        {"gold_type": "matrix"},
        [
            ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}", "pass"),
            ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)", "fail"),
            ("(1,2)", "(1,2)", "error"),
        ],
    ),
    (
        {"gold_type": "expression"},
        [("2x+1", "1+2x", "pass"), ("2x+1", "y=2x+1", "pass"), ("2x+1", "2x", "fail"), ("[0,1)", "[0,1)", "error")],
    ),
    (
        {"gold_type": "equation"},
        [("y=2x+1", "2x-y+1=0", "pass"), ("y=2x+1", "2x+1", "fail"), ("y=2x+1", "y=2x", "fail"), ("2x+1", "y=2x+1", "error")],
    ),
    ({"gold_type": "choice"}, [("B", "(B) 42", "pass"), ("B", "C", "fail"), ("B", "42", "unparsable"), ("42", "B", "error")]),
    ({"gold_type": "text"}, [("\\text{No}", "no", "pass"), ("0.5", "\\frac12", "fail"), ("2x", "2x", "pass")]),
    (
        {"order": "ordered"},
        [("\\{1, 2\\}", "\\{1, 2\\}", "pass"), ("\\{1, 2\\}", "\\{2, 1\\}", "fail"), ("1, 2", "1 \\text{ and } 2", "pass")],
    ),
    (
        {"order": "unordered"},
        [
            ("(1, 2)", "(2, 1)", "pass"),
            ("(1, 2)", "(2, 2)", "fail"),
            ("(1, 1, 2)", "(1, 2, 2)", "fail"),
            ("((1,2),(3,4))", "((3,4),(1,2))", "pass"),
            ("((1,2),(3,4))", "((4,3),(1,2))", "fail"),
            ("[0, 1)", "(0, 1]", "fail"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("params", "cases"), CASES, ids=lambda one: "-".join(map(str, *one.items())) if isinstance(one, dict) else ""
)
def test_what_an_option_decides(judge: Judge, rollout: Make, params: dict[str, Any], cases: list[tuple[str, str, str]]) -> None:
    rollouts = [rollout(f"\\boxed{{{answer}}}", gold) for gold, answer, _ in cases]
    verdicts = judge("math", rollouts, workers=1, **params)
    assert [(*case[:2], one.status) for case, one in zip(cases, verdicts, strict=True)] == cases


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("<think>It is \\boxed{5}.</think> Done.", "unparsable", "pass"),
        ("<think>It is \\boxed{6}.</think> Done.", "unparsable", "fail"),
        ("<think>It is \\boxed{5}.</think> \\boxed{6}", "fail", "fail"),
        ("<think>It is \\boxed{6}.</think> \\boxed{5}", "pass", "pass"),
        ("<think>It is \\boxed{5}", "unparsable", "pass"),
    ],
)
def test_where_the_answer_is_read(judge: Judge, rollout: Make, text: str, answer: str, thinking: str) -> None:
    statuses = [judge("math", [rollout(text, "5")], workers=1, where=where)[0].status for where in ("answer", "thinking")]
    assert statuses == [answer, thinking]


def test_the_version_tells_apart_what_decides_and_only_that() -> None:
    def version(**params: Any) -> str:
        reward = MathReward("math", MathParams(**params))
        reward.close()
        return reward.version

    changed = [version(**params) for params, _ in CASES] + [version(where="thinking"), version(extract="boxed")]
    assert len({*changed, version()}) == len(changed) + 1
    assert version(workers=1) == version()
