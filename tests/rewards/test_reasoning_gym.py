"""`reasoning_gym`: rows as the library makes them, judged by rules of our own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.rewards.reasoning_gym.check import check
from align.rewards.verdict import Verdict
from align.types import Rollout

Judge = Callable[..., list[Verdict]]
Make = Callable[..., Rollout]

SOLVED = "Move disk 1 from Peg 1 to Peg 2\nMove disk 2 from Peg 1 to Peg 3\nMove disk 1 from Peg 2 to Peg 3"
HANOI = {"num_disks": 2, "num_pegs": 3, "start_peg": 1, "target_peg": 3}
LOCK = {
    "buttons": [
        {"name": "A", "type": "add", "value": 2, "active_state": "any"},
        {"name": "B", "type": "multiply", "value": 3, "active_state": "green"},
    ],
    "initial_value": 0, "initial_state": "red", "target_value": 6,
}  # fmt: skip
SOKOBAN = {"gamestr": "+ + + + +\n+ * @ X +\n+ + + + +\n"}
INTEGRAL = {"variable": "x", "integrand": "2*x*cos(x**2)"}
COLOURS = {"puzzle": {"vertices": [0, 1], "edges": [[0, 1]], "color_options": [1, 2]}}
QUEENS = {"puzzle": [["_", "Q", "_", "_"], *(["_"] * 4 for _ in range(3))]}


def rows_of(shared_data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shared_data / "tasks" / "rg_tasks.dev.jsonl").read_text().splitlines()]


def test_every_reference_passes_and_no_other_rows_does(judge: Judge, rollout: Make, shared_data: Path) -> None:
    """Also for the families whose own scorer gives full marks to another row's answer (puzzle24, game_of_life_halting)."""
    rows = rows_of(shared_data)
    known = [row for row in rows if row["answer"] is not None]
    assert len(known) == 314
    for text in (lambda row: row["answer"], lambda row: f"<think>hm</think>\nSo:\n<answer>\n{row['answer']}\n</answer>"):
        verdicts = judge("reasoning_gym", [rollout(text(row), **row) for row in known])
        assert [row["id"] for row, one in zip(known, verdicts, strict=True) if one.status != "pass"] == []
    others = [row for row in known if row["other_answer"] is not None]
    verdicts = judge("reasoning_gym", [rollout(row["other_answer"], **row) for row in others])
    assert [row["id"] for row, one in zip(others, verdicts, strict=True) if one.value != 0] == []


def test_families_without_a_reference(judge: Judge, rollout: Make, shared_data: Path) -> None:
    examples = {
        "graph_color": lambda meta: json.dumps(meta["possible_answer"]),
        "propositional_logic": lambda meta: meta["example_answer"],
        "rubiks_cube": lambda meta: meta["example_correct_answer"],
    }
    rows = [row for row in rows_of(shared_data) if row["answer"] is None]
    solved = [row for row in rows if row["task"] in examples]
    verdicts = judge("reasoning_gym", [rollout(examples[row["task"]](row["metadata"]), **row) for row in solved])
    assert {one.status for one in verdicts} == {"pass"}
    said = Counter(
        (row["task"], one.status) for row, one in zip(rows, judge("reasoning_gym", [rollout("", **r) for r in rows]), strict=True)
    )
    assert {task for task, status in said if status == "error"} == {"boxnet"}


