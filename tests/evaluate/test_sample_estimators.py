from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from align.errors import DataError, RecipeError
from align.evaluate.equal_answers import with_equal_answers
from align.evaluate.sample_estimators import by_judge, by_score, estimator, problem_values, voters, with_answers
from align.evaluate.samples import Sample, SampleTable
from align.evaluate.statistics import AnswerClass


def test_names() -> None:
    assert (estimator("cot-pass@16").kind, estimator("cot-pass@16").k) == ("cot-pass@", 16)
    for wrong in ("pass@0", "pass", "pass@", "best8", "PASS@1", "pass@1x"):
        with pytest.raises(RecipeError, match="names no estimator"):
            estimator(wrong)


def test_errors_leave_n_and_problems_with_too_few_leave_the_estimate(table: Callable[..., SampleTable]) -> None:
    mine = table("mine", {"a": [True, False, None], "b": [True, None, None], "c": [None, None, None]})
    assert problem_values(mine, estimator("pass@1")) == {"a": 0.5, "b": 1.0}
    assert problem_values(mine, estimator("pass@2")) == {"a": 1.0}
    assert problem_values(mine, estimator("pass^2")) == {"a": 0.0}
    assert problem_values(mine, estimator("avg@2")) == {"a": 0.5}
    assert problem_values(mine, estimator("pass@3")) == {}


def with_columns(table: SampleTable, **columns: list[Any]) -> SampleTable:
    samples = [
        replace(sample, **{name: values[number] for name, values in columns.items()})
        for number, sample in enumerate(table.samples)
    ]
    return replace(table, samples=tuple(samples))


def test_majority_takes_right_answers_as_one_and_wrong_ones_by_text(table: Callable[..., SampleTable]) -> None:
    mine = with_columns(table("mine", {"a": [True, True, False, False, False, None]}), answer=["4", "4.0", "5", " 5", None, "4"])
    classes, silent = voters(mine.problems["a"])
    assert [(one.count, one.correct) for one in classes] == [(2, True), (2, False)]
    assert silent == 1
    # Five samples, all drawn: a tie of two answers.
    assert problem_values(mine, estimator("maj@5")) == {"a": pytest.approx(0.5)}
    assert problem_values(mine, estimator("maj@6")) == {}


def test_best_needs_score_and_verdict(table: Callable[..., SampleTable]) -> None:
    mine = with_columns(table("mine", {"a": [True, False, False, None]}), reward=[0.9, 0.5, None, 1.0])
    assert problem_values(mine, estimator("best@2")) == {"a": 1.0}
    assert problem_values(mine, estimator("best@1")) == {"a": 0.5}
    assert problem_values(mine, estimator("best@3")) == {}


def test_reasoning_counts_where_the_judge_accepts_it(table: Callable[..., SampleTable]) -> None:
    mine = with_columns(table("mine", {"a": [True, True, False, True]}), accepted=[True, False, None, None])
    assert problem_values(mine, estimator("cot-pass@1")) == {"a": pytest.approx(1 / 3)}
    assert problem_values(mine, estimator("cot-pass@4")) == {}


@pytest.mark.parametrize(("name", "fix"), [("maj@1", "--answers"), ("best@1", "--score"), ("cot-pass@1", "--judge")])
def test_what_a_table_lacks_is_an_error_with_the_way_out(table: Callable[..., SampleTable], name: str, fix: str) -> None:
    with pytest.raises(DataError, match="no sample has any") as caught:
        problem_values(table("mine", {"a": [True]}), estimator(name))
    assert fix in str(caught.value.fix)


def test_scores_and_judgements_come_from_a_rewards_verdicts() -> None:
    def sample(index: int, value: float | None) -> Sample:
        verdicts = {"rm": {"value": value, "status": "pass", "detail": ""}}
        return Sample(problem="a", index=index, correct=True, reward=1.0, columns={"verdicts": verdicts})

    mine = SampleTable(name="mine", samples=(sample(0, 0.7), sample(1, 0.2), sample(2, None)))
    assert [one.reward for one in by_score(mine, "rm").samples] == [0.7, 0.2, None]
    assert [one.accepted for one in by_judge(mine, "rm").samples] == [True, False, None]
    assert [one.accepted for one in by_judge(mine, "rm", 0.8).samples] == [False, False, None]
    with pytest.raises(DataError, match="no sample has a verdict of 'judge'") as caught:
        by_judge(mine, "judge")
    assert caught.value.fix == "choose one of rm"


def test_answers_are_taken_out_of_completions() -> None:
    texts = ["<think>5 or 6</think> The answer is 7.", "so 12", "<think>never ends", ""]
    samples = [Sample(problem="a", index=index, correct=False, completion=text) for index, text in enumerate(texts)]
    answered = with_answers(SampleTable(name="mine", samples=tuple(samples)))
    assert [one.answer for one in answered.samples] == ["7", "12", None, None]


def test_wrong_answers_that_the_verifier_cannot_tell_apart_are_one() -> None:
    """Two right ones against one half, written in three ways, and a stranger: by text 2/5 wins the vote, by value 1/2 does."""
    right = [Sample(problem="p", index=index, correct=True, answer="2/5") for index in range(2)]
    texts = ("\\frac{1}{2}", "0.5", "1/2", "cats(")
    wrong = [Sample(problem="p", index=index, correct=False, answer=text) for index, text in enumerate(texts, start=2)]
    table = SampleTable(name="mine", samples=(*right, *wrong))
    merged = with_equal_answers(table)
    assert [sample.answer for sample in merged.samples] == ["2/5", "2/5", *["\\frac{1}{2}"] * 3, "cats("]
    assert voters(merged.samples)[0] == (
        AnswerClass(count=2, correct=True),
        AnswerClass(count=3, correct=False),
        AnswerClass(count=1, correct=False),
    )
    assert problem_values(table, estimator("maj@6"), seed=0) == {"p": 1.0}
    assert problem_values(merged, estimator("maj@6"), seed=0) == {"p": 0.0}
