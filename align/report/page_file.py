"""The page as one file: styles, scripts and all data in it. It asks the network for nothing, and a policy in it forbids that."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from align.report.overview import overview_of
from align.report.record import read_runs
from align.report.room import blocks_within
from align.report.samples import packed, sample_files
from align.storage import write_atomically

MOST_MEGABYTES = 32.0  # of samples in a file
_SCRIPTS = ("blocks", "elements", "axes", "chart", "overview", "held_out", "tokens", "filters", "rollouts", "main")  # in order


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A report that was written: `shown` of its `samples` are in it."""

    path: Path
    bytes: int
    shown: int
    samples: int


def write_report(paths: Sequence[Path], out: Path, *, most_megabytes: float = MOST_MEGABYTES) -> Written:
    """Write the report of one or several runs to `out`.

    Where the samples would take more than `most_megabytes`, of each step and evaluation the same share of the prompts is shown,
    at even distances and with all their samples; tokens of samples are left out first. The page says so.
    Raises RecipeError for what is no run, StorageError where `out` cannot be written.
    """
    runs = read_runs(paths)
    files_ = [file for number, run in enumerate(runs) for file in sample_files(number, run)]
    blocks = blocks_within(files_, most_megabytes * 1e6 * 3 / 4)  # base64 takes a third more
    shown, samples = sum(len(block.index["sample"]) for block in blocks), sum(block.index["total"] for block in blocks)
    overview = overview_of(runs) | {"shown": shown, "samples": samples}
    parts = {"overview": packed(overview), "index": packed([block.index for block in blocks])}
    for block in blocks:
        parts[f"{block.index['name']}-texts"] = block.texts
        if block.tokens is not None:
            parts[f"{block.index['name']}-tokens"] = block.tokens
    html = page(", ".join(run.name for run in runs), parts)
    write_atomically(out, html)
    return Written(path=out, bytes=len(html.encode()), shown=shown, samples=samples)


def page(title: str, parts: Mapping[str, bytes], *, live: bool = False) -> str:
    """The HTML with the `parts` in it; a live page fetches them from where it came from."""
    data = "\n".join(
        f'<script type="text/plain" id="part-{name}">{base64.b64encode(part).decode()}</script>' for name, part in parts.items()
    )
    filled = {
        "title": _escaped(title),
        "connect": "'self'" if live else "'none'",
        "live": "true" if live else "false",
        "style": _file("style.css"),
        "data": data,
        "script": "\n".join(_file(f"{name}.js") for name in _SCRIPTS),
    }
    html = _file("page.html")
    # Not str.format: styles and scripts are full of braces. Split first: what is filled in may hold anything.
    pieces = html.split("%%")
    return "".join(filled[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _file(name: str) -> str:
    return (files("align.report") / "page" / name).read_text(encoding="utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
