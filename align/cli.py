"""The commands: each parses its arguments, calls align.api and shows what came back. Heavy imports wait inside the commands."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from align import __version__, cli_report, cli_samples
from align.cli_data import data_app
from align.errors import AlignError, RecipeError, RewardError

if TYPE_CHECKING:
    from align.rewards.audit import Audit
    from align.rewards.files import ScoreReport
    from align.run.console import RunConsole

app = typer.Typer(
    name="align",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models from recipe YAMLs: rollouts, verified rewards, policy optimisation, pass@k.",
    epilog="Start with [bold]align train quickstart/sft[/bold], then [bold]align train quickstart/grpo[/bold]: minutes in all.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, show and copy recipes; list the generated tasks; begin a reward.")
app.add_typer(recipes_app, name="recipes")
launch_app = typer.Typer(
    no_args_is_help=True, help="List, show and copy launch files, and files for Slurm, Kubernetes and Docker."
)
app.add_typer(launch_app, name="launch")
app.add_typer(data_app, name="data")


def _names(incomplete: str) -> list[str]:
    """Built-in recipes, for shell completion; where none fits, the shell completes files."""
    from align.recipe.load import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


RecipeArgument = Annotated[
    str, typer.Argument(help="A YAML file, or a built-in recipe such as quickstart/grpo.", autocompletion=_names)
]
BuiltIn = Annotated[str, typer.Argument(help="Such as quickstart/grpo.", autocompletion=_names)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Replaces a value of the recipe: train.steps=50, rewards.0.weight=2", show_default=False
    ),
]


def _places(incomplete: str) -> list[str]:
    """Built-in launch files, for shell completion."""
    from align.recipe.launch_file import launch_file_names

    return [name for name in launch_file_names() if name.startswith(incomplete)]


On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="FILE", help="Where it runs: a launch file, or a built-in one such as node_8.", autocompletion=_places
    ),
]
LaunchFile = Annotated[str, typer.Argument(help="Such as node_8 or slurm/align.sbatch.")]


def main() -> None:
    """Run the command line; errors end as one block on stderr and the exit code of their kind."""
    try:
        app()
    except AlignError as error:
        if os.environ.get("ALIGN_DEBUG"):
            raise
        sys.exit(_refuse(error))
    except Exception as error:
        if os.environ.get("ALIGN_DEBUG"):
            raise
        sys.exit(_refuse(as_defect(error)))


def _refuse(error: AlignError) -> int:
    lines = [f"error: {error.message}"]
    lines += [f"  at:  {error.place}"] if error.place else []
    lines += [f"  fix: {error.fix}"] if error.fix else []
    typer.echo("\n".join(lines), err=True)
    return error.exit_code


def as_defect(error: Exception) -> AlignError:
    """An exception nobody foresaw: one line for the user, the traceback for the report."""
    with tempfile.NamedTemporaryFile("w", prefix="align-error-", suffix=".txt", delete=False, encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    reason = str(error).strip() or "no message"
    return AlignError(
        f"unexpected {type(error).__name__}: {reason}",
        fix=f"this is a defect of align or of a plug-in; the traceback is in {log.name} (ALIGN_DEBUG=1 shows it here)",
    )


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"align {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options of `align` itself."""


@app.command(epilog="Example: align train recipes/quickstart/grpo.yaml train.steps=20 output_dir=runs/trial")
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    on: On = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last good checkpoint of the run directory.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the run directory.")] = False,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Resume although the recipe has changed.")] = False,
) -> None:
    """Train as a recipe says, and write the run to its output_dir."""
    from align import api

    api.train(recipe, overrides or (), on=on, resume=resume, overwrite=overwrite, allow_changes=allow_changes)


@app.command(epilog="Examples: align check quickstart/grpo train.prompts_per_step=64 ; align check sizes/grpo_7b --on node_8")
def check(recipe: RecipeArgument, overrides: Overrides = None, on: On = None) -> None:
    """Validate a recipe; show values and their origins, arithmetic, placement, memory, and probes of data and rewards."""
    from align import api
    from align.recipe.render import render_plan

    _show(render_plan(api.check(recipe, overrides or (), on=on)))


