"""Every benchmark from its rows to its verdicts, on rows of our own and, where they lie on this machine, on the real ones."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from align.data.prompts import load_prompts
from align.data.sources import read_all
from align.errors import DataError, RecipeError
from align.learner.fresh import train_tokenizer
from align.recipe.load import load_recipe, recipe_names
from align.recipe.schema import RewardBudget, TokenizerInit
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.types import Completion, Prompt, Rollout
from tests.evaluate.benchmark_rows import FIXTURES

BENCHMARKS = [name.removeprefix("evaluate/") for name in recipe_names() if name.startswith("evaluate/")]
WITHOUT_ROWS = {"tasks", "reward_bench"}  # generated, and tested with a reward model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TokenizerInit(vocab_size=300), ["What is 1+2?"])


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts_of(name: str, tokenizer: Any, *overrides: str) -> list[Prompt]:
    recipe = load_recipe(f"evaluate/{name}", ["data.max_prompt_length=100000", *overrides], check_files=False).recipe
    return load_prompts(read_all(recipe.data.eval), tokenizer, max_prompt_length=recipe.data.max_prompt_length).prompts


SCORERS: dict[str, Scorer] = {}  # worker processes start once for all benchmarks of the same rewards


@pytest.fixture(scope="module", autouse=True)
def _closed_in_the_end() -> Iterator[None]:
    yield
    while SCORERS:
        SCORERS.popitem()[1].close()


def statuses(name: str, prompts: list[Prompt], texts: list[str]) -> list[str]:
    """The verdicts of a benchmark's reward on these completions."""
    recipe = load_recipe(f"evaluate/{name}", check_files=False).recipe
    rollouts = [
        Rollout(
            prompt=prompt,
            completion=Completion(prompt_index=0, sample_index=0, token_ids=(), logprobs=(), text=text, finish_reason="stop"),
        )
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    key = json.dumps([spec.model_dump() for spec in recipe.reward_specs])
    if key not in SCORERS:
        SCORERS[key] = Scorer(RewardStack(recipe.reward_specs, RewardBudget(max_error_rate=1.0)))
    return [verdict.status for scored in SCORERS[key].submit(rollouts).result() for verdict in scored.verdicts.values()]


def test_every_benchmark_has_rows_here() -> None:
    assert set(BENCHMARKS) == set(FIXTURES) | WITHOUT_ROWS


@pytest.mark.parametrize("name", FIXTURES)
def test_rows_are_asked_and_graded(name: str, tokenizer: Any, tmp_path: Path) -> None:
    fixture = FIXTURES[name]
    overrides = [f"data.eval.0.path={write(tmp_path / 'asked.jsonl', fixture.rows)}"]
    if fixture.shots:
        overrides.append(f"data.eval.0.few_shot.path={write(tmp_path / 'shots.jsonl', fixture.shots)}")
    prompts = prompts_of(name, tokenizer, *overrides)
    assert len(prompts) == len(fixture.rows)
    assert fixture.asked in str(prompts[0].messages[-1]["content"])
    for prompt, row in zip(prompts, fixture.rows, strict=True):
        shown = "\n".join(str(message["content"]) for message in prompt.messages)
        assert not any(str(row[secret]) in shown for secret in ("solution", "canonical_solution", "code") if row.get(secret))
    letters = [(str(prompt.answer), "A" if prompt.answer != "A" else "B") for prompt in prompts]
    right = [text.replace("RIGHT", one) for text, (one, _) in zip(fixture.right, letters, strict=True)]
    wrong = [text.replace("WRONG", other) for text, (_, other) in zip(fixture.wrong, letters, strict=True)]
    assert statuses(name, prompts, right) == ["pass"] * len(prompts)
    assert all(status in ("fail", "unparsable") for status in statuses(name, prompts, wrong))


def test_options_are_shuffled_by_seed_and_row_alone(tokenizer: Any, tmp_path: Path) -> None:
    row = FIXTURES["gpqa"].rows[0]
    path = write(tmp_path / "asked.jsonl", [row | {"Question": f"Question {n}?"} for n in range(40)])
    first = prompts_of("gpqa", tokenizer, f"data.eval.0.path={path}")
    again = prompts_of("gpqa", tokenizer, f"data.eval.0.path={path}", "data.eval.0.limit=10")
    other = prompts_of("gpqa", tokenizer, f"data.eval.0.path={path}", "data.eval.0.options.seed=1")
    answers = [prompt.answer for prompt in first]
    assert set(answers) == set("ABCD")
    assert [prompt.messages for prompt in again] == [prompt.messages for prompt in first[:10]]
    assert [prompt.answer for prompt in other] != answers
    for prompt in first:
        assert f"{prompt.answer}) right 0" in str(prompt.messages[-1]["content"])


def test_examples_are_fixed_and_never_what_is_asked(tokenizer: Any, tmp_path: Path) -> None:
    fixture = FIXTURES["gsm8k_few_shot"]
    asked = write(tmp_path / "asked.jsonl", fixture.rows)
    shots = write(tmp_path / "shots.jsonl", [*fixture.rows, *fixture.shots[:8]])
    overrides = (f"data.eval.0.path={asked}", f"data.eval.0.few_shot.path={shots}")
    first, second = prompts_of("gsm8k_few_shot", tokenizer, *overrides)
    assert [message["role"] for message in first.messages] == [*["user", "assistant"] * 8, "user"]
    assert first.messages[:-1] == second.messages[:-1]
    shown = "".join(str(message["content"]) for message in first.messages[:-1])
    assert not any(row["question"] in shown for row in fixture.rows)  # of 10 rows the 8 others
    reordered, _ = prompts_of("gsm8k_few_shot", tokenizer, *overrides, "data.eval.0.few_shot.seed=5")
    assert reordered.messages[:-1] != first.messages[:-1]


def test_examples_are_of_the_same_subject(tokenizer: Any, tmp_path: Path) -> None:
    fixture = FIXTURES["mmlu_pro"]
    paths = write(tmp_path / "asked.jsonl", fixture.rows), write(tmp_path / "shots.jsonl", fixture.shots)
    (prompt,) = prompts_of("mmlu_pro", tokenizer, f"data.eval.0.path={paths[0]}", f"data.eval.0.few_shot.path={paths[1]}")
    asked = [str(message["content"]) for message in prompt.messages if message["role"] == "user"]
    assert len(asked) == 6
    assert all(int(text.split("Which is ")[1].split("?")[0]) % 2 for text in asked[:-1])


@pytest.mark.parametrize("few_shot", [{"path": None}, {"count": 15}])
def test_examples_that_cannot_be_had_are_refused(few_shot: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    fixture = FIXTURES["gsm8k_few_shot"]
    shots = write(tmp_path / "shots.jsonl", fixture.shots[:10])
    settings = [f"data.eval.0.few_shot.{key}={json.dumps(value)}" for key, value in {"path": str(shots), **few_shot}.items()]
    with pytest.raises(DataError, match=r"few_shot: (the few-shot examples would be|few_shot.count is 15, and 10)") as caught:
        prompts_of("gsm8k_few_shot", tokenizer, f"data.eval.0.path={write(tmp_path / 'asked.jsonl', fixture.rows)}", *settings)
    assert "few_shot.count" in str(caught.value.fix)


def test_a_missing_option_is_a_bad_row(tokenizer: Any, tmp_path: Path) -> None:
    row = {key: value for key, value in FIXTURES["gpqa"].rows[0].items() if key != "Incorrect Answer 2"}
    with pytest.raises(DataError, match="no 'Incorrect Answer 2'"):
        prompts_of("gpqa", tokenizer, f"data.eval.0.path={write(tmp_path / 'asked.jsonl', [row])}")


@pytest.mark.parametrize("options", [{}, {"of": "a", "right": "b", "wrong": ["c"]}, {"right": "b"}, {"wrong": ["b"]}])
def test_options_have_one_form(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="give either of"):
        load_recipe("evaluate/gpqa", [f"data.eval.0.options={json.dumps(options)}"])


def test_packed_private_tests_run_no_code(tokenizer: Any, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "written").touch, ())

    fixture = FIXTURES["livecodebench"]
    packed = base64.b64encode(zlib.compress(pickle.dumps(Hostile()))).decode()
    path = write(tmp_path / "asked.jsonl", [{**fixture.rows[0], "private_test_cases": packed}])
    prompts = prompts_of("livecodebench", tokenizer, f"data.eval.0.path={path}")
    assert statuses("livecodebench", prompts, fixture.right[:1]) == ["error"]
    assert not (tmp_path / "written").exists()


def test_the_generated_tasks_pass_their_own_answers(tokenizer: Any) -> None:
    overrides = [f"data.eval.{number}.size=10" for number in range(4)]
    prompts = prompts_of("tasks", tokenizer, *overrides)
    assert Counter(prompt.source for prompt in prompts) == {"chain_sum": 10, "countdown": 10, "knights": 10, "one_liner": 10}
    texts = [str(prompt.columns["completion"]) for prompt in prompts]
    assert statuses("tasks", prompts, texts) == ["pass"] * 40


# What of a real row is a right answer, and how many rows there are.
REAL: list[Any] = [
    pytest.param(
        *("gsm8k", "math/gsm8k_test.jsonl", [], lambda row: f"\\boxed{{{row['answer'].rpartition('#### ')[2]}}}", 1319),
        marks=pytest.mark.slow,
    ),
    ("math500", "math/math500_test.jsonl", [], lambda row: f"\\boxed{{{row['answer']}}}", 500),
    pytest.param(
        "humaneval",
        "code/HumanEval.jsonl.gz",
        [],
        lambda row: f"```python\n{row['prompt']}{row['canonical_solution']}\n```",
        164,
        marks=pytest.mark.slow,
    ),
    (
        "mbpp",
        "code/mbpp_sample.jsonl",
        ["data.eval.0.columns={prompt: content}", "data.eval.0.few_shot.count=0"],
        lambda row: f"```python\n{row['canonical_solution']}\n```",
        20,
    ),
    (
        "countdown",
        "tasks/countdown_600.jsonl",
        ["data.eval.0.columns={prompt: numbers}"],
        lambda row: f"<answer> {row['one_solution']} </answer>",
        600,
    ),
]


@pytest.mark.parametrize(("name", "file", "more", "answer", "count"), REAL)
def test_reference_answers_of_real_rows_pass(
    name: str, file: str, more: list[str], answer: Any, count: int, shared_data: Path, tokenizer: Any
) -> None:
    prompts = prompts_of(name, tokenizer, f"data.eval.0.path={shared_data / file}", *more)
    assert len(prompts) == count
    sound = [prompt for prompt in prompts if name != "countdown" or uses_all(prompt.columns)]
    assert Counter(statuses(name, sound, [answer(prompt.columns) for prompt in sound])) == {"pass": len(sound)}


def uses_all(columns: Any) -> bool:
    """Whether a stored solution uses every number, as this benchmark asks; others may leave numbers out."""
    import re

    return sorted(map(int, re.findall(r"\d+", columns["one_solution"]))) == sorted(columns["numbers"])


def test_every_constraint_of_the_real_ifbench_is_known(shared_data: Path, tokenizer: Any) -> None:
    prompts = prompts_of("ifbench", tokenizer, f"data.eval.0.path={shared_data / 'instruction_following/IFBench_test.jsonl'}")
    assert len(prompts) == 300
    assert "error" not in statuses("ifbench", prompts, ["An answer."] * 300)


def test_real_examples_before_real_problems(shared_data: Path, tokenizer: Any) -> None:
    math = shared_data / "math"
    overrides = [
        *(f"data.eval.0.path={math / 'gsm8k_test.jsonl'}", "data.eval.0.limit=50"),
        f"data.eval.0.few_shot.path={math / 'gsm8k_train.jsonl.gz'}",
    ]
    prompts = prompts_of("gsm8k_few_shot", tokenizer, *overrides)
    assert len({prompt.messages[:-1] for prompt in map(_hashable, prompts)}) == 1
    assert statuses("gsm8k_few_shot", prompts, [str(prompt.columns["answer"]) for prompt in prompts]) == ["pass"] * 50


def _hashable(prompt: Prompt) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(messages=tuple((message["role"], message["content"]) for message in prompt.messages))
