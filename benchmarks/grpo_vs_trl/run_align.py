"""One training of the benchmark with align, in a process of its own. Prints one JSON line with what was measured."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from problem import GENERATIONS, LEARNING_RATE, MAX_COMPLETION, PROMPTS, TEMPERATURE

import align

PARTS = {
    "generate": "time/generate",
    "score": "time/score",  # what is left of scoring when the last sample is written
    "logprobs": "time/logprobs",
    "update": "time/update",
    "publish": "time/publish",
}


def main(folder: Path, steps: int, seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    recipe = {
        "recipe": "rl",
        "seed": seed,
        "output_dir": str(folder / "align-run"),
        "model": {"path": str(folder / "model")},
        "data": {"train": [{"path": str(folder / "train.jsonl")}]},
        "rollout": {
            "num_generations": GENERATIONS,
            "max_completion_length": MAX_COMPLETION,
            "temperature": TEMPERATURE,
            "parity_every": 0,
        },
        "rewards": [{"use": f"{Path(__file__).with_name('problem.py')}:vowel_a"}],
        "algorithm": {"method": "grpo", "beta": 0.0, "reduce": "token_mean"},
        "train": {
            "steps": steps,
            "prompts_per_step": PROMPTS,
            "learning_rate": LEARNING_RATE,
            "save_steps": 0,
            "micro_batch_tokens": 2048,
        },
        "log": {"tensorboard": False, "samples_every": 0},
    }
    file = folder / "align.yaml"
    file.write_text(json.dumps(recipe))  # JSON is YAML
    begin = time.perf_counter()
    align.train(file, overwrite=True)
    seconds = time.perf_counter() - begin
    rows = [json.loads(line) for line in (folder / "align-run" / "metrics.jsonl").read_text().splitlines()]
    print(
        "RESULT "
        + json.dumps(
            {
                "total_s": seconds,
                "step_s": [row["step_time"] for row in rows],
                "reward": [row["reward"] for row in rows],
                "length": [row["completions/mean_length"] for row in rows],
                "parts": {part: [row[key] for row in rows] for part, key in PARTS.items()},
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