@app.command(
    epilog="Examples: align evaluate quickstart/grpo --model runs/quickstart/grpo ; "
    "align evaluate evaluate/gsm8k --model Qwen/Qwen2.5-0.5B-Instruct --data gsm8k_test.jsonl --limit 100 --out eval/gsm8k ; "
    "align evaluate evaluate/math500 --model BASE --model TRAINED --n 256 --k 1,2,4,...,256 --out eval/curves"
)
def evaluate(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A benchmark such as evaluate/gsm8k, or a recipe of any kind.", autocompletion=_names),
    ] = None,
    overrides: Overrides = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Hub id, model folder, checkpoint, or run directory. Several are compared with the first."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="File, folder or hub id of the problems, or task:NAME@SEED for generated ones (seed 1 if left out). Repeatable."
        ),
    ] = None,
    reward: Annotated[
        list[str] | None, typer.Option(help="Reward that decides what is correct, such as math. Repeatable.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Samples per problem.")] = None,
    k: Annotated[list[str] | None, typer.Option("--k", help="The k of pass@k: 8, or 1,2,4,...,256; default 1 and n.")] = None,
    column: Annotated[list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Column of the file: answer=solution.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many problems at most.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = None,
    max_completion_length: Annotated[int | None, typer.Option(min=1, help="Tokens per sample at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw.")] = None,
    engine: Annotated[str | None, typer.Option(help="What writes the completions: transformers or vllm.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for samples and result.json; an interrupted evaluation goes on there.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an evaluation of something else in the folder.")
    ] = False,
) -> None:
    """Estimate pass@k of one model or several, with 95 % intervals; of a reward model its accuracy on pairs."""
    from align import api
    from align.evaluate.names import read_ks
    from align.run.console import RunConsole

    models, columns = list(model or ()), _pairs(column, "--column")
    with RunConsole() as console:
        if api.compares_pairs(recipe, overrides or ()):
            assert recipe is not None
            _evaluate_pairs(recipe, overrides or [], models, data or [], columns, limit, out, console)
            return
        how: dict[str, Any] = {
            "data": data or (),
            "rewards": reward or (),
            "columns": columns,
            "limit": limit,
            "num_generations": n,
            "k": read_ks(k or ()),
            "temperature": temperature,
            "max_completion_length": max_completion_length,
            "seed": seed,
            "engine": engine,
            "overwrite": overwrite,
            "console": console,
        }
        from align.evaluate import table

        if len(models) > 1:
            console.show(table.curves_table(api.evaluate_models(recipe, overrides or (), models=models, out=out, **how)))
        else:
            result = api.evaluate(recipe, overrides or (), model=models[0] if models else None, out=out, **how)
            console.show(table.result_table(result))
        if out is not None:
            console.show(f"written to {out}")


def _evaluate_pairs(
    recipe: str,
    overrides: list[str],
    models: list[str],
    data: list[str],
    columns: dict[str, str],
    limit: int | None,
    out: Path | None,
    console: RunConsole,
) -> None:
    """Accuracy of reward models, one after the other."""
    from align import api
    from align.evaluate.names import model_names
    from align.evaluate.pair_accuracy import pair_table

    if len(data) > 1:
        raise RecipeError("pairs come from one file", place="--data", fix="name several sources in a recipe")
    for name, model in (model_names(models) if models else {"": None}).items():
        folder = out / name if out is not None and len(models) > 1 else out
        result = api.evaluate_pairs(
            recipe,
            overrides,
            model=model,
            data=data[0] if data else None,
            columns=columns,
            limit=limit,
            out=folder,
            console=console,
        )
        console.show(name)
        console.show(pair_table(result))


