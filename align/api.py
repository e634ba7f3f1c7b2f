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
    from align.evaluate.generate import EvaluationResult
    from align.recipe.plan import Plan
    from align.recipe.schema import RewardSpec
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
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
) -> dict[str, Any]:
    """Train as the recipe says and return the run's summary (what summary.json holds).

    `recipe` is a file or the name of a built-in recipe; `overrides` are `dotted.key=value`, one or several. `resume` continues
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
    resolved = load_recipe(recipe, _several(overrides))
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
            overrides=_several(overrides),
            how=how,
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


def check(recipe: str | Path, overrides: str | Sequence[str] = ()) -> Plan:
    """Validate a recipe and work out what it would do: values, origins, batch arithmetic, memory, probes of data and rewards."""
    from align.recipe.load import load_recipe
    from align.recipe.located import located_errors

    resolved = load_recipe(recipe, _several(overrides))
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
    out: str | Path | None = None,
    console: RunConsole | None = None,
) -> EvaluationResult:
    """pass@k of a model on a data set with a reward: as a recipe says, as the arguments say, or a recipe with some replaced.

    `model` is a hub id, a model folder, a checkpoint or a run directory (its last checkpoint). `data` are paths or generated
    problems, `task:NAME` (of seed 1) or `task:NAME@SEED`; of `data`, `rewards`, `k` and `overrides` one can stand alone.
    `columns` maps our column names to those of `data`; `limit` takes that many problems. What stays None is as in the recipe.
    With `out` (default: `output_dir` of an evaluate recipe) that folder gets result.json and samples.jsonl.gz. `console` shows
    progress; without one nothing is printed.
    """
    from align.evaluate.request import evaluation_request, evaluation_settings

    settings = evaluation_settings(
        model=model,
        data=_several(data),
        rewards=_several(rewards),
        columns=columns or {},
        limit=limit,
        num_generations=num_generations,
        k=[k] if isinstance(k, int) else k,
        temperature=temperature,
        max_completion_length=max_completion_length,
        seed=seed,
    )
    request = evaluation_request(recipe, _several(overrides), settings)

    from align.evaluate.program import evaluate_recipe, write_result
    from align.recipe.located import located_errors
    from align.run.console import silent_console

    with located_errors(request.recipe, request.place):
        result = evaluate_recipe(request.recipe, console or silent_console())
    if folder := out or request.recipe.output_dir:
        write_result(result, request.recipe, Path(folder))
    return result


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

    specs, combine = _rewards_of(recipe, overrides) if recipe is not None else (_several(rewards), None)
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

    specs = _rewards_of(recipe, overrides)[0] if recipe is not None else named_rewards(_several(rewards), params or {})
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

    resolved = load_recipe(recipe, _several(overrides))
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


def _several(items: str | Path | Iterable[str | Path]) -> list[str]:
    """A list of what may have been given alone: a text would otherwise be taken apart into its letters."""
    return [str(items)] if isinstance(items, str | Path) else [str(item) for item in items]
