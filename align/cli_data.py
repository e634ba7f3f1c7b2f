"""`align data ...`: what to know of data before it is trained on. Each command parses, calls, and shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from align.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from align.run.console import RunConsole

data_app = typer.Typer(no_args_is_help=True, help="Look at data, clean it, find out how hard it is. Docs: docs/data.md.")

_NAMED = "A file, a folder, a hub id (ID[:CONFIGURATION][@SPLIT]) or task:NAME@SEED."
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help=_NAMED)]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")]
Columns = Annotated[list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Column of the data: prompt=text. Repeatable.")]
BadRows = Annotated[int, typer.Option(min=0, help="Rows that cannot be read and are passed over.")]
Tokenizer = Annotated[
    str | None, typer.Option("--model", help="Model folder or hub id whose tokenizer and chat template are used.")
]


class Report(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


@data_app.command(
    epilog="Example: align data decontaminate --train train.jsonl --against test.jsonl --against math500.jsonl --out clean.jsonl"
)
def decontaminate(
    train: Annotated[list[str], typer.Option(help=f"Training data. {_NAMED} Repeatable.")],
    against: Annotated[list[str], typer.Option(help="Benchmarks, named the same way (split test). Repeatable.")],
    out: Annotated[
        Path | None, typer.Option(help="The cleaned rows (.jsonl, .jsonl.gz); what is removed goes beside them.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Words of a run.")] = 13,
    share: Annotated[float, typer.Option(help="Share of an item's runs that a row must have.")] = 0.5,
    near: Annotated[float, typer.Option(help="The same for runs of three words, for copies with changed words; 2 is off.")] = 0.6,
    column: Annotated[list[str] | None, typer.Option(help="Look at this column only, of all texts. Repeatable.")] = None,
    against_column: Annotated[
        list[str] | None,
        typer.Option(help="The benchmark's text, where it is not prompt, question, problem or input. Repeatable."),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Rows that are shown beside their item, of each benchmark.")] = 3,
    max_bad_rows: BadRows = 0,
    as_json: AsJson = False,
) -> None:
    """Take out of training data what stands in benchmarks."""
    from align.data.contamination import Rule
    from align.data.decontaminate import decontaminate as run
    from align.data.tables import decontamination_table

    with _console(as_json) as console, console.activity("comparing") as advance:
        found = run(
            train,
            against,
            out,
            rule=Rule(n=n, share=share, near=near),
            columns=column or (),
            against_columns=against_column or (),
            max_bad_rows=max_bad_rows,
            examples=examples,
            on_progress=advance,
        )
    _show(found, decontamination_table, as_json)


@data_app.command(epilog="Example: align data duplicates train.jsonl more.jsonl --out unique.jsonl")
def duplicates(
    files: Files,
    out: Annotated[Path | None, typer.Option(help="The rows without repetitions and contradictions (.jsonl, .jsonl.gz).")] = None,
    threshold: Annotated[
        float, typer.Option(help="Jaccard similarity from which rows are near copies; 1: exact ones only.")
    ] = 0.8,
    any_numbers: Annotated[
        bool, typer.Option("--any-numbers", help="Rows with other numbers in them may be near copies too.")
    ] = False,
    column: Columns = None,
    examples: Annotated[int, typer.Option(min=0, help="Groups that are shown.")] = 5,
    max_bad_rows: BadRows = 0,
    as_json: AsJson = False,
) -> None:
    """Find problems that stand there more than once, and those whose answers contradict."""
    from align.data.duplicates import find_duplicates
    from align.data.tables import duplicates_table

    with _console(as_json) as console, console.activity("comparing") as advance:
        found = find_duplicates(
            files,
            out,
            threshold=threshold,
            same_numbers=not any_numbers,
            columns=_pairs(column),
            max_bad_rows=max_bad_rows,
            on_progress=advance,
        )
    _show(found, lambda found: duplicates_table(found, examples=examples), as_json)


@data_app.command(
    epilog="Examples: align data difficulty gsm8k/grpo --out rated.jsonl ; "
    "align data difficulty --model Qwen/Qwen2.5-0.5B-Instruct --data train.jsonl --reward math --n 8 --out rated.jsonl"
)
def difficulty(
    recipe: Annotated[str | None, typer.Argument(help="A recipe, whose training data, model and rewards are taken.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="The rows with pass_rate (.jsonl, .jsonl.gz); of several sources a folder.")] = ...,  # type: ignore[assignment]
    model: Annotated[str | None, typer.Option(help="Hub id, model folder, checkpoint, or run directory.")] = None,
    data: Annotated[list[str] | None, typer.Option(help=f"{_NAMED} Repeatable.")] = None,
    reward: Annotated[list[str] | None, typer.Option(help="Reward that decides what passes. Repeatable.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples per problem.")] = 8,
    column: Columns = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first rows of each source only.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Default: as the recipe's rollouts, or 1.")] = None,
    max_completion_length: Annotated[int | None, typer.Option(min=1, help="Tokens per sample at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where an earlier start left its progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sample each training problem several times and write the share that passes beside it; goes on where it was stopped."""
    from align.evaluate.difficulty_request import difficulty_request

    request = difficulty_request(
        recipe,
        overrides or (),
        model=model,
        data=data or (),
        rewards=reward or (),
        columns=_pairs(column),
        limit=limit,
        num_generations=n,
        temperature=temperature,
        max_completion_length=max_completion_length,
        seed=seed,
    )
    from align.data.tables import difficulty_table
    from align.evaluate.difficulty import measure_difficulty
    from align.recipe.located import located_errors

    with _console(as_json) as console, located_errors(request.recipe, request.place):
        found = measure_difficulty(request.recipe, out, console, overwrite=overwrite)
    _show(found, difficulty_table, as_json)


