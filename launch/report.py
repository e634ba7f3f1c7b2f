"""How a rank tells the process that started it what went wrong: a small file of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from align import errors
from align.errors import AlignError


def write_report(file: Path, error: AlignError) -> None:
    """Complete or not at all."""
    content = {"kind": type(error).__name__, "message": error.message, "place": error.place, "fix": error.fix}
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps(content), encoding="utf-8")
    aside.replace(file)


def read_report(file: Path) -> AlignError | None:
    """The error as the rank raised it; None where it left no report."""
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    kind: type[AlignError] = getattr(errors, content["kind"], AlignError)
    return kind(content["message"], place=content["place"], fix=content["fix"])
