"""Which curves a report shows, and the numbers of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from align.report.record import RunRecord

MOST_POINTS = 2_000  # of a curve; longer runs are shown as means of equally many steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves that share their axes. `keys` are the metrics, with * for any text; each goes to the first chart that names it."""

    section: str
    title: str
    keys: tuple[str, ...]
    unit: str = ""
    help: str = ""
    stacked: bool = False
    share: bool = False  # of 0 to 1, shown in per cent


def _chart(section: str, title: str, *keys: str, **more: Any) -> Chart:
    return Chart(section=section, title=title, keys=keys, **more)


CHARTS = (
    _chart("Reward", "Reward", "reward", "greedy/reward", "demonstrations/reward", help="mean over the samples of a step"),
    _chart("Reward", "Reward by source", "reward/*", help="mean by source of the data"),
    _chart("Reward", "Mean of each reward", "rewards/*/mean", help="before weighting"),
    _chart("Reward", "Spread of the reward", "reward_std", "rewards/*/std", help="standard deviation over samples"),
    _chart("Reward", "Groups without a signal", "frac_reward_zero_std", share=True, help="all rewards of the group equal"),
    _chart("Reward", "Samples without a verdict", "frac_masked", "rewards/*/error_rate", share=True, help="left out"),
    _chart("Reward", "Preferences: reward", "rewards/chosen", "rewards/rejected", "rewards/margins", unit="nats x beta"),
    _chart("Reward", "Accuracy", "rewards/accuracies", "accuracy", "accuracy/*", share=True, help="chosen above rejected"),
    _chart("Reward", "Log-probs", "logps/*", "logits/*", unit="nats"),
    _chart("Loss", "Loss", "loss", "policy/loss", unit=""),
    _chart("Loss", "KL to the reference", "kl", "teacher/kl", "objective/kl", unit="nats"),
    _chart("Loss", "Entropy", "entropy", unit="nats a token"),
    _chart("Loss", "Gradient norm", "grad_norm", "critic/grad_norm", help="before clipping"),
    _chart("Loss", "Clipped tokens", "clip_ratio/*", "critic/clip_ratio", share=True, help="where the ratio left its bounds"),
    _chart("Loss", "Importance ratio", "ratio/*"),
    _chart("Loss", "Learning rate", "learning_rate", "critic/learning_rate", "beta", "entropy_coefficient"),
    _chart("Critic", "Explained variance", "explained_variance", help="1 is perfect, 0 no better than the mean"),
    _chart("Critic", "Value and return", "critic/value_mean", "critic/return_mean"),
    _chart("Critic", "Loss of the critic", "critic/loss"),
    _chart("Completions", "Length", "completions/mean*", "completions/min_length", "completions/max_length", unit="tokens"),
    _chart("Completions", "Cut off at the length limit", "completions/clipped_ratio", share=True),
    _chart("Completions", "Reward hacking", "monitor/*", help="correlations within groups; share of one answer"),
    _chart("Sampler and trainer", "Log-prob difference", "parity/mean", "parity/max", "parity/kl", unit="nats"),
    _chart("Sampler and trainer", "Probability difference", "mismatch/prob_diff*"),
    _chart("Sampler and trainer", "Agreement", "parity/correlation", "mismatch/correlation", "mismatch/ess"),
    _chart("Sampler and trainer", "Masked by mismatch", "mismatch/masked", share=True),
    _chart("Sampler and trainer", "Staleness", "staleness", "staleness/*", "rollout/staleness*", unit="versions"),
    _chart("Speed", "Seconds of a step, by phase", "time/*", unit="s", stacked=True),
    _chart("Speed", "Seconds of a step", "step_time", unit="s"),
    _chart("Speed", "Throughput", "tokens_per_second", unit="tokens/s"),
    _chart("Speed", "Engines", "engine/*", help="idle: share of the time without work"),
    _chart("Speed", "Padding", "padding_share", share=True),
)
_COUNTERS = ("num_tokens", "elapsed", "step", "episode", "eps", "lr", "micro_batches")  # curves that say nothing
OTHER = "Everything else"


def charts_of(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The charts that these runs have numbers for, with the metrics of each; what no chart names gets one by its first word."""
    keys = {key: None for run in runs for row in run.rows for key, value in row.items() if value is not None}
    left = [key for key in keys if key not in _COUNTERS and not key.startswith("eval/")]
    shown = []
    for chart in CHARTS:
        own = [key for key in left if any(fnmatchcase(key, pattern) for pattern in chart.keys)]
        left = [key for key in left if key not in own]
        own = [key for key in own if not _always(runs, key, 0.0) or chart.title in ("Loss", "Reward", "Length")]
        if own:
            shown.append(asdict(chart) | {"keys": own})
    by_word: dict[str, list[str]] = {}
    for key in left:
        by_word.setdefault(key.rpartition("/")[0] or key, []).append(key)
    return shown + [asdict(_chart(OTHER, word)) | {"keys": own} for word, own in sorted(by_word.items())]


def _always(runs: Iterable[RunRecord], key: str, value: float) -> bool:
    return all(found == value for run in runs for _, found in run.series(key))


def columns_of(run: RunRecord) -> dict[str, Any]:
    """`steps`, and for each metric its value at each of them, None where it has none."""
    keys = {key: None for row in run.rows for key, value in row.items() if isinstance(value, int | float)}
    keys.pop("step", None)
    buckets = _buckets(run.rows)
    metrics = {key: [_mean([row.get(key) for row in bucket]) for bucket in buckets] for key in keys}
    return {"steps": [bucket[-1]["step"] for bucket in buckets], "metrics": metrics}


def _buckets(rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Mapping[str, Any]]]:
    size = -(-len(rows) // MOST_POINTS) or 1
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if isinstance(value, int | float)]
    return float(f"{sum(known) / len(known):.6g}") if known else None