@app.command(
    epilog="Examples: align score --reward math --data solutions.jsonl --out scored.jsonl --column completion=response ; "
    "align score --reward math --data problems.jsonl --audit"
)
def score(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe whose rewards judge, combined as it says.", autocompletion=_names)
    ] = None,
    overrides: Overrides = None,
    reward: Annotated[str | None, typer.Option(help="Reward, or several with commas between, in place of a recipe's.")] = None,
    data: Annotated[
        Path,
        typer.Option(help="Completions: .jsonl (.gz), .parquet or .csv; or a folder of `align evaluate`, to grade it again."),
    ] = ...,  # type: ignore[assignment]
    out: Annotated[
        Path | None,
        typer.Option(help="Where the rows go, with value, status, reward and detail added (JSONL); for an evaluation a folder."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Parameter of the reward. Repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Column of the file: completion=response; a.b is b inside column a."),
    ] = None,
    explain: Annotated[int, typer.Option(min=0, help="Show how the value of the first so many rows came about.")] = 0,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Try the rewards on references, constants, hostile and long answers; no completions needed."
        ),
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="Audit: the column whose text must pass; default: answer and the like.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Audit: rows that are tried.")] = 200,
) -> None:
    """Score a file of completions with rewards, or find out whether rewards can be trusted."""
    from align import api
    from align.run.console import RunConsole

    if (recipe is None) == (reward is None):
        raise RecipeError("name the rewards either by a recipe or by --reward", fix="align score --reward math --data ...")
    evaluated = not audit and (data / "evaluation.json").is_file()
    if not audit and not evaluated and out is None:
        raise RecipeError("--out is missing", fix="say where the scored rows go: --out scored.jsonl; only --audit writes none")
    names = [name.strip() for name in (reward or "").split(",")]
    how: dict[str, Any] = {
        "recipe": recipe,
        "overrides": overrides or (),
        "params": _values(set_),
        "columns": _pairs(column, "--column"),
    }
    with RunConsole() as console:
        if audit:
            _audit(api.audit(names, data, reference=reference, limit=limit, console=console, **how), console)
            return
        if evaluated:
            from align.evaluate.table import regrading_table

            if column or explain:
                fix = "leave them out: an evaluation has its columns, and --explain is for files"
                raise RecipeError("--column and --explain do not go with an evaluation", place=str(data), fix=fix)
            how.pop("columns")
            console.show(regrading_table(api.regrade(data, names, out, console=console, **how)))
            return
        assert out is not None
        report = api.score(names, data, out, explain=explain, console=console, **how)
        _show_scores(report, console, data)


def _show_scores(report: ScoreReport, console: RunConsole, data: Path) -> None:
    from align.evaluate.table import score_table

    console.show(score_table(report))
    if report.unscored:
        raise RewardError(
            f"{report.unscored} of {report.rows} rows got no verdict",
            place=str(data),
            fix="their status is error and their detail says why",
        )


def _audit(audits: list[Audit], console: RunConsole) -> None:
    from align.evaluate.table import audit_table

    for one in audits:
        console.show(audit_table(one))
    if wrong := [one.reward for one in audits if not one.sound]:
        raise RewardError(
            f"{', '.join(wrong)}: not to be trusted on this data",
            fix="look at the probes that are not sound: wrong references, a wrong column (--column answer=...), or a weak reward",
        )


@app.command(epilog="Example: align calibrate --data scored.jsonl --label human")
def calibrate(
    data: Annotated[Path, typer.Option(help="What `align score` has written, from rows with a label.")],
    label: Annotated[str, typer.Option(help="The column that holds the label: a number, or true and false.")],
    value: Annotated[str, typer.Option(help="The column that holds the value.")] = "value",
    threshold: Annotated[float, typer.Option(help="Good from this value up, where labels are of two kinds.")] = 0.5,
) -> None:
    """Compare a judge's values with labels: agreement, kappa, order, bias for length and place, with 95 % intervals."""
    from align import api
    from align.evaluate.calibration_table import calibration_table

    _show(calibration_table(api.calibrate(data, label, value=value, threshold=threshold)))


cli_samples.add_commands(app)
cli_report.add_commands(app)


@recipes_app.command("list")
def list_recipes() -> None:
    """List the built-in recipes."""
    from align.recipe.load import find_recipe, recipe_names

    for name in recipe_names():
        typer.echo(f"{name:<32}{_first_comment(find_recipe(name))}")


