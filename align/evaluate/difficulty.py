"""How hard each training problem is for a model: the share of its samples that pass, written beside the rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.sources import raw_rows
from align.data.written import check_out, rows_written
from align.errors import RecipeError
from align.evaluate.generate import is_correct
from align.evaluate.program import open_evaluation
from align.evaluate.statistics import wilson
from align.recipe.evaluation import evaluation_sampling
from align.rollout.groups import sample_groups, scored_groups
from align.run.records import append_row, read_rows
from align.storage import storage_errors, write_atomically
from align.types import Group, Sampling

if TYPE_CHECKING:
    from align.data.prompts import PromptSet
    from align.evaluate.program import EvaluationSite
    from align.recipe.schema import EvaluateRecipe, Source
    from align.run.console import RunConsole

COLUMN = "pass_rate"
_SAMPLES_AT_A_TIME = 1024  # after which what is known is on the disk
_BINS = 5  # of the histogram, between none and all


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of a problem's samples those that pass, those that were judged, and those without a verdict, which count as neither."""

    passed: int
    judged: int
    errors: int

    @property
    def value(self) -> float | None:
        return self.passed / self.judged if self.judged else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDifficulty:
    """The problems of one source. `histogram` counts them by rate: none, five steps between, all."""

    label: str
    out: Path
    rows: int
    rated: int
    too_long: int
    unjudged: int  # problems none of whose samples got a verdict
    errors: int  # samples without a verdict
    mean: float | None
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """What sampling the training problems came to."""

    sources: tuple[SourceDifficulty, ...]
    num_generations: int
    resumed: int  # problems that an earlier start had done

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "num_generations": self.num_generations,
            "resumed": self.resumed,
            "sources": [
                {name: getattr(source, name) for name in source.__slots__} | {"out": str(source.out)} for source in self.sources
            ],
        }


def measure_difficulty(recipe: EvaluateRecipe, out: Path, console: RunConsole, *, overwrite: bool = False) -> Difficulty:
    """Sample each problem of `data.eval` `evaluate.num_generations` times, and write the rows with the share that passes.

    Each row gets `pass_rate` with `pass_rate_low` and `pass_rate_high` (Wilson's 95 % interval) and `pass_rate_n`, the samples
    judged; null where the prompt is too long, the row cannot be used, or no sample got a verdict. `out` is a file of JSON
    lines, or, where there are several sources, a folder that gets one for each. What is done is kept in a file beside it
    (`.progress.jsonl`), from which a later call goes on; it goes when all is done.

    Raises RecipeError where `out` does not fit or the file beside it belongs to other data, another model or other settings,
    unless `overwrite` starts anew; and what an evaluation raises.
    """
    outs = _outs(recipe.data.eval, out)
    with open_evaluation(recipe, console) as site:
        progress = _Progress.open(out, _request(recipe, site.prompts), overwrite=overwrite)
        resumed = len(progress.rates)
        _sample(recipe, site, progress, console)
        labels = list(site.prompts.dropped_long)
        sources = tuple(
            _write(source, label, path, {prompt.id for prompt in prompts}, site.prompts.dropped_long[label], progress.rates)
            for source, label, path, prompts in zip(recipe.data.eval, labels, outs, site.prompts.by_source, strict=True)
        )
    progress.file.unlink(missing_ok=True)
    return Difficulty(sources=sources, num_generations=recipe.evaluate.num_generations, resumed=resumed)


