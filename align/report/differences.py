"""In what the recipes of several runs differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from align.report.record import RunRecord


def recipe_differences(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Each dotted key whose values are not the same in all runs, with each run's value as text, None where it has no such key.

    Where a run lives (output_dir) does not count.
    """
    flat = [_flat(run.recipe) for run in runs]
    keys = {key: None for one in flat for key in one if key != "output_dir"}
    rows = [{"key": key, "values": [one.get(key) for one in flat]} for key in keys]
    return [row for row in rows if len(set(row["values"])) > 1]


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if not items:
        return {prefix: json.dumps(tree, ensure_ascii=False, default=str)}
    return {key: text for name, value in items for key, text in _flat(value, f"{prefix}.{name}" if prefix else str(name)).items()}
