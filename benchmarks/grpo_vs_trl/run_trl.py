"""One training of the benchmark with trl's GRPOTrainer, in a process of its own. Prints one JSON line with what was measured."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from problem import GENERATIONS, LEARNING_RATE, MAX_COMPLETION, PROMPTS, TEMPERATURE, vowel_a


def main(folder: Path, steps: int, seed: int, threads: int, accumulate: int) -> None:
    """`accumulate` cuts the update into that many micro-batches."""
    torch.set_num_threads(threads)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows])
    parts: dict[str, list[float]] = {"generate": [], "score_and_prepare": [], "update": []}

    class Timed(GRPOTrainer):  # type: ignore[misc]
        """The same trainer with a clock around its parts; nothing else differs."""

        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = super()._generate(*args, **kwargs)
            parts["generate"].append(time.perf_counter() - begin)
            return result

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            begin = time.perf_counter()
            result = super()._generate_and_score_completions(inputs)
            parts["score_and_prepare"].append(time.perf_counter() - begin - parts["generate"][-1])
            return result

    config = GRPOConfig(
        output_dir=str(folder / "trl-run"),
        use_cpu=True,
        bf16=False,
        seed=seed,
        max_steps=steps,
        per_device_train_batch_size=PROMPTS * GENERATIONS // accumulate,
        gradient_accumulation_steps=accumulate,
        num_generations=GENERATIONS,
        max_completion_length=MAX_COMPLETION,
        temperature=TEMPERATURE,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        beta=0.0,
        loss_type="dapo",  # the mean over all tokens of the step, as align's token_mean
        epsilon=0.2,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Timed(model=str(folder / "model"), reward_funcs=vowel_a, args=config, train_dataset=dataset)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    history = [row for row in trainer.state.log_history if "reward" in row]
    step_s = [row["step_time"] for row in history]
    rollout_s = zip(parts["generate"], parts["score_and_prepare"], strict=True)
    parts["update"] = [step - sum(rollout) for step, rollout in zip(step_s, rollout_s, strict=True)]
    print(
        "RESULT "
        + json.dumps(
            {
                "total_s": seconds,
                "step_s": step_s,
                "reward": [row["reward"] for row in history],
                "length": [row["completions/mean_length"] for row in history],
                "parts": parts,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:6]))
