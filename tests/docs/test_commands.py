"""Every command in the documentation runs, in the order in which it stands there.

Long ones are cut short by overrides at their end, and hub ids are replaced by local folders and files: nothing is downloaded.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from align.learner.fresh import build_model, train_tokenizer
from align.recipe.schema import ModelInit

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
SHORT_RL = [
    "train.steps=2", "train.warmup_steps=0", "train.prompts_per_step=2", "train.minibatches=1", "evaluate.max_problems=2",
    "evaluate.num_generations=2", "evaluate.k=[1]", "rollout.max_completion_length=8",
]  # fmt: skip
LOCAL_DATA = [
    "data.train=[{path: problems.jsonl, columns: {prompt: question}}]",
    "data.eval=[{path: problems.jsonl, columns: {prompt: question}}]",
]
# The first pattern that a command matches says what is added to it.
CUTS: list[tuple[str, list[str]]] = [
    (r"align train gsm8k/grpo$", ["model.path=base", "model.dtype=float32", *LOCAL_DATA, *SHORT_RL]),
    (r"align check sizes/reward", ["data.train=[{path: pairs.jsonl}]"]),
    (r"align check sizes/", LOCAL_DATA[:1]),
    (r"align train gsm8k/grpo_cpu", [*LOCAL_DATA, *SHORT_RL]),
    (r"align check gsm8k/grpo", ["model.path=base", *LOCAL_DATA]),
    (r"align train (preference|reward_model)/", []),  # on local files as it is
    (r"align train methods/ppo", [*SHORT_RL, "algorithm.critic.warmup_steps=1"]),
    (r"align train (quickstart/sft|methods/start)", ["train.steps=2", "train.warmup_steps=0"]),
    (r"align train methods/grpo output_dir", ["model.path=base", *LOCAL_DATA, *SHORT_RL]),
    (
        r"align (train|check) judge",
        ["model.path=base", *(f"data.{split}=[{{path: pairs.jsonl}}]" for split in ("train", "eval"))],
    ),
    (
        r"align (train|check) prefer",
        [
            "model.path=base",
            "model.dtype=float32",
            "train.steps=2",
            "train.warmup_steps=0",
            "train.rows_per_step=4",
            *(f"data.{split}=[{{path: pairs.jsonl}}]" for split in ("train", "eval")),
        ],
    ),
    (r"align train", SHORT_RL),
    (
        r"align evaluate evaluate/gsm8k",
        ["model.dtype=float32", "evaluate.num_generations=2", "evaluate.k=[1]", "evaluate.max_completion_length=8"],
    ),
    (r"align evaluate quickstart/grpo", ["evaluate.max_problems=2", "evaluate.max_completion_length=8"]),
    (r"align evaluate --model", ["--max-completion-length", "8"]),
]


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/recipes.md",
    "docs/methods.md",
    "docs/algorithms.md",
    "docs/ppo.md",
    "docs/reward_models.md",
    "docs/rewards.md",
    "docs/code.md",
    "docs/data.md",
    pytest.param("docs/launch.md", marks=needs("deepspeed", "vllm", "ray")),
    pytest.param("docs/ray.md", marks=needs("ray")),
    pytest.param("docs/engines.md", marks=pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")),
    "docs/modes.md",
    pytest.param("docs/sizes.md", marks=needs("vllm", "deepspeed", "ray")),
    "docs/judges.md",
    "docs/math.md",
    "docs/plugins.md",
    "docs/verifiers.md",
    "docs/sandbox.md",
    "docs/preference.md",
    "docs/statistics.md",
    "docs/evaluate.md",
    "docs/report.md",
]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def commands(text: str) -> list[str]:
    found = [block.replace("\\\n", " ") for block in blocks(text, "bash")]
    return [line for block in found for line in block.splitlines() if line.strip()]


def cut(command: str) -> list[str]:
    extra = next((extra for pattern, extra in CUTS if re.match(pattern, command)), [])
    words = shlex.split(command)
    flags = [word for word in words[1:] if word == "--resume"]
    return [*(word for word in words if word not in flags), *extra, *flags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory as the documentation assumes it: the quickstart has run, and the files it names are there."""
    folder = tmp_path_factory.mktemp("documented")
    tokenizer = train_tokenizer(ModelInit().tokenizer, ["What is 1+2?"])
    build_model(ModelInit(model_type="qwen2", config=TINY), tokenizer, 0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [{"question": f"What is {i}+{i}?", "answer": f"Twice.\n#### {2 * i}", "completion": f"so {2 * i}"} for i in range(8)]
    for name in ("problems.jsonl", "completions.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    programs = [
        {"completion": f"def f(x):\n    return x + {i}", "tests": {"asserts": [f"assert f(1) == {i + 1}"]}} for i in range(3)
    ]
    (folder / "programs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in programs))
    judged = [{"completion": "x" * i, "value": i / 8, "status": "pass", "human": i > 3} for i in range(8)]
    (folder / "scored_by_judge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    (folder / "mine.py").write_text(blocks((Path(__file__).parents[2] / "docs" / "plugins.md").read_text(), "python")[0])
    pairs = [{"prompt": f"What is {i}+{i}?", "chosen": f"so {2 * i}", "rejected": f"so {2 * i + 1}"} for i in range(8)]
    for name in ("pairs.jsonl", "held_out.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in pairs))
    for model in ("base", "tuned"):
        samples = folder / "lm_eval" / model / "samples_gsm8k_2025-01-02T03-04-05.6.jsonl"
        samples.parent.mkdir(parents=True)
        lines = [
            {
                "doc_id": i,
                "resps": [["so 4"]],
                "filtered_resps": ["4"],
                "filter": kind,
                "metrics": ["exact_match"],
                "exact_match": i % 2,
            }
            for kind in ("strict-match", "flexible-extract")
            for i in range(4)
        ]
        samples.write_text("".join(json.dumps(row) + "\n" for row in lines))
    (folder / "HumanEval.jsonl").write_text('{"task_id": "HumanEval/0"}\n')
    (folder / "evals" / "code").mkdir(parents=True)
    (folder / "evals" / "code" / "samples.jsonl").write_text(
        json.dumps({"prompt_id": "HumanEval:0", "sample": 0, "correct": True, "completion": "def f():\n    return 1"}) + "\n"
    )
    run(folder, cut("align train quickstart/sft"))
    run(folder, cut("align train quickstart/grpo"))
    return folder


def run(folder: Path, words: list[str]) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs(checkout, folder, tmp_path, page):
    here = shutil.copytree(folder, tmp_path / "here")
    for command in commands((checkout / page).read_text()):
        if command.startswith("make "):
            run(checkout, ["make", "--dry-run", *shlex.split(command)[1:]])  # the quickstart itself is a slow test
        else:
            run(here, cut(command))
    if page == "README.md":
        assert (here / "scored.jsonl").read_text().count('"status": "pass"') == 8
        assert (here / "my-model" / "config.json").exists()


def test_the_python_of_the_readme_runs(checkout, folder):
    (code,) = blocks((checkout / "README.md").read_text(), "python")
    words = ", ".join(f'"{word}"' for word in SHORT_RL)
    shorter = code.replace('"output_dir', f'{words}, "output_dir')
    assert shorter != code
    assert re.search(r"'value': [\d.]+", run(folder, [sys.executable, "-c", shorter]))


def test_the_python_of_the_statistics_runs(checkout, folder, tmp_path):
    here = shutil.copytree(folder, tmp_path / "here")
    text = (checkout / "docs" / "statistics.md").read_text()
    for command in commands(text)[:2]:
        run(here, cut(command))
    (code,) = blocks(text, "python")
    assert "0.00299" in run(here, [sys.executable, "-c", code])


def test_the_recipe_of_the_readme_is_valid(checkout, folder):
    (recipe,) = blocks((checkout / "README.md").read_text(), "yaml")
    (folder / "readme.yaml").write_text(recipe)
    (python,) = blocks((checkout / "CONTRIBUTING.md").read_text(), "python")[:1]
    (folder / "mine.py").write_text(python)
    output = run(folder, ["align", "check", "readme.yaml", "model.path=base"])
    assert "dapo" in output
