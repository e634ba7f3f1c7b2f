"""The commands as Python functions. Everything heavy is imported when it is needed: `import align` stays light."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import RecipeError

if TYPE_CHECKING:
    from align.doctor import Finding
    from align.evaluate.curves import Curves
    from align.evaluate.generate import EvaluationResult
    from align.evaluate.pair_accuracy import PairResult
    from align.evaluate.regrade import Regrading
    from align.evaluate.request import Request
    from align.recipe.plan import Plan
    from align.recipe.schema import RewardSpec
    from align.report.page_file import Written
    from align.rewards.audit import Audit
    from align.rewards.files import ScoreReport
    from align.rewards.judge.calibrate import Calibration
    from align.run.console import RunConsole

# The loop of each kind of recipe: a module with `train`.
LOOPS = {
    "rl": "align.loops.rl",
    "sft": "align.loops.supervised",
    "preference": "align.loops.preference",
    "reward_model": "align.loops.reward_model",
}


def train(
    recipe: str | Path,
    overrides: str | Sequence[str] = (),
    *,
    on: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
) -> dict[str, Any]:
    """Train as the recipe says and return the run's summary (what summary.json holds).

    `recipe` is a file or the name of a built-in recipe; `overrides` are `dotted.key=value`, one or several. `on` is a launch
    file, by path or built-in name: where the run takes place, laid over the recipe before the overrides. `resume` continues
    from the last good checkpoint of the run directory, `allow_changes` also with a changed recipe; `overwrite` replaces an
    earlier run.
    Raises the errors of align.errors.
    """
    from align.recipe.load import load_recipe
    from align.recipe.located import located_errors
    from align.recipe.schema import EvaluateRecipe

    if resume and overwrite:
        raise RecipeError(
            "resume and overwrite exclude each other", fix="give one: resume continues the run, overwrite starts anew"
        )
    resolved = load_recipe(recipe, several(overrides), on=on)
    if isinstance(resolved.recipe, EvaluateRecipe):
        raise RecipeError(
            "this recipe evaluates a model, it trains none",
            place=resolved.place("recipe"),
            fix=f"run `align evaluate {recipe}`",
        )
    launch = resolved.recipe.launch
    how = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
    if (launch.on == "ray" or launch.learners > 1) and "WORLD_SIZE" not in os.environ:  # else this is one of the ranks
        from align.launch.job import Job

        job = Job(
            recipe=str(recipe),
            overrides=several(overrides),
            how={"on": str(on) if on else None, **how},
            output_dir=Path(str(resolved.recipe.output_dir)),
            launch=launch,
            engine_gpus=_engine_gpus(resolved.recipe),
        )
        if launch.on == "ray":
            from align.run.directory import RunDirectory

            with located_errors(resolved.recipe, resolved.place):
                RunDirectory.check(resolved, **how)  # the actors' logs go there from the start
        launcher = import_module(f"align.launch.{launch.on}")
        summary: dict[str, Any] = launcher.train(job)
        return summary
    from align.loops.preflight import preflight

    with located_errors(resolved.recipe, resolved.place):
        rows = preflight(resolved, **how)
        loop = import_module(LOOPS[resolved.recipe.recipe])
        return loop.train(resolved, rows, **how)


def check(recipe: str | Path, overrides: str | Sequence[str] = (), *, on: str | Path | None = None) -> Plan:
    """Validate a recipe and work out what it would do: values, origins, batch arithmetic, placement, memory, probes.

    `on` is a launch file, by path or built-in name, laid over the recipe before the overrides.
    """
    from align.recipe.load import load_recipe
    from align.recipe.located import located_errors

    resolved = load_recipe(recipe, several(overrides), on=on)
    from align.recipe.plan import make_plan  # torch: a bad recipe is refused before it is imported

    with located_errors(resolved.recipe, resolved.place):
        return make_plan(resolved)


def evaluate(
    recipe: str | Path | None = None,
    overrides: str | Sequence[str] = (),
    *,
    model: str | Path | None = None,
    data: str | Path | Sequence[str | Path] = (),
    rewards: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    num_generations: int | None = None,
    k: int | Sequence[int] = (),
    temperature: float | None = None,
    max_completion_length: int | None = None,
    seed: int | None = None,
    engine: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    console: RunConsole | None = None,
) -> EvaluationResult:
    """pass@k of a model on a data set with a reward: as a recipe says, as the arguments say, or a recipe with some replaced.

    `model` is a hub id, a model folder, a checkpoint or a run directory (its last checkpoint). `data` are paths or generated
    problems, `task:NAME` (of seed 1) or `task:NAME@SEED`; of `data`, `rewards`, `k` and `overrides` one can stand alone. Of a
    benchmark with one source `data` replaces its place and nothing else. `columns` maps our column names to those of `data`;
    `limit` takes that many problems; `engine` is transformers or vllm. What stays None is as in the recipe.
    With `out` (or where an evaluate recipe names an `output_dir`) that folder gets samples as they are graded, and result.json.
    A folder with samples of the same evaluation is continued; one with others is refused unless `overwrite` is given. `console`
    shows progress; without one nothing is printed.
    """
    request = _evaluation(
        recipe,
        overrides,
        model=model,
        data=data,
        rewards=rewards,
        columns=columns,
        limit=limit,
        num_generations=num_generations,
        k=k,
        temperature=temperature,
        max_completion_length=max_completion_length,
        seed=seed,
        engine=engine,
    )
    if request.recipe.pairs is not None:
        raise RecipeError(
            "this recipe compares pairs of answers and samples none",
            place=request.place("pairs"),
            fix="from Python call align.evaluate_pairs, on the command line `align evaluate` does",
        )

    from align.evaluate.program import evaluate_recipe
    from align.recipe.located import located_errors
    from align.run.console import silent_console

    folder = out or request.recipe.output_dir
    with located_errors(request.recipe, request.place):
        return evaluate_recipe(request.recipe, console or silent_console(), Path(folder) if folder else None, overwrite=overwrite)


def evaluate_models(
    recipe: str | Path | None = None,
    overrides: str | Sequence[str] = (),
    *,
    models: Sequence[str | Path],
    out: str | Path | None = None,
    seed: int | None = None,
    console: RunConsole | None = None,
    **arguments: Any,
) -> Curves:
    """`evaluate` for several models on the same problems, the first being what the others are compared with.

    `arguments` are those of `evaluate`. With `out` every model gets a folder of its own in it, beside result.json and
    pass_at_k.png.
    """
    from align.evaluate.curves import compare_curves, write_plot
    from align.evaluate.names import model_names
    from align.evaluate.program import write_figures

    if out is None:
        asked = {key: value for key, value in arguments.items() if key != "overwrite"}
        out = _evaluation(recipe, overrides, model=models[0], seed=seed, **asked).recipe.output_dir
    results = {}
    for name, model in model_names([str(model) for model in models]).items():
        if console is not None:
            console.show(f"{name}: {model}")
        folder = None if out is None else Path(out) / name
        results[name] = evaluate(recipe, overrides, model=model, out=folder, seed=seed, console=console, **arguments)
    curves = compare_curves(results, seed=seed or 0)
    if out is not None:
        write_figures(curves.to_dict(), Path(out))
        if len(next(iter(results.values())).pass_at_k) > 1:
            write_plot(Path(out) / "pass_at_k.png", curves, title=str(recipe or "evaluation"))
    return curves


def evaluate_pairs(
    recipe: str | Path,
    overrides: str | Sequence[str] = (),
    *,
    model: str | Path | None = None,
    data: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    console: RunConsole | None = None,
) -> PairResult:
    """How often a reward model prefers the chosen answer, by subset: of an evaluate recipe with `pairs`.

    `model` is the reward model: a run directory, a folder or a hub id. With `out` that folder gets result.json.
    """
    request = _evaluation(recipe, overrides, model=model, data=data or (), columns=columns, limit=limit)
    if request.recipe.pairs is None:
        raise RecipeError("this recipe has no `pairs`", place=str(recipe), fix="start from evaluate/reward_bench")

    from align.evaluate.pair_accuracy import evaluate_pairs as judge
    from align.evaluate.program import write_result
    from align.recipe.located import located_errors
    from align.run.console import silent_console

    with located_errors(request.recipe, request.place):
        result = judge(request.recipe, console or silent_console())
    if folder := out or request.recipe.output_dir:
        write_result(result.to_dict(), request.recipe, Path(folder))
    return result


def _evaluation(
    recipe: str | Path | None,
    overrides: str | Sequence[str],
    *,
    model: str | Path | None = None,
    data: str | Path | Sequence[str | Path] = (),
    rewards: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    k: int | Sequence[int] = (),
    **flags: Any,
) -> Request:
    """What the arguments of `evaluate` ask for, as an evaluate recipe."""
    from align.evaluate.request import evaluation_request, evaluation_settings

    unset = dict.fromkeys(("limit", "num_generations", "temperature", "max_completion_length", "seed", "engine"))
    settings = evaluation_settings(
        model=model,
        data=several(data),
        rewards=several(rewards),
        columns=columns or {},
        k=[k] if isinstance(k, int) else k,
        **{**unset, **flags},
    )
    return evaluation_request(recipe, several(overrides), settings)


def compares_pairs(recipe: str | Path | None, overrides: str | Sequence[str] = ()) -> bool:
    """Whether a recipe is for `evaluate_pairs`."""
    from align.recipe.load import load_recipe

    return (
        recipe is not None
        and getattr(load_recipe(recipe, several(overrides), check_files=False).recipe, "pairs", None) is not None
    )


def regrade(
    folder: str | Path,
    rewards: str | Sequence[str] = (),
    out: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    overrides: str | Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    console: RunConsole | None = None,
) -> Regrading:
    """Judge the samples of an evaluation folder with other rewards, without sampling again, and tell what changes.

    The rewards are those of `recipe`, or `rewards` with `params`. With `out` the outcome becomes an evaluation folder of its own.
    """
    from align.evaluate.regrade import regrade as grade
    from align.rewards.files import named_rewards
    from align.run.console import silent_console

    if recipe is not None:
        specs, combine = _rewards_of(recipe, overrides)
    else:
        specs, combine = named_rewards(several(rewards), params or {}), None
    with (console or silent_console()).activity(f"grading {folder}") as advance:
        return grade(Path(folder), specs, None if out is None else Path(out), combine=combine, on_progress=advance)


def score(
    rewards: str | Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: str | Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    explain: int = 0,
    console: RunConsole | None = None,
) -> ScoreReport:
    """Score the completions of a file with one or several rewards; rows go to `out` with value, status, reward and detail.

    With `recipe` its rewards judge, combined as it says, in place of `rewards`, whose parameters are `params`. `columns` maps our
    column names to the file's ("outer.inner": inside an object). The first `explain` rows come back with the way their value
    came about. `console` shows progress.
    """
    from align.rewards.files import score_file
    from align.run.console import silent_console

    specs, combine = _rewards_of(recipe, overrides) if recipe is not None else (several(rewards), None)
    done = 0
    with (console or silent_console()).activity(f"scoring {data}") as advance:

        def show(rows: int, _: int | None) -> None:
            nonlocal done
            advance(rows - done)
            done = rows

        return score_file(
            specs,
            Path(data),
            Path(out),
            params=params,
            combine=combine,
            columns=columns,
            explain=explain,
            on_progress=show,
        )


def audit(
    rewards: str | Sequence[str],
    data: str | Path,
    *,
    recipe: str | Path | None = None,
    overrides: str | Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    reference: str | None = None,
    limit: int = 200,
    console: RunConsole | None = None,
) -> list[Audit]:
    """Try each reward on answers whose worth is known: references, those of other rows, constants, hostile and very long ones.

    `data` holds prompts and references (in the column `reference`, or the usual ones). With `recipe` its rewards are tried.
    """
    from align.rewards.audit import audit_file
    from align.rewards.files import named_rewards
    from align.run.console import silent_console

    specs = _rewards_of(recipe, overrides)[0] if recipe is not None else named_rewards(several(rewards), params or {})
    audits = []
    for spec in specs:
        with (console or silent_console()).activity(f"auditing {spec.use}") as advance:
            audits.append(
                audit_file(spec, Path(data), columns=columns, reference=reference, limit=limit, on_probe=partial(advance, 1))
            )
    return audits


def _rewards_of(recipe: str | Path, overrides: str | Sequence[str]) -> tuple[list[RewardSpec], Any]:
    """The rewards of a recipe, and how it combines them."""
    from align.recipe.load import load_recipe

    resolved = load_recipe(recipe, several(overrides))
    if not resolved.recipe.reward_specs:
        raise RecipeError("this recipe has no rewards", place=str(recipe), fix="name rewards with --reward")
    return resolved.recipe.reward_specs, resolved.recipe.combination


def calibrate(
    data: str | Path, label: str, *, value: str = "value", threshold: float = 0.5, draws: int = 1000, seed: int = 0
) -> Calibration:
    """How well the values of a scored file agree with labels, and what else they follow: length, and the place of an answer.

    `label` and `value` are columns; a row counts as good from `threshold` up, where labels are of two kinds. `draws` resamples
    give the 95 % intervals.
    """
    from align.rewards.judge.calibrate import calibrate_file

    return calibrate_file(Path(data), label, value=value, threshold=threshold, draws=draws, seed=seed)


def export(source: str | Path, out: str | Path, *, dtype: str | None = None, overwrite: bool = False) -> Path:
    """Write a checkpoint, or a run's last one, as a plain Hugging Face folder: adapters merged, weights as `dtype`."""
    from align.learner.export import export_model

    return export_model(Path(source), Path(out), dtype=dtype, overwrite=overwrite)


