"""GRPO with align and with trl, in turn on the same machine: samples per second, peak memory, reward curves.

    python benchmarks/grpo_vs_trl --steps 20 --rounds 3 --folder runs/grpo_vs_trl

Each round trains once with each toolkit, each in a process of its own. Figures are medians over the rounds; ratios are taken
within a round. The model (about 10 M parameters) is first fine-tuned to write answers of long-tailed length; it is kept in
the folder for the next call.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from problem import GENERATIONS, MODEL, PROMPTS, write_data

HERE = Path(__file__).parent


def prepare(folder: Path, threads: int) -> None:
    """Write the data and train the starting model, unless an earlier call did."""
    if (folder / "model" / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    recipe = {
        "recipe": "sft",
        "output_dir": str(folder / "sft"),
        "model": {"init": MODEL},
        "data": {"train": [{"path": str(folder / "train.jsonl")}]},
        "train": {
            "steps": 200,
            "sequences_per_step": 16,
            "learning_rate": 1e-3,
            "warmup_steps": 10,
            "save_steps": 0,
            "max_length": 512,
        },
    }
    (folder / "sft.yaml").write_text(json.dumps(recipe))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "align.cli", "train", folder / "sft.yaml", "--overwrite"], env=environment, check=True)
    subprocess.run([sys.executable, "-m", "align.cli", "export", folder / "sft", folder / "model"], env=environment, check=True)


# What is run: a script and its further arguments. trl computes an update in one pass, or in four with less memory.
RUNS: dict[str, tuple[str, list[str]]] = {
    "align": ("run_align.py", []),
    "trl": ("run_trl.py", ["1"]),
    "trl in 4": ("run_trl.py", ["4"]),
}


def measure(toolkit: str, folder: Path, steps: int, seed: int, threads: int) -> dict:
    script, more = RUNS[toolkit]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, HERE / script, folder, str(steps), str(seed), str(threads), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{toolkit} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result = json.loads(lines[-1].removeprefix("RESULT "))
    # The first step warms caches and allocators up on both sides.
    result["samples_per_s"] = PROMPTS * GENERATIONS / statistics.fmean(result["step_s"][1:])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("runs/grpo_vs_trl"))
    options = parser.parse_args()
    prepare(options.folder, options.threads)
    results: dict[str, list[dict]] = {toolkit: [] for toolkit in RUNS}
    for seed in range(options.rounds):
        for toolkit, rounds in results.items():
            rounds.append(measure(toolkit, options.folder, options.steps, seed, options.threads))
            last = rounds[-1]
            print(f"round {seed} {toolkit:8} {last['samples_per_s']:6.1f} samples/s  {last['peak_mb']:6.0f} MB", flush=True)
    report(results)
    (options.folder / "results.json").write_text(json.dumps(results))


def report(results: dict[str, list[dict]]) -> None:
    for toolkit, rounds in results.items():
        parts = {
            part: statistics.median(statistics.fmean(one["parts"][part][1:]) for one in rounds) for part in rounds[0]["parts"]
        }
        shown = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in parts.items())
        step = statistics.median(statistics.fmean(one["step_s"][1:]) for one in rounds)
        late = statistics.median(statistics.fmean(one["reward"][-5:]) for one in rounds)
        early = statistics.median(statistics.fmean(one["reward"][:5]) for one in rounds)
        print(f"{toolkit:8} step {step:.2f} s ({shown}); reward {early:.3f} -> {late:.3f} (first and last five steps)")
    for other in [toolkit for toolkit in results if toolkit != "align"]:
        pairs = list(zip(results["align"], results[other], strict=True))
        for name, key in (("samples per second", "samples_per_s"), ("peak memory", "peak_mb")):
            ratios = [ours[key] / theirs[key] for ours, theirs in pairs]
            print(f"{name}, align / {other}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
