"""The curve of a metric over the steps: as a PNG, and small in the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from align.storage import write_atomically

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille dot of row 0..3, column 0..1


def smooth(values: Sequence[float], window: int | None = None) -> list[float]:
    """Centred moving average; the window (default: a tenth of the values) is cut off at both ends."""
    half = max(1, (window or len(values) // 10) // 2)
    averages = []
    for index in range(len(values)):
        part = values[max(0, index - half) : index + half + 1]
        averages.append(sum(part) / len(part))
    return averages


def write_curve(path: Path, steps: Sequence[int], values: Sequence[float], *, label: str, title: str) -> None:
    """Write a PNG of the values and their smoothed curve. Raises StorageError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no global state, no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, values, color="#4477aa", alpha=0.3, linewidth=1, label="each step")
    axes.plot(steps, smooth(values), color="#4477aa", linewidth=2, label="smoothed")
    axes.set(xlabel="step", ylabel=label, title=title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    write_atomically(path, png.getvalue())


def terminal_curve(values: Sequence[float], *, width: int = 60, height: int = 8) -> str:
    """The smoothed curve in braille characters, `height` lines with the largest and smallest value at the left."""
    curve = smooth(values)
    low, high = min(curve), max(curve)
    scale = (4 * height - 1) / (high - low) if high > low else 0.0
    rows = [round((high - value) * scale) for value in _stretch(curve, 2 * width)]
    cells = [[0] * width for _ in range(height)]
    for column, (before, row) in enumerate(zip([rows[0], *rows], rows, strict=False)):
        for y in range(min(before, row), max(before, row) + 1):
            cells[y // 4][column // 2] |= _DOTS[y % 4][column % 2]
    labels = [f"{high:.3g}", *[""] * (height - 2), f"{low:.3g}"]
    edge = max(len(label) for label in labels)
    return "\n".join(
        f"{label:>{edge}} ┤{''.join(chr(0x2800 + cell) for cell in line)}" for label, line in zip(labels, cells, strict=True)
    )


def _stretch(values: Sequence[float], count: int) -> list[float]:
    """`count` values along the straight lines between the given ones."""
    stretched = []
    for index in range(count):
        at = index * (len(values) - 1) / (count - 1)
        left = min(int(at), len(values) - 2) if len(values) > 1 else 0
        right = min(left + 1, len(values) - 1)
        stretched.append(values[left] + (at - left) * (values[right] - values[left]))
    return stretched
