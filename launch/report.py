"""How a rank tells the process that started it what went wrong: JSON, in a small file or on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align import errors
from align.errors import AlignError


def as_report(error: AlignError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "message": error.message, "place": error.place, "fix": error.fix}


def as_error(report: Mapping[str, Any]) -> AlignError:
    """The error as it was raised."""
    kind: type[AlignError] = getattr(errors, report["kind"], AlignError)
    return kind(report["message"], place=report["place"], fix=report["fix"])


def write_report(file: Path, error: AlignError) -> None:
    """Complete or not at all."""
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps(as_report(error)), encoding="utf-8")
    aside.replace(file)


def read_report(file: Path) -> AlignError | None:
    """The error as the rank raised it; None where it left no report."""
    return as_error(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
