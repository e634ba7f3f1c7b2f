"""Everything a report says beside the samples, as plain data for the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from align import __version__
from align.report.alerts import alerts_of, plain_alerts
from align.report.curves import charts_of, columns_of
from align.report.differences import recipe_differences
from align.report.held_out import Change, held_out
from align.report.record import RunRecord
from align.report.verdict import verdict_of


def overview_of(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The runs side by side: what each was and came to, their curves, and in what their recipes differ."""
    return {
        "align": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "charts": charts_of(runs),
        "differences": recipe_differences(runs) if len(runs) > 1 else [],
        "runs": [_run(run) for run in runs],
    }


def _run(run: RunRecord) -> dict[str, Any]:
    found = held_out(run)
    changes = [Change(**change) for change in found["changes"]]
    return {
        "name": run.name,
        "status": run.status,
        "facts": _facts(run),
        "verdict": verdict_of(run, changes, alerts_of(run)),
        "alerts": plain_alerts(run),
        "recipe": run.recipe_text,
        **columns_of(run),
        **found,
    }


def _facts(run: RunRecord) -> dict[str, str]:
    """What the run was, line by line."""
    recipe, environment, last = run.recipe, run.environment, run.rows[-1] if run.rows else {}
    method = environment.get("method", {}).get("name") or recipe.get("algorithm", {}).get("loss")
    model = recipe.get("model") or {}
    sources = [one.get("label") or one.get("path") or one.get("task") for one in (recipe.get("data") or {}).get("train") or []]
    packages = environment.get("packages", {})
    facts = {
        "kind": f"{run.kind}, {method}" if method else run.kind,
        "model": model.get("path") or f"fresh weights ({(model.get('init') or {}).get('model_type', '?')})",
        "data": ", ".join(map(str, sources)),
        "rewards": ", ".join(str(one.get("name") or one.get("use")) for one in recipe.get("rewards") or []),
        "steps": f"{last.get('step', 0):,} of {recipe.get('train', {}).get('steps', 0):,}",
        "time": _duration(last.get("elapsed") or run.summary.get("seconds") or 0),
        "tokens": f"{last['num_tokens']:,}" if last.get("num_tokens") else "",
        "started": str(environment.get("started", "")).replace("T", " ").replace("+00:00", " UTC"),
        "machine": ", ".join(dict.fromkeys(environment.get("devices", []))) + f", {environment.get('cpus', '?')} cores",
        "versions": ", ".join(
            [
                f"align {environment.get('align', '?')}",
                *(f"{n} {packages[n]}" for n in ("torch", "transformers") if n in packages),
            ]
        ),
        "resumed": f"{len(environment['resumes'])} times" if environment.get("resumes") else "",
        "folder": str(run.path),
    }
    return {name: text for name, text in facts.items() if text}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
