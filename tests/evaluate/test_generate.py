from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from align.errors import RewardError
from align.evaluate.generate import EvaluationResult, evaluate_model, is_correct, spread
from align.recipe.schema import Evaluation
from align.rewards.verdict import Verdict
from align.types import Completion, Prompt, Rollout, Sampling, Scored

ERROR = None


class ScriptedEngine:
    """Completes prompt p, sample g with the text "p/g"; finishes the samples of all prompts interleaved, the last first."""

    def __init__(self) -> None:
        self.sampling = Sampling()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        self.sampling = sampling
        for sample in reversed(range(sampling.n)):
            for index in range(len(prompts)):
                yield Completion(
                    prompt_index=index,
                    sample_index=sample,
                    token_ids=(1,) * (sample + 1),
                    logprobs=(0.0,) * (sample + 1),
                    text=f"{prompts[index].id}/{sample}",
                    finish_reason="length" if sample == 3 else "stop",
                )


class ScriptedScorer:
    """Rewards by text; records the groups as they come."""

    def __init__(self, rewards: dict[str, float | None]) -> None:
        self.rewards, self.groups = rewards, []  # type: ignore[var-annotated]

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Scored]]:
        self.groups.append([rollout.completion.text for rollout in rollouts])
        future: Future[list[Scored]] = Future()
        future.set_result([self._score(rollout) for rollout in rollouts])
        return future

    def _score(self, rollout: Rollout) -> Scored:
        value = self.rewards.get(rollout.completion.text, 0.0)
        if value is ERROR:
            return Scored(rollout=rollout, verdicts={"judge": Verdict.error("the judge is down")}, reward=math.nan)
        verdict = Verdict.passed(value=value) if value >= 1 else Verdict.failed(value=value)
        return Scored(rollout=rollout, verdicts={"judge": verdict}, reward=value)


def prompt(name: str, source: str = "data") -> Prompt:
    return Prompt(id=name, messages=({"role": "user", "content": name},), token_ids=(1, 2), answer="7", source=source)


def run(
    rewards: dict[str, float | None], prompts: Sequence[Prompt] = (prompt("a"), prompt("b")), **evaluation: object
) -> tuple[EvaluationResult, ScriptedEngine, ScriptedScorer]:
    engine, scorer = ScriptedEngine(), ScriptedScorer(rewards)
    settings = Evaluation.model_validate({"num_generations": 4, "k": [1, 2], **evaluation})
    return evaluate_model(engine, prompts, scorer, settings, seed=5, max_completion_length=8), engine, scorer  # type: ignore[arg-type]


def test_pass_at_k_by_hand() -> None:
    result, _, _ = run({"a/0": 1.0, "b/1": 1.0, "b/2": 1.0})
    assert result.pass_at_k[1].value == (1 / 4 + 2 / 4) / 2
    assert result.pass_at_k[2].value == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert (result.mean_reward, result.mean_length, result.truncated, result.errors) == (3 / 8, 2.5, 0.25, 0)


def test_samples_without_a_verdict_are_left_out_not_counted_wrong() -> None:
    result, _, _ = run({"a/0": 1.0, "a/1": ERROR, "a/2": ERROR, "b/0": 1.0, "b/1": ERROR, "b/2": ERROR, "b/3": ERROR})
    assert result.errors == 5
    assert result.pass_at_k[1].value == (1 / 2 + 1) / 2
    assert (result.pass_at_k[2].value, result.pass_at_k[2].problems) == (1.0, 1)  # b has a single verdict


def test_no_verdict_at_all_is_an_error_that_says_why() -> None:
    with pytest.raises(RewardError, match="judge: the judge is down") as caught:
        run({f"{name}/{sample}": ERROR for name in "ab" for sample in range(4)})
    assert caught.value.exit_code == 6


def test_groups_are_scored_whole_in_sample_order_as_soon_as_they_are_complete() -> None:
    _, _, scorer = run({})
    assert scorer.groups == [["a/0", "a/1", "a/2", "a/3"], ["b/0", "b/1", "b/2", "b/3"]]


