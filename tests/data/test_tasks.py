"""Generated tasks: worked answers, careless demonstrators, checkers, and problems held out by construction."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from align.data.tasks import LANES, TASKS, get_task, task_params, task_rows
from align.data.tasks.chain_sum import _without_carry
from align.data.tasks.knights import _holds
from align.data.tasks.names import TASK_NAMES
from align.errors import DataError, RecipeError

CASES = [
    ("chain_sum", {"mistakes": ["slip", "carry", "skip"]}),
    ("countdown", {}),
    ("knights", {}),
    ("one_liner", {}),
]


def rows_of(name: str, size: int = 300, *, seed: int = 0, **params: Any) -> list[dict[str, Any]]:
    return [row for _, row in task_rows(name, params, seed=seed, size=size)]


def test_names_are_those_of_the_registry() -> None:
    assert tuple(TASKS) == TASK_NAMES
    assert all(task.name == name and task.describe for name, task in TASKS.items())


@pytest.mark.parametrize(("name", "params"), CASES)
class TestEveryTask:
    def test_worked_answers_and_reference_answers_pass(self, name: str, params: dict[str, Any]) -> None:
        for row in rows_of(name, **params):
            assert row["task"] == name
            assert row["mistake"] == ""
            assert TASKS[name].check(row["completion"], row).status == "pass"
            assert TASKS[name].check(row["answer"], row).status == "pass"

    def test_careless_demonstrators_end_wrong_as_often_as_asked(self, name: str, params: dict[str, Any]) -> None:
        rows = rows_of(name, 300, error_rate=0.6, **params)
        wrong = [TASKS[name].check(row["completion"], row).status == "fail" for row in rows]
        assert wrong == [row["mistake"] != "" for row in rows]
        assert 0.5 < sum(wrong) / len(wrong) < 0.7

    def test_empty_and_foreign_answers_do_not_pass(self, name: str, params: dict[str, Any]) -> None:
        (row,) = rows_of(name, 1, **params)
        for text in ("", " ", "I do not know.", "so", row["prompt"], "so " + "9" * 5000, "so " + "(" * 5000, "\x00\ud800"):
            verdict = TASKS[name].check(text, row)
            assert verdict.status in ("fail", "unparsable"), text[:20]
            assert verdict.value == 0.0

    def test_rows_depend_on_seed_and_index_alone(self, name: str, params: dict[str, Any]) -> None:
        short, long = rows_of(name, 20, **params), rows_of(name, 60, **params)
        assert long[:20] == short
        task = TASKS[name]
        assert task.row(3, 7, task_params(task, params)) == task.row(3, 7, task_params(task, params))
        assert rows_of(name, 20, seed=10, **params) != short

    def test_seeds_of_different_last_digit_share_no_problem(self, name: str, params: dict[str, Any]) -> None:
        prompts = [{row["prompt"] for row in rows_of(name, 100, seed=seed, **params)} for seed in (0, 1, 12)]
        assert [len(one) for one in prompts] == [100, 100, 100]
        assert not prompts[0] & prompts[1]
        assert not prompts[0] & prompts[2]
        assert not prompts[1] & prompts[2]


def test_rows_are_the_same_in_another_process() -> None:
    """Hash randomisation must not reach the problems."""
    rows = "[row for _, row in task_rows('countdown', {}, seed=5, size=3)]"
    code = f"import json; from align.data.tasks import task_rows; print(json.dumps({rows}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"})
    assert json.loads(other.stdout) == rows_of("countdown", 3, seed=5)


class TestChainSum:
    def test_every_partial_sum_is_written_out(self) -> None:
        for row in rows_of("chain_sum", terms=4, max_value=99):
            a, b, c, d = map(int, row["prompt"].split("+"))
            assert (
                row["completion"] == f"{a}+{b}={a + b} {a + b}+{c}={a + b + c} {a + b + c}+{d}={a + b + c + d} so {a + b + c + d}"
            )

    def test_terms_cover_their_range(self) -> None:
        terms = {int(term) for row in rows_of("chain_sum", 200, min_value=3, max_value=12) for term in row["prompt"].split("+")}
        assert terms == set(range(3, 13))

    @pytest.mark.parametrize("mistake", ["slip", "carry", "skip"])
    def test_one_mistake_followed_consistently(self, mistake: str) -> None:
        for row in rows_of("chain_sum", 200, error_rate=1.0, mistakes=[mistake]):
            terms = list(map(int, row["prompt"].split("+")))
            steps = row["completion"].split(" so ")[0].split(" ")
            final = int(row["completion"].split(" so ")[1])
            broken = 0
            for step, following in zip(steps, [*steps[1:], f"{final}+"], strict=True):
                sum_text, result = step.split("=")
                a, b = map(int, sum_text.split("+"))
                broken += int(result) != a + b
                assert following.split("+")[0] == result
                if mistake == "carry" and int(result) != a + b:
                    assert int(result) == _without_carry(a, b)
            if row["mistake"] == "":  # nothing to carry in this chain
                assert mistake == "carry"
                assert broken == 0
            else:
                assert broken == (0 if mistake == "skip" else 1)
                assert len(steps) == len(terms) - 1 - (mistake == "skip")

    @pytest.mark.parametrize(
        ("completion", "steps"),
        [
            ("17+25=42 42+38=80 so 80", [(8, 1), (17, 1), (23, 1)]),
            ("17+25=43 43+38=81 so 81", [(8, 0), (17, 1), (23, 0)]),  # goes on rightly from a wrong sum
            ("17+38=55 so 55", [(8, 0), (14, 0)]),  # leaves a number out
            ("17+25=42 42+38=80 80+9=89 so 80", [(8, 1), (17, 1), (25, 0), (31, 1)]),  # adds one of its own
            ("17+25=42 so", [(8, 1), (11, 0)]),  # comes to no answer
            ("17+25=42", [(8, 0)]),
            ("80", [(2, 1)]),
            ("", []),
        ],
    )
    def test_every_step_is_judged(self, completion: str, steps: list[tuple[int, int]]) -> None:
        row = {"prompt": "17+25+38", "answer": "80"}
        assert TASKS["chain_sum"].check(completion, row).steps == tuple((end, float(value)) for end, value in steps)

    def test_without_carry(self) -> None:
        assert _without_carry(47, 38) == 75
        assert _without_carry(12, 34) == 46
        assert _without_carry(5, 95) == 90

    @pytest.mark.parametrize(
        ("completion", "status"),
        [
            ("17+25=42 42+1=43 so 43", "pass"),
            ("nonsense so 43", "pass"),
            ("43", "pass"),
            ("The answer is 43.", "pass"),
            (r"\boxed{43}", "pass"),
            ("so 42 no wait so 43", "pass"),
            ("so 43 no wait so 42", "fail"),
            ("so -43", "fail"),
            ("so 430", "fail"),
            ("17+25=42 42+1=43", "unparsable"),
            ("also 43", "unparsable"),
        ],
    )
    def test_check(self, completion: str, status: str) -> None:
        assert TASKS["chain_sum"].check(completion, {"answer": "43"}).status == status


class TestCountdown:
    @pytest.mark.parametrize(
        ("completion", "status"),
        [
            ("8-5=3 so (8-5)*3+1", "pass"),
            ("so 8/(5-3)*1 = 4", "fail"),
            ("so (8 \u2212 5) \u00d7 3 + 1 = 10", "pass"),
            ("so 8+5-3", "fail"),  # a number is missing
            ("so 8+5-3*1+0", "fail"),
            ("so 10", "fail"),
            ("so 8/(5-5)+3+1", "fail"),
            ("so (8-5)*3+1-1+1", "fail"),
            ("so 8**5", "unparsable"),
            ("so (8-5*3+1", "unparsable"),
            ("so __import__('os')", "unparsable"),
            ("", "unparsable"),
        ],
    )
    def test_check(self, completion: str, status: str) -> None:
        assert TASKS["countdown"].check(completion, {"numbers": [8, 5, 3, 1], "target": 10}).status == status

    def test_division_by_zero_is_a_wrong_answer(self) -> None:
        assert TASKS["countdown"].check("so 8/(3-3)", {"numbers": [8, 3, 3], "target": 8}).status == "fail"

    def test_exact_fractions(self) -> None:
        row = {"numbers": [8, 8, 3, 3], "target": 24}
        assert TASKS["countdown"].check("so 8/(3-8/3)", row).status == "pass"

    def test_solutions_of_another_generator_pass(self, shared_data: Path) -> None:
        rows = [json.loads(line) for line in (shared_data / "tasks" / "countdown_600.jsonl").read_text().splitlines()]
        assert len(rows) == 600
        for row in rows:
            assert TASKS["countdown"].check(row["one_solution"], row).status == "pass", row["id"]
            other = {**row, "target": row["target"] + 1}
            assert TASKS["countdown"].check(row["one_solution"], other).status == "fail", row["id"]


class TestKnights:
    def test_claims_in_words_have_one_solution(self) -> None:
        """Read the prompts back, independently of how they were made."""
        for row in rows_of("knights", 50):
            fitting = [
                roles
                for roles in product((True, False), repeat=3)
                if self._fits(row["prompt"], dict(zip("ABC", roles, strict=True)))
            ]
            assert len(fitting) == 1
            words = [f"{name} is a {'knight' if knight else 'knave'}" for name, knight in zip("ABC", fitting[0], strict=True)]
            assert row["answer"] == ", ".join(words)

    @staticmethod
    def _fits(prompt: str, knights: dict[str, bool]) -> bool:
        for sentence in prompt.rstrip(".").split(". "):
            speaker, claim = sentence.split(" says: ")
            words = claim.split()
            if "are" in words:
                holds = (knights[words[0]] == knights[words[2]]) == (words[-1] == "same")
            else:
                parts = [knights[words[at]] == (words[at + 3] == "knight") for at in range(0, len(words), 5)]
                holds = any(parts) if "or" in words else all(parts)
            if holds != knights[speaker]:
                return False
        return True

    def test_each_kind_of_claim(self) -> None:
        assert _holds(("is", 1, False, 0, True), (True, False))
        assert not _holds(("and", 0, True, 1, True), (True, False))
        assert _holds(("or", 0, True, 1, True), (True, False))
        assert not _holds(("same", 0, True, 1, True), (True, False))
        assert _holds(("different", 0, True, 1, True), (True, False))

    @pytest.mark.parametrize(
        ("completion", "status"),
        [
            ("so A is a knight, B is a knave", "pass"),
            ("try A is a knave, B is a knave: A contradicts\nso B is a knave and A is a KNIGHT", "pass"),
            ("A: knight, B: knave", "pass"),
            ("so A is a knave, B is a knave", "fail"),
            ("so A is a knight, B is a knave, A is a knave", "fail"),  # hedging
            ("so A is a knight", "unparsable"),
            ("so A is a knight, B is a knave, C is a knave", "unparsable"),
        ],
    )
    def test_check(self, completion: str, status: str) -> None:
        assert TASKS["knights"].check(completion, {"answer": "A is a knight, B is a knave"}).status == status


class TestReasoningGym:
    """`reasoning_gym:NAME`, where the library is installed."""

    @pytest.mark.parametrize("family", ["basic_arithmetic", "mini_sudoku", "knights_knaves", "graph_color"])
    def test_rows_are_stable_held_out_and_judged(self, family: str) -> None:
        pytest.importorskip("reasoning_gym")
        name = f"reasoning_gym:{family}"
        rows, others = rows_of(name, 8), rows_of(name, 8, seed=1)
        assert rows_of(name, 4) == rows[:4]
        assert not {row["prompt"] for row in rows} & {row["prompt"] for row in others}
        assert json.loads(json.dumps(rows)) == rows
        task = get_task(name)
        assert {task.check(row["completion"], row).status for row in rows if row["answer"]} <= {"pass"}
        assert "pass" not in {task.check("I do not know", row).status for row in rows}

    def test_wrong_names_and_parameters(self) -> None:
        pytest.importorskip("reasoning_gym")
        with pytest.raises(RecipeError, match="did you mean reasoning_gym:chain_sum"):
            get_task("reasoning_gym:chainsum")
        with pytest.raises(RecipeError, match="refuses these parameters"):
            rows_of("reasoning_gym:chain_sum", 1, terms=4)
        assert all(row["metadata"]["num_terms"] == 3 for row in rows_of("reasoning_gym:chain_sum", 3, min_terms=3, max_terms=3))


class TestRefusals:
    def test_unknown_task(self) -> None:
        with pytest.raises(RecipeError, match="did you mean 'chain_sum'"):
            get_task("chainsum")

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"term": 4}, "did you mean 'terms'"),
            ({"terms": 1}, "terms: .*greater"),
            ({"terms": "4"}, "terms: .*integer"),
            ({"error_rate": 1.5}, "error_rate: .*less"),
            ({"mistakes": ["slips"]}, "mistakes.0: .*'slip'"),
            ({"min_value": 50, "max_value": 20}, "max_value must be above"),
        ],
    )
    def test_bad_params(self, params: dict[str, Any], words: str) -> None:
        with pytest.raises(RecipeError, match=words):
            task_params(TASKS["chain_sum"], params)

    def test_more_problems_than_there_are(self) -> None:
        """Two terms of 1..9 make 81 problems, so a tenth of them for a seed."""
        with pytest.raises(DataError, match="different problems for seed 0, 100 were asked for"):
            rows_of("chain_sum", 100, terms=2, max_value=9)

    def test_all_lanes_together_hold_every_problem(self) -> None:
        everything: Counter[str] = Counter()
        for seed in range(LANES):
            found = set()
            for index in range(400):
                found.add(
                    TASKS["chain_sum"].row(seed, index, task_params(TASKS["chain_sum"], {"terms": 2, "max_value": 9}))["prompt"]
                )
            everything.update(found)
        assert len(everything) == 81
        assert set(everything.values()) == {1}