@recipes_app.command("show", epilog="Example: align recipes show quickstart/grpo")
def show_recipe(name: BuiltIn) -> None:
    """Print a built-in recipe."""
    from align.recipe.load import find_recipe

    typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy", epilog="Example: align recipes copy quickstart/grpo mine.yaml")
def copy_recipe(
    name: BuiltIn,
    target: Annotated[Path, typer.Argument(help="File to write; included files go beside it.")],
) -> None:
    """Copy a built-in recipe to a file of your own."""
    from align.recipe.copy import copy_recipe as copy

    for path in copy(name, target):
        typer.echo(f"wrote {path}")


@recipes_app.command("tasks")
def list_tasks() -> None:
    """List the generated tasks that `data: [{task: NAME}]` can name."""
    from align.data.tasks import TASKS

    for name, task in sorted(TASKS.items()):
        typer.echo(f"{name:<20}{task.describe}")


@recipes_app.command("new-reward", epilog="Example: align recipes new-reward short_answers mine")
def new_reward(
    name: Annotated[str, typer.Argument(help="Of the function and its file, such as short_answers.")],
    folder: Annotated[Path, typer.Argument(help="Where the two files go.")] = Path(),
) -> None:
    """Write a reward of your own to begin with, and its test."""
    from align.recipe.new_reward import new_reward as write

    reward, test = write(name, folder)
    typer.echo(f"wrote {reward} and {test}\n  try it:      pytest {test}\n  in a recipe: rewards: [{{use: {reward}:{name}}}]")


@launch_app.command("list")
def list_launch_files() -> None:
    """List the built-in launch files for `--on`, and the files for clusters."""
    from align.recipe.launch_file import cluster_files, find_any_file, launch_file_names

    for name in [*launch_file_names(), *cluster_files()]:
        typer.echo(f"{name:<32}{_first_comment(find_any_file(name))}")


@launch_app.command("show", epilog="Example: align launch show node_8")
def show_launch_file(name: LaunchFile) -> None:
    """Print a built-in file."""
    from align.recipe.launch_file import find_any_file

    typer.echo(find_any_file(name).read_text(encoding="utf-8"), nl=False)


@launch_app.command("copy", epilog="Example: align launch copy slurm/align.sbatch mine.sbatch")
def copy_launch_file(name: LaunchFile, target: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Copy a built-in file to one of your own."""
    from align.recipe.copy import copy_file
    from align.recipe.launch_file import find_any_file

    typer.echo(f"wrote {copy_file(find_any_file(name), target)}")


@app.command(epilog="Example: align export runs/quickstart/grpo exported --dtype bfloat16")
def export(
    source: Annotated[Path, typer.Argument(help="A checkpoint, a model folder, or a run directory (its last checkpoint).")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: as saved.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Write a trained model as a plain Hugging Face folder, adapters merged."""
    from align import api

    typer.echo(f"wrote {api.export(source, out, dtype=dtype, overwrite=overwrite)}")


@app.command()
def doctor(
    output: Annotated[Path, typer.Option(help="Where runs will be written.")] = Path("runs"),
) -> None:
    """Check this machine: versions, devices, memory, disk, links, optional extras, worker processes."""
    from align.doctor import examine, findings_table

    findings = examine(output)
    _show(findings_table(findings))
    if any(finding.status == "bad" for finding in findings):
        raise typer.Exit(1)


def _show(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _pairs(items: list[str] | None, flag: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in items or ()]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise RecipeError(f"{flag} {name}{equals}{value} is not OURS=THEIRS", fix=f"write for example {flag} answer=solution")
    return {name: value for name, _, value in pairs}


def _values(items: list[str] | None) -> dict[str, Any]:
    """`key=value` with the value read as YAML, as in a recipe."""
    from align.recipe.yaml12 import parse, plain_value

    return {name: plain_value(parse(value, lambda _: "--set"), {}) for name, value in _pairs(items, "--set").items()}


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((line for line in lines if not line.startswith("#!")), "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


if __name__ == "__main__":
    main()