def _outs(sources: Sequence[Source], out: Path) -> list[Path]:
    """A file for each source."""
    read = [source.path for source in sources if source.path is not None]
    if len(sources) == 1:
        check_out(out, *read)
        return [out]
    if out.suffix or out.is_file():
        raise RecipeError(
            f"there are {len(sources)} sources, and {out} is one file", fix="name a folder: each source gets a file of its own"
        )
    names = [(source.label or source.task or Path(str(source.path)).name.split(".")[0]).replace("/", "-") for source in sources]
    return [out / f"{name}{'' if names.index(name) == number else f'-{number + 1}'}.jsonl" for number, name in enumerate(names)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """The rates that are known, each on the disk as soon as it is."""

    file: Path
    rates: dict[str, Rate]

    @classmethod
    def open(cls, out: Path, request: str, *, overwrite: bool) -> _Progress:
        file = (
            out.with_name(f"{out.name.partition('.jsonl')[0]}.progress.jsonl")
            if out.suffix in (".jsonl", ".gz")
            else out / "progress.jsonl"
        )
        with storage_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        head, *rows = (read_rows(file) if not overwrite else []) or [{"request": request}]
        if head != {"request": request}:
            raise RecipeError(
                "an earlier start with another model, other data or other settings has left its progress here",
                place=str(file),
                fix="go on as it began, start anew with --overwrite, or write to another --out",
            )
        write_atomically(file, "".join(json.dumps(row) + "\n" for row in [head, *rows]))  # without a line that was cut off
        known = {row["id"]: Rate(passed=row["passed"], judged=row["judged"], errors=row["errors"]) for row in rows}
        return cls(file=file, rates=known)

    def add(self, group: Group, threshold: float, correct_by: Sequence[str]) -> None:
        correct_G = [is_correct(sample, threshold, correct_by) for sample in group.samples]
        passed, errors = correct_G.count(True), correct_G.count(None)
        rate = Rate(passed=passed, judged=len(correct_G) - errors, errors=errors)
        self.rates[group.prompt.id] = rate
        append_row(self.file, {"id": group.prompt.id, "passed": rate.passed, "judged": rate.judged, "errors": rate.errors})


def _request(recipe: EvaluateRecipe, prompts: PromptSet) -> str:
    """A hash of everything that the rates depend on."""
    tree = recipe.model_dump(exclude={"output_dir", "log", "launch"})
    folder = Path(str(recipe.model.path))
    weights = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.glob("*.safetensors"))
    problems = [(prompt.id, prompt.token_ids, str(prompt.answer)) for prompt in prompts.prompts]
    return hashlib.sha256(repr((tree, weights, problems)).encode("utf-8", "replace")).hexdigest()


def _sample(recipe: EvaluateRecipe, site: EvaluationSite, progress: _Progress, console: RunConsole) -> None:
    asked, ends = recipe.evaluate, evaluation_sampling(recipe, recipe.evaluate)
    sampling = Sampling(
        n=asked.num_generations,
        max_tokens=ends.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=ends.stop,
        stop_token_ids=ends.stop_token_ids,
        seed=recipe.seed,
    )
    waiting = [prompt for prompt in site.prompts.prompts if prompt.id not in progress.rates]
    if progress.rates:
        console.show(f"going on: {len(progress.rates)} problems are done, {len(waiting)} are left")
    size = max(1, _SAMPLES_AT_A_TIME // sampling.n)
    with console.activity("sampling", total=len(waiting) * sampling.n) as advance:
        for start in range(0, len(waiting), size):
            chunk = waiting[start : start + size]
            pending = sample_groups(site.engine, site.scorer, chunk, sampling, lambda *_: advance(1))
            for group in scored_groups(pending):
                progress.add(group, asked.threshold, asked.correct_by)


def _write(source: Source, label: str, out: Path, asked: set[str], too_long: int, rates: Mapping[str, Rate]) -> SourceDifficulty:
    known = {id_: rates[id_] for id_ in asked}
    count = 0
    with rows_written(out) as write:
        for row, rate in _rated_rows(source, label, known):
            count += 1
            write({**row, **_columns(rate)})
    values = [value for rate in known.values() if (value := rate.value) is not None]
    return SourceDifficulty(
        label=label,
        out=out,
        rows=count,
        rated=len(values),
        too_long=too_long,
        unjudged=sum(rate.judged == 0 for rate in known.values()),
        errors=sum(rate.errors for rate in known.values()),
        mean=sum(values) / len(values) if values else None,
        histogram=_histogram(values),
    )


def _rated_rows(source: Source, label: str, known: Mapping[str, Rate]) -> Iterator[tuple[Mapping[str, Any], Rate | None]]:
    """The rows as they stand in the data, with their rates; rows are numbered as `read_rows` numbers them."""
    for number, row in enumerate(itertools.islice(raw_rows(source), source.limit)):
        if row.columns is not None:
            yield row.columns, known.get(f"{label}:{number}")


def _columns(rate: Rate | None) -> dict[str, Any]:
    names = (COLUMN, f"{COLUMN}_low", f"{COLUMN}_high")
    if rate is None or not rate.judged:
        return {**dict.fromkeys(names), f"{COLUMN}_n": 0}
    low, high = wilson(rate.passed / rate.judged, rate.judged)
    values = (rate.value, round(low, 4), round(high, 4))
    return {**dict(zip(names, values, strict=True)), f"{COLUMN}_n": rate.judged}


def _histogram(values: Sequence[float]) -> tuple[int, ...]:
    counts = [0] * (_BINS + 2)
    for value in values:
        counts[0 if value == 0 else _BINS + 1 if value == 1 else 1 + min(_BINS - 1, int(value * _BINS))] += 1
    return tuple(counts)
