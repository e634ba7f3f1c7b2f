"""What there is to report of a run: read from its directory, whether it is finished, stopped or still going on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import RecipeError, RunInUseError
from align.recipe.yaml12 import from_yaml
from align.run.lock import check_unlocked
from align.run.records import read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvaluation:
    """An evaluation of the run: `estimates` are pass@k, or other numbers of held-out data, with value, low and high."""

    name: str  # before, step-NNNNNN, after
    step: int
    estimates: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, float | None]
    samples: Path | None  # its .jsonl, where there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as its directory has it."""

    path: Path
    name: str
    status: str  # of the summary, or running, or unfinished: killed without a word
    recipe: Mapping[str, Any]  # resolved
    recipe_text: str
    environment: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl, one for each step
    notes: Sequence[Mapping[str, Any]]
    evaluations: Sequence[StoredEvaluation]  # by step

    @property
    def kind(self) -> str:
        return str(self.recipe.get("recipe", "?"))

    def series(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, where it has one."""
        return [(row["step"], float(row[key])) for row in self.rows if isinstance(row.get(key), int | float)]


def read_run(path: Path, name: str | None = None) -> RunRecord:
    """Read a run directory. Raises RecipeError where there is none."""
    if not (path / "resolved.yaml").exists():
        raise RecipeError("there is no run", place=str(path), fix="name a run directory: the output_dir of an `align train`")
    text = (path / "resolved.yaml").read_text(encoding="utf-8")
    summary = _json(path / "summary.json")
    return RunRecord(
        path=path,
        name=name or path.resolve().name,
        status=str(summary.get("status") or ("running" if is_running(path) else "unfinished")),
        recipe=from_yaml(text, str(path / "resolved.yaml")),
        recipe_text=text,
        environment=_json(path / "environment.json"),
        summary=summary,
        rows=_by_step(read_rows(path / "metrics.jsonl")),
        notes=read_rows(path / "notes.jsonl"),
        evaluations=_evaluations(path / "eval"),
    )


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """Several runs, under names that tell them apart: their last folder, or as much of their paths as that takes."""
    resolved = [path.resolve() for path in paths]
    depth = 1
    while len({path.parts[-depth:] for path in resolved}) < len(set(resolved)):
        depth += 1
    return [read_run(path, "/".join(whole.parts[-depth:])) for path, whole in zip(paths, resolved, strict=True)]


def is_running(path: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        check_unlocked(path)
    except RunInUseError:
        return True
    return False


def _by_step(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a step: an evaluation's numbers stand beside those of the step it belongs to."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        merged.setdefault(int(row["step"]), {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _evaluations(folder: Path) -> list[StoredEvaluation]:
    found = []
    for file in folder.glob("*.json"):
        stored = _json(file)
        if "step" not in stored:
            continue
        passes = {f"pass@{k}": one for k, one in stored.get("pass_at_k", {}).items()}
        samples = file.with_suffix(".jsonl")
        found.append(
            StoredEvaluation(
                name=file.stem,
                step=int(stored["step"]),
                estimates=passes | stored.get("estimates", {}),
                metrics=stored.get("metrics", {}),
                samples=samples if samples.exists() else None,
            )
        )
    return sorted(found, key=lambda one: (one.step, one.name != "before", one.name == "after"))


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