def report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None, *, max_mb: float = 32.0) -> Written:
    """Write the report of a run, or of several side by side, as one HTML file, and say what was written.

    Default of `out`: report.html in the run directory, or comparison.html in the first of several. Where the samples would take
    more than `max_mb` megabytes, of each step the same share of the prompts is in it.
    """
    from align.report.page_file import write_report

    paths = [Path(run) for run in several(runs)]
    if not paths:
        raise RecipeError("name a run", fix="give a run directory: the output_dir of a training")
    name = "report.html" if len(paths) == 1 else "comparison.html"
    return write_report(paths, Path(out) if out is not None else paths[0] / name, most_megabytes=max_mb)


def recipes() -> list[str]:
    """The names of the built-in recipes, such as "quickstart/grpo"."""
    from align.recipe.load import recipe_names

    return recipe_names()


def doctor(output: str | Path = "runs") -> list[Finding]:
    """What `align doctor` finds out about this machine; `output` is where runs would be written."""
    from align.doctor import examine

    return examine(Path(output))


def _engine_gpus(recipe: Any) -> int:
    """The GPUs of one rollout engine."""
    rollout = getattr(recipe, "rollout", None)
    return rollout.vllm.tensor_parallel_size if rollout is not None and rollout.engine == "vllm" else 1


def several(items: str | Path | Iterable[str | Path]) -> list[str]:
    """A list of what may have been given alone: a text would otherwise be taken apart into its letters."""
    return [str(items)] if isinstance(items, str | Path) else [str(item) for item in items]
