"""Numbers of a run: the metrics of a batch of rollouts, the clock of a step's phases, and the sinks that store them."""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from align.errors import RecipeError
from align.run.records import append_row, plain_numbers

if TYPE_CHECKING:
    from align.recipe.schema import Log
    from align.types import Group


class Timer:
    """Wall-clock seconds of the phases of a step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the body to `time/<name>`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def lap(self) -> dict[str, float]:
        """`time/<phase>` of each phase and `step_time` since the last lap, in seconds; then start anew."""
        now = time.perf_counter()
        lap = {f"time/{name}": seconds for name, seconds in self._seconds.items()} | {"step_time": now - self._start}
        self._seconds, self._start = {}, now
        return lap


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards and lengths of a step's groups, under trl's names.

    `reward` and `reward_std` (unbiased) are over all samples with a verdict, `frac_reward_zero_std` is the share of groups
    whose rewards are all equal and so teach nothing; where prompts have one sample each, all samples are one group.
    Lengths are in tokens; `clipped_ratio` is the share of completions cut at the length limit and `terminated` ones are the
    others. Where several sources are mixed, `reward/<source>` tells them apart.
    """
    samples = [sample for group in groups for sample in group.samples]
    if not samples:
        return {}
    rewards = [sample.reward for sample in samples if not math.isnan(sample.reward)]
    lengths = [len(sample.rollout.completion.token_ids) for sample in samples]
    ended = [n for n, sample in zip(lengths, samples, strict=True) if sample.rollout.completion.finish_reason != "length"]
    compared = [group.rewards_G for group in groups] if len(samples) > len(groups) else [tuple(rewards)]
    metrics = {
        "reward": statistics.fmean(rewards) if rewards else math.nan,
        "reward_std": statistics.stdev(rewards) if len(rewards) > 1 else 0.0,
        "frac_reward_zero_std": statistics.fmean(_is_constant(rewards_G) for rewards_G in compared),
        "frac_masked": 1 - len(rewards) / len(samples),
        "completions/mean_length": statistics.fmean(lengths),
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/mean_terminated_length": statistics.fmean(ended) if ended else 0.0,
        "completions/clipped_ratio": 1 - len(ended) / len(lengths),
    }
    by_source: dict[str, list[float]] = {}
    for sample in samples:
        if not math.isnan(sample.reward):
            by_source.setdefault(sample.rollout.prompt.source, []).append(sample.reward)
    if len(by_source) > 1:
        metrics |= {f"reward/{source}": statistics.fmean(values) for source, values in sorted(by_source.items())}
    return metrics


def _is_constant(rewards_G: Sequence[float]) -> bool:
    return len({reward for reward in rewards_G if not math.isnan(reward)}) <= 1


class MetricSink(Protocol):
    """A place metrics go to. Values are finite numbers, or None for what was not finite."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """metrics.jsonl: one line a step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        append_row(self.path, {"step": step} | plain_numbers(metrics))

    def close(self) -> None:
        """Each line is handed over as it is written."""


class TensorBoard:
    """Event files for `tensorboard --logdir`; a resumed run hides what came after its checkpoint."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step if first_step > 1 else None)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        for key, value in plain_numbers(metrics).items():
            if value is not None:
                self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A Weights & Biases run; the same one is continued on resume. Nothing is sent unless the recipe names a project."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        note = folder / "wandb" / "run_id"
        run_id = note.read_text() if note.exists() else uuid4().hex[:8]
        note.parent.mkdir(exist_ok=True)
        note.write_text(run_id)
        self._run = wandb.init(project=project, dir=str(folder), config=dict(config), id=run_id, resume="allow", name=folder.name)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._run.log({key: value for key, value in plain_numbers(metrics).items() if value is not None}, step=step)

    def close(self) -> None:
        self._run.finish()


def check_sinks(log: Log) -> None:
    """Raise RecipeError, before anything is started, where a sink cannot work."""
    if log.wandb is None:
        return
    if importlib.util.find_spec("wandb") is None:
        raise RecipeError("the package wandb is not installed", place="log.wandb", fix="pip install wandb, or remove log.wandb")
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    if not offline and not os.environ.get("WANDB_API_KEY") and host not in _netrc():
        raise RecipeError("Weights & Biases knows no key", place="log.wandb", fix="run `wandb login`, or set WANDB_MODE=offline")


def _netrc() -> str:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return path.read_text() if path.is_file() else ""


def open_sinks(folder: Path, log: Log, config: Mapping[str, Any], first_step: int) -> list[MetricSink]:
    """The sinks a recipe asks for; metrics.jsonl always. `first_step` is 1, or the step after the checkpoint resumed from."""
    sinks: list[MetricSink] = [JsonLines(folder / "metrics.jsonl")]
    if log.tensorboard:
        sinks.append(TensorBoard(folder / "tensorboard", first_step))
    if log.wandb is not None:
        sinks.append(WeightsAndBiases(log.wandb, folder, config))
    return sinks
