"""What a hacked reward looks like is noticed, and an honest one is not suspected."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from align.recipe.schema import Monitor
from align.rewards.monitor import RewardMonitor, within_groups
from align.rewards.verdict import Verdict
from align.types import Completion, Prompt, Rollout, Scored


def sample(
    reward: float, prompt: int = 0, tokens: int = 5, text: str = "", answer: str = "7", gold: float | None = None
) -> Scored:
    completion = Completion(
        prompt_index=0, sample_index=0, token_ids=(1,) * tokens, logprobs=(0.0,) * tokens, text=text, finish_reason="stop"
    )
    asked = Prompt(id=str(prompt), messages=({"role": "user", "content": f"problem {prompt}"},), token_ids=(1,), answer=answer)
    verdicts = {} if gold is None else {"held_out": Verdict(value=gold, status="pass")}
    return Scored(rollout=Rollout(prompt=asked, completion=completion), verdicts=verdicts, reward=reward)


def notes_of(steps: Sequence[Sequence[Scored]], **settings: Any) -> list[str]:
    monitor = RewardMonitor(Monitor(**settings))
    return [note.kind for step, samples in enumerate(steps) for note in monitor.observe(step, samples)[1]]


def test_correlation_within_groups_by_hand() -> None:
    easy = [sample(1.0, prompt=0, tokens=2), sample(0.0, prompt=0, tokens=4)]
    hard = [sample(0.5, prompt=1, tokens=90), sample(0.0, prompt=1, tokens=92)]
    assert within_groups([*easy, *hard], lambda one: len(one.rollout.completion.token_ids)) == pytest.approx(
        -(0.5 * 1 * 2 + 0.25 * 1 * 2) / math.sqrt((2 * 0.25 + 2 * 0.0625) * 4)
    )
    assert math.isnan(within_groups([sample(1.0), sample(1.0)], lambda one: 1.0))


def noisy(
    level: Callable[[int], float], *, gold: Callable[[int], float] = lambda step: 0.5, length: Callable[[float, int], int]
) -> list[list[Scored]]:
    draw = random.Random(0)
    steps = []
    for step in range(20):
        rewards = [level(step) + draw.uniform(-0.2, 0.2) for _ in range(32)]
        steps.append(
            [
                sample(
                    reward,
                    prompt=n // 4,
                    tokens=length(reward, step),
                    text=f"answer {n} {step}",
                    gold=gold(step) + draw.uniform(-0.05, 0.05),
                )
                for n, reward in enumerate(rewards)
            ]
        )
    return steps


def test_an_honest_run_is_not_suspected() -> None:
    steps = noisy(lambda step: 0.2 + 0.03 * step, gold=lambda step: 0.2 + 0.03 * step, length=lambda reward, step: 40 + step % 3)
    assert notes_of(steps, gold="held_out") == []


def test_a_reward_that_parts_from_the_held_out_one() -> None:
    steps = noisy(lambda step: 0.2 + 0.03 * step, gold=lambda step: 0.8 - 0.03 * step, length=lambda reward, step: 40)
    assert "reward_gold" in notes_of(steps, gold="held_out")
    assert "reward_gold" not in notes_of(steps)


def test_a_reward_for_length() -> None:
    steps = noisy(lambda step: 0.2 + 0.03 * step, length=lambda reward, step: int(100 * reward) + 20)
    assert "reward_length" in notes_of(steps)


def test_a_leap_of_the_reward() -> None:
    steps = noisy(lambda step: 0.2 if step < 15 else 0.9, length=lambda reward, step: 40)
    assert notes_of(steps) == ["reward_jump"]


def test_the_same_answer_for_every_prompt_is_noted_with_examples_unless_the_references_are_alike() -> None:
    alike = [sample(1.0, prompt=n, text="\\boxed{0}", answer=str(n)) for n in range(12)]
    _, (note,) = RewardMonitor(Monitor()).observe(0, alike)
    assert note.kind == "reward_frequent_answer"
    assert "100% of the prompts" in note.text
    assert "problem 0" in note.examples[0]
    assert "boxed" in note.examples[0]
    honest = [sample(1.0, prompt=n, text="\\boxed{A}", answer="A" if n < 8 else "B") for n in range(10)]
    assert RewardMonitor(Monitor()).observe(0, honest)[1] == []


def test_a_note_comes_once_in_twenty_steps_and_a_resumed_monitor_goes_on_as_if_it_had_not_stopped() -> None:
    alike = [sample(1.0, prompt=n, text="\\boxed{0}", answer=str(n)) for n in range(12)]
    monitor = RewardMonitor(Monitor())
    kinds = []
    for step in range(45):
        if step == 10:
            state = json.loads(json.dumps(monitor.state_dict()))
            monitor = RewardMonitor(Monitor())
            monitor.load_state_dict(state)
        kinds += [step for _ in monitor.observe(step, alike)[1]]
    assert kinds == [0, 20, 40]


def test_samples_without_verdict_are_no_evidence() -> None:
    metrics, notes = RewardMonitor(Monitor()).observe(0, [sample(math.nan, prompt=n) for n in range(12)])
    assert notes == []
    assert math.isnan(metrics["monitor/length_correlation"])
