"""A policy against a learned judge: what the judge says of it rises on, what is true of it does not.

    python benchmarks/overoptimization --steps 60

A tiny model imitates descriptions, three reward models learn from noisy comparisons of them, and PPO then maximises a judge: one
model on a long leash (hardly any KL penalty), one model with an adaptive penalty that holds a target, and three models less their
standard deviation. The true judge watches with weight 0. Writes curves.json and overoptimization.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from problem import write_data

import align

HERE = Path(__file__).parent
KL_TARGET = 0.3  # nats a token
RUNS: dict[str, dict[str, Any]] = {
    "long leash": {"beta": 0.001},
    "KL target": {"beta": 0.4, "kl_target": KL_TARGET, "kl_horizon": 2000},
    "three judges": {"beta": 0.001},
}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def recipe(folder: Path, name: str, tree: Mapping[str, Any]) -> Path:
    file = folder / f"{name}.yaml"
    common = {"output_dir": str(folder / name), "log": {"tensorboard": False, "samples_every": 0}}
    file.write_text(json.dumps({**common, **tree}))
    return file


def imitate(folder: Path) -> Path:
    tree = {
        "recipe": "sft",
        "model": {"init": {"model_type": "llama", "config": SIZES, "tokenizer": {"vocab_size": 400}}},
        "data": {"train": [{"path": str(folder / "demonstrations.jsonl")}]},
        "train": {"steps": 300, "sequences_per_step": 32, "learning_rate": 2e-3, "lr_scheduler_type": "cosine", "save_steps": 0},
    }
    align.train(recipe(folder, "start", tree), overwrite=True)
    return folder / "start"


def judge(folder: Path, start: Path, seed: int) -> dict[str, Any]:
    """Train a reward model on three quarters of the pairs, others for each seed; return its held-out accuracy."""
    lines = (folder / "pairs.jsonl").read_text().splitlines(keepends=True)
    (folder / f"pairs_{seed}.jsonl").write_text("".join(line for number, line in enumerate(lines) if number % 4 != seed))
    tree = {
        "recipe": "reward_model",
        "seed": seed,
        "model": {"path": str(start)},
        "data": {"train": [{"path": str(folder / f"pairs_{seed}.jsonl")}], "eval": [{"path": str(folder / "held_out.jsonl")}]},
        "train": {"steps": 45, "rows_per_step": 32, "learning_rate": 5e-4, "max_length": 96, "save_steps": 0},
        "evaluate": {},
    }
    return align.train(recipe(folder, f"judge_{seed}", tree), overwrite=True)["estimates"]["after"]["accuracy"]


def practise(folder: Path, start: Path, name: str, steps: int) -> list[dict[str, float]]:
    """PPO against the judge; what the judge and the true judge said at each step, and the KL from the start."""
    judges = [str(folder / f"judge_{seed}") for seed in range(3)]
    ensemble = {"path": judges, "combine": "mean_minus_std", "penalty": 1.0}
    tree = {
        "recipe": "rl",
        "model": {"path": str(start)},
        "data": {"train": [{"path": str(folder / "prompts.jsonl")}]},
        "rollout": {"num_generations": 4, "max_completion_length": 40, "max_batch_sequences": 80},
        "rewards": [
            {"use": "reward_model", "name": "judge", "params": ensemble if name == "three judges" else {"path": judges[0]}},
            {"use": f"{HERE / 'gold.py'}:gold", "name": "gold", "weight": 0.0},
        ],
        "monitor": {"gold": "gold"},
        "algorithm": {"method": "ppo", "critic": {"learning_rate": 1e-3, "warmup_steps": 3}, **RUNS[name]},
        "train": {"steps": steps, "prompts_per_step": 20, "epochs": 2, "learning_rate": 3e-4, "save_steps": 0},
    }
    run = recipe(folder, name.replace(" ", "_"), tree)
    align.train(run, overwrite=True)
    rows = [json.loads(line) for line in (run.with_suffix("") / "metrics.jsonl").read_text().splitlines()]
    keys = {"judge": "rewards/judge/mean", "gold": "rewards/gold/mean", "kl": "kl", "step": "step"}
    return [{ours: row.get(theirs, 0.0) for ours, theirs in keys.items()} for row in rows]  # no KL while the critic learns alone


def plot(curves: Mapping[str, list[dict[str, float]]], file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(curves), sharex=True, sharey="row", height_ratios=(2, 1))
    for (scores, divergence), (name, rows) in zip(grid.T, curves.items(), strict=True):
        steps = [row["step"] for row in rows]
        for key, colour, label in (("judge", "#4477aa", "learned judge"), ("gold", "#cc3311", "true score")):
            values = [row[key] for row in rows]
            scores.plot(steps, values, color=colour, alpha=0.3)
            scores.plot(steps, [fmean(values[max(0, at - 4) : at + 1]) for at in range(len(values))], color=colour, label=label)
        divergence.plot(steps, [row["kl"] for row in rows], color="#666666")
        divergence.axhline(KL_TARGET, color="#228833", linestyle=":", label=f"{KL_TARGET} (the target of the middle run)")
        scores.set(title=name)
        divergence.set(xlabel="step")
        divergence.xaxis.get_major_locator().set_params(integer=True)
        for axes in (scores, divergence):
            axes.grid(alpha=0.3)
    grid[0, 0].set(ylabel="score, means of five steps")
    grid[1, 0].set(ylabel="KL, nats a token")
    grid[0, 0].legend(frameon=False, loc="lower right")
    grid[1, 0].legend(frameon=False, loc="upper left")
    figure.savefig(file, dpi=120)


def notes(run: Path) -> list[dict[str, Any]]:
    """What the monitor of rewards said during a run."""
    file = run / "notes.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


HEADER = f"| run | learned judge | true score | KL at the end, nats a token | steps of KL > {KL_TARGET} |\n|---|---|---|---|---|"


def row(name: str, rows: list[dict[str, float]]) -> str:
    """One line of the table: the first five steps, the best and the worst five of the true score, the last ten."""
    first, last = rows[:5], rows[-10:]
    gold = [fmean(one["gold"] for one in rows[at : at + 5]) for at in range(len(rows) - 4)]
    best, worst = (f"{value:.2f} (from step {gold.index(value) + 1})" for value in (max(gold), min(gold)))
    judged = f"{fmean(one['judge'] for one in first):.2f} to {fmean(one['judge'] for one in last):.2f}"
    true = f"{gold[0]:.2f}, at best {best}, at worst {worst}, at the end {fmean(one['gold'] for one in last):.2f}"
    above = sum(one["kl"] > KL_TARGET for one in rows)
    return f"| {name} | {judged} | {true} | {fmean(one['kl'] for one in last):.3f} | {above} of {len(rows)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("runs/overoptimization"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    write_data(folder)
    start = imitate(folder)
    accuracies = [judge(folder, start, seed) for seed in range(3)]
    curves = {name: practise(folder, start, name, options.steps) for name in RUNS}
    (folder / "curves.json").write_text(json.dumps({"accuracy": accuracies, "curves": curves}))
    plot(curves, folder / "overoptimization.png")
    for one in accuracies:
        print(f"held-out accuracy of a judge: {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})")
    print(HEADER)
    for name, rows in curves.items():
        print(row(name, rows))
    for name in RUNS:
        for note in notes(folder / name.replace(" ", "_")):
            print(f"{name}, step {note['step']}: {note['text']}")


if __name__ == "__main__":
    main()