@pytest.mark.parametrize(
    ("family", "answer", "gold", "meta", "status"),
    [
        ("chain_sum", "The answer is 12.", "12", {}, "pass"),
        ("chain_sum", "\\boxed{12.0}", "12", {}, "pass"),
        ("chain_sum", "12 or 13", "12", {}, "fail"),
        ("spell_backward", "TEKCORB", "tekcorb", {}, "fail"),
        ("syllogism", "yes", "Yes", {}, "pass"),
        ("rotate_matrix", "[[1, 2], [3, 4]]", "1 2\n3 4", {}, "pass"),
        ("rotate_matrix", "1 2 3 4", "1 2\n3 4", {}, "fail"),
        ("puzzle24", "(1+2+3)*4", "", {"numbers": [1, 2, 3, 4]}, "pass"),
        ("puzzle24", "4*6", "", {"numbers": [1, 2, 3, 4]}, "fail"),
        ("puzzle24", "__import__('os')", "", {"numbers": [1, 2, 3, 4]}, "unparsable"),
        ("puzzle24", "24", "", {}, "error"),
        ("coin_flip", "0.0873", "0.08728027344", {"rational": {"numerator": 715, "denominator": 8192}}, "pass"),
        ("coin_flip", "715/8192", "0.08728027344", {"rational": {"numerator": 715, "denominator": 8192}}, "pass"),
        ("coin_flip", "0.1", "0.08728027344", {"rational": {"numerator": 715, "denominator": 8192}}, "fail"),
        ("power_function", "1.14e-17", "1.1392161891369384e-17", {}, "pass"),
        ("power_function", "1.15e-17", "1.1392161891369384e-17", {}, "fail"),
        ("fraction_simplification", "\\frac{1}{2}", "$1/2$", {"simplified_numerator": 1, "simplified_denominator": 2}, "pass"),
        ("fraction_simplification", "2/4", "$1/2$", {"simplified_numerator": 1, "simplified_denominator": 2}, "fail"),
        ("knights_knaves", "B is a knave, and A is a knight", "A is a knight, and B is a knave.", {}, "pass"),
        ("knights_knaves", "A is a knight, B is a knave, B is a knight", "A is a knight, and B is a knave.", {}, "fail"),
        ("group_anagrams", '[["ab","ba"],["c"]]', '[["c"],["ba","ab"]]', {}, "pass"),
        ("simple_integration", "sin(x**2)", "sin(x**2) + C", INTEGRAL, "pass"),
        ("simple_integration", "sin(x^2) + 7", "sin(x**2) + C", INTEGRAL, "pass"),
        ("simple_integration", "cos(x**2) + C", "sin(x**2) + C", INTEGRAL, "fail"),
        ("simple_integration", "9**9**9**9**9*x", "sin(x**2) + C", INTEGRAL, "fail"),
        ("simple_integration", "(" * 5000, "sin(x**2) + C", INTEGRAL, "unparsable"),
        ("polynomial_multiplication", "x**2 + 2*x + 1", "1 + 2*x + x**2", {}, "pass"),
        ("polynomial_multiplication", "(x + 1)**2", "1 + 2*x + x**2", {}, "fail"),
        ("polynomial_multiplication", "x**2 + 3*x + 1", "1 + 2*x + x**2", {}, "fail"),
        ("tower_of_hanoi", SOLVED, "", HANOI, "pass"),
        ("tower_of_hanoi", "Move disk 2 from Peg 1 to Peg 3", "", HANOI, "fail"),
        ("tower_of_hanoi", "Move disk 1 from Peg 1 to Peg 3\nMove disk 2 from Peg 1 to Peg 3", "", HANOI, "fail"),
        ("quantum_lock", "A → B", "A → B", LOCK, "pass"),
        ("quantum_lock", "B → A", "A → B", LOCK, "fail"),  # B is off at first
        ("quantum_lock", "A → A → A", "A → B", LOCK, "fail"),  # reaches it, but not the shortest way
        ("sokoban", "R", "R", SOKOBAN, "pass"),
        ("sokoban", "L", "R", SOKOBAN, "fail"),
        ("graph_color", '{"0": 1, "1": 2}', None, COLOURS, "pass"),
        ("graph_color", '{"0": 1, "1": 1}', None, COLOURS, "fail"),
        ("graph_color", '{"0": 1}', None, COLOURS, "unparsable"),
        ("n_queens", "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _", "", QUEENS, "pass"),
        ("n_queens", "_ _ Q _\nQ _ _ _\n_ _ _ Q\n_ Q _ _", "", QUEENS, "fail"),  # the given queen is gone
        ("propositional_logic", "(Q OR P)", None, {"premises": ["P", "(P → Q)"]}, "pass"),
        ("propositional_logic", "Q", None, {"premises": ["P", "(P → Q)"]}, "pass"),
        ("propositional_logic", "P", None, {"premises": ["P", "(P → Q)"]}, "fail"),  # a premise
        ("propositional_logic", "(R OR ¬R)", None, {"premises": ["P", "(P → Q)"]}, "fail"),  # says nothing
        ("propositional_logic", "R", None, {"premises": ["P", "(P → Q)"]}, "fail"),
        ("rush_hour", "A+1", None, {"question": ""}, "fail"),
        ("nonesuch", "x", None, {}, "error"),
    ],
)  # fmt: skip
def test_rules(family: str, answer: str, gold: str | None, meta: dict[str, Any], status: str) -> None:
    assert check(answer, family, gold, meta, "")[0] == status


def test_rush_hour_is_played_on_the_board_of_the_question() -> None:
    question = "Board:\nAA..B\n....B\n....."
    played = [check(moves, "rush_hour", None, {}, question)[0] for moves in ("B+1 A+3", "A+3", "B+9", "no", "B+1 A+2")]
    assert played == ["pass", "fail", "fail", "unparsable", "fail"]
