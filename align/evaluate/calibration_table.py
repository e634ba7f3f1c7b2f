"""What calibrating a judge came to, as a table."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from align.rewards.judge.calibrate import Calibration


def calibration_table(calibration: Calibration) -> RenderableType:
    """Each figure with its 95 % interval and what it says."""
    table = Table("", "value", "95 % interval", "")
    for name, estimate in calibration.estimates.items():
        interval = "" if math.isnan(estimate.low) else f"{estimate.low:.3f} to {estimate.high:.3f}"
        shown = "undefined" if math.isnan(estimate.value) else f"{estimate.value:.3f}"
        table.add_row(name, shown, interval, Text(estimate.about))
    facts = [f"{calibration.rows} labelled rows"]
    if calibration.unjudged:
        facts.append(f"{calibration.unjudged} more got no value")
    if calibration.unlabelled:
        facts.append(f"{calibration.unlabelled} rows without a label, left out")
    return Group(table, Text("  ".join(facts)))