@data_app.command(epilog="Example: align data show problems.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --rows 2")
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help=_NAMED)],
    rows: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    model: Tokenizer = None,
    column: Columns = None,
    template: Annotated[
        str | None, typer.Option(help="Text around the prompt, with {prompt}: as prompt_template of a recipe.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the first rows as the model will see them, and which columns were recognized."""
    from align.data.survey import show_rows
    from align.data.tables import shown_table

    shown = show_rows(
        file,
        rows=rows,
        tokenizer=_tokenizer(model),
        columns=_pairs(column),
        prompt_template=template,
        system_prompt=system,
    )
    _show(shown, shown_table, as_json)


@data_app.command(epilog="Example: align data stats problems.jsonl --model Qwen/Qwen2.5-0.5B-Instruct")
def stats(
    file: Annotated[str, typer.Argument(metavar="FILE", help=_NAMED)],
    model: Tokenizer = None,
    column: Columns = None,
    max_bad_rows: BadRows = 0,
    as_json: AsJson = False,
) -> None:
    """Count rows, lengths, missing answers, repetitions, scripts, and what is odd about the text."""
    from align.data.survey import survey
    from align.data.tables import stats_table

    with _console(as_json) as console, console.activity("reading") as advance:
        tokenizer = _tokenizer(model)
        found = survey(file, tokenizer=tokenizer, columns=_pairs(column), max_bad_rows=max_bad_rows, on_progress=advance)
    _show(found, stats_table, as_json)


@data_app.command(epilog="Example: align data split all.jsonl --train train.jsonl --eval eval.jsonl --share 0.1")
def split(
    files: Files,
    train: Annotated[Path, typer.Option(help="Where most rows go.")],
    held_out: Annotated[Path, typer.Option("--eval", help="Where the held-out rows go.")],
    share: Annotated[float, typer.Option(help="Of the rows that are held out, about.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Decides which.")] = 0,
    by: Annotated[str | None, typer.Option(help="Column whose equal values stay together; default: near copies do.")] = None,
    column: Columns = None,
    max_bad_rows: BadRows = 0,
    as_json: AsJson = False,
) -> None:
    """Divide data into training and evaluation, copies of a problem always on one side."""
    from rich.text import Text

    from align.data.split import split_rows

    found = split_rows(files, train, held_out, share=share, seed=seed, by=by, columns=_pairs(column), max_bad_rows=max_bad_rows)
    words = f"{found.train_rows:,} rows to {train}, {found.eval_rows:,} to {held_out}, from {found.groups:,} groups"
    _show(found, lambda _: Text(words), as_json)


@contextmanager
def _console(as_json: bool) -> Iterator[RunConsole]:
    """A display of what goes on, silent where the output is for a program."""
    from align.run.console import RunConsole, silent_console

    with silent_console() if as_json else RunConsole() as console:
        yield console


def _show(found: Report, table: Callable[[Any], RenderableType], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2, default=str))
        return
    from rich.console import Console

    Console().print(table(found))


def _tokenizer(model: str | None) -> Any:
    if model is None:
        return None
    from align.learner.model import load_tokenizer
    from align.learner.trained import model_folder
    from align.recipe.schema import Model

    return load_tokenizer(Model(path=model_folder(model)))


def _pairs(items: list[str] | None) -> dict[str, str]:
    pairs = [item.partition("=") for item in items or ()]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise RecipeError(
                f"--column {name}{equals}{value} is not OURS=THEIRS", fix="write for example --column answer=solution"
            )
    return {name: value for name, _, value in pairs}