def test_sources_are_counted_apart() -> None:
    prompts = [prompt("a", "easy"), prompt("b", "easy"), prompt("c", "hard")]
    result, _, _ = run({f"{name}/{sample}": 1.0 for name in "ab" for sample in range(4)}, prompts)
    assert {source: estimates[1].value for source, estimates in result.by_source.items()} == {"easy": 1.0, "hard": 0.0}
    assert result.pass_at_k[1].value == pytest.approx(2 / 3)


def test_threshold_decides_what_is_correct() -> None:
    rewards: dict[str, float | None] = {f"a/{sample}": 0.6 for sample in range(4)}
    assert run(rewards)[0].pass_at_k[1].value == 0.0
    assert run(rewards, threshold=0.5)[0].pass_at_k[1].value == 0.5


def test_problems_with_equal_ids_stay_apart() -> None:
    result, _, scorer = run({"a/0": 1.0}, [prompt("a"), prompt("a")])
    assert len(scorer.groups) == 2
    assert result.pass_at_k[1].problems == 2


def test_sampling_follows_the_recipe() -> None:
    engine, settings = ScriptedEngine(), Evaluation(num_generations=4, k=[1], temperature=0.6, top_p=0.9)
    ends: dict[str, Any] = {"max_completion_length": 77, "stop": ["END"], "stop_token_ids": [3]}
    evaluate_model(engine, [prompt("a")], ScriptedScorer({}), settings, seed=5, **ends)  # type: ignore[arg-type]
    wanted = Sampling(n=4, max_tokens=77, temperature=0.6, top_p=0.9, stop=("END",), stop_token_ids=(3,), seed=5)
    assert engine.sampling == wanted


def test_progress_hears_of_every_completion() -> None:
    heard: list[tuple[int, int]] = []
    settings = Evaluation(num_generations=4, k=[1])
    evaluate_model(
        ScriptedEngine(),  # type: ignore[arg-type]
        [prompt("a"), prompt("b")],
        ScriptedScorer({}),
        settings,
        seed=0,
        max_completion_length=8,
        on_progress=lambda written, total: heard.append((written, total)),
    )
    assert heard == [(written, 8) for written in range(1, 9)]


def test_fewer_problems_keep_every_source() -> None:
    prompts = [prompt(str(index), "easy" if index < 60 else "hard") for index in range(90)]
    chosen = spread(prompts, 9)
    assert [one.source for one in chosen].count("easy") == 6
    assert len({one.id for one in chosen}) == 9
    assert spread(prompts, None) is prompts
    assert spread(prompts, 100) is prompts


def test_result_is_plain_data() -> None:
    result, _, _ = run({"a/0": 1.0, "a/1": ERROR})
    numbers = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(numbers["pass_at_k"]["1"]) == {"value", "low", "high", "problems"}
    assert (numbers["problems"], numbers["samples"], numbers["errors"]) == (2, 8, 1)
    rows = json.loads(json.dumps(list(result.rows()), allow_nan=False))
    assert [(row["completion"], row["reward"], row["correct"]) for row in rows[:3]] == [
        ("a/0", 1.0, True),
        ("a/1", None, None),
        ("a/2", 0.0, False),
    ]
    assert rows[1]["verdicts"]["judge"] == {"value": None, "status": "error", "detail": "the judge is down"}


def test_the_form_of_an_answer_does_not_make_it_correct() -> None:
    def sample(**values: float | None) -> Scored:
        verdicts = {
            name.replace("_", "."): Verdict.error("down") if v is None else Verdict.passed(value=v) for name, v in values.items()
        }
        completion = Completion(prompt_index=0, sample_index=0, token_ids=(1,), logprobs=(0.0,), text="", finish_reason="stop")
        rollout = Rollout(prompt=Prompt(id="p", messages=(), token_ids=(1,)), completion=completion)
        return Scored(rollout=rollout, verdicts=verdicts, reward=99.0)

    assert is_correct(sample(math=0.0, format_think=1.0), 1.0) is False
    assert is_correct(sample(math=1.0, format_think=0.0), 1.0) is True
    assert is_correct(sample(math=1.0, task=0.0), 1.0) is False
    assert is_correct(sample(format_think=1.0), 1.0) is True  # nothing else judges
    assert is_correct(sample(math=None, format_think=1.0), 1.0) is None
    assert is_correct(sample(), 1.0) is None
