"""The command about what a run came to: report. `align.cli` adds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command(
        epilog="Examples: align report runs/quickstart/grpo ; align report runs/a runs/b --out compared.html ; "
        "align report runs/quickstart/grpo --serve"
    )(report)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories: one, or several to compare.")],
    out: Annotated[
        Path | None, typer.Option(help="The file; default: report.html in the run directory, comparison.html of several.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this machine instead, up to date while a run goes on.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0: any free one.")] = 0,
    max_mb: Annotated[float, typer.Option(min=1, help="Megabytes that the samples in the file may take.")] = 32.0,
) -> None:
    """Write the report of a run as one HTML file: verdict, alerts, curves, held-out problems, every rollout."""
    from align import api

    if serve:
        _serve(runs, port)
        return
    written = api.report(runs, out, max_mb=max_mb)
    some = "" if written.shown == written.samples else f"{written.shown:,} of "
    typer.echo(f"wrote {written.path}: {written.bytes / 1e6:.1f} MB, {some}{written.samples:,} samples")


def _serve(runs: list[Path], port: int) -> None:
    from align.report.live import open_server

    with open_server(runs, port) as server:
        typer.echo(f"serving {server.url} to this machine; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended")
