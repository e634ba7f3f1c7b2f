"""What every training loop shares around its steps: the run directory, resuming, evaluation, logging, checkpoints, stopping."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeVar

import torch

from align.errors import Preempted
from align.evaluate.generate import evaluate_model, spread
from align.learner.checkpoint import Checkpoint, checkpoint_path, resume_checkpoint, write_checkpoint
from align.learner.partition import Partition
from align.learner.ranks import Ranks
from align.loops.best import Standing, is_kept, keep_best, standing, undisturbed
from align.recipe.evaluation import evaluation_sampling
from align.recipe.schema import Evaluation
from align.run.console import RunConsole, silent_console
from align.run.directory import RunDirectory
from align.run.log import RunLog
from align.run.report import final_report
from align.run.signals import StopSignals
from align.run.watch import Note

if TYPE_CHECKING:
    from align.evaluate.pairs import HeldOutResult
    from align.recipe.load import Resolved
    from align.recipe.schema import TrainRecipe
    from align.types import Group


T = TypeVar("T")
HeldOut = Callable[[Callable[[int], None]], "HeldOutResult"]  # gets what to call with the items done since the last call


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Trained(Stateful, Protocol):
    """A model that is trained beside the policy: saved in a folder of its own, with its optimizer's state."""

    def save_model(self, folder: Path) -> None: ...

    def load_model(self, folder: Path) -> None: ...


class _Left(Exception):
    """An evaluation is left because the run is to stop."""


class Session:
    """One run of a recipe, from the checks before anything starts to the report at the end. A context manager.

    A loop calls `begin` once its parts stand, iterates over `steps`, and hands each step's numbers to `end_step`. Where several
    ranks train, each runs the loop; the first one alone samples, judges, logs and writes, and what it decides holds for all.
    """

    recipe: TrainRecipe

    def __init__(self, resolved: Resolved, *, resume: bool, overwrite: bool, allow_changes: bool) -> None:
        self.resolved, self.recipe = resolved, resolved.recipe  # type: ignore[assignment]
        self._how: Any = {"resume": resume, "overwrite": overwrite, "allow_changes": allow_changes}
        self._stack = ExitStack()
        self.step = self.tokens = 0  # both over all resumes

    def begin(
        self,
        site: Any,
        parts: Mapping[str, Stateful],
        held_out: HeldOut | None = None,
        models: Mapping[str, Trained] | None = None,
        prepare: Callable[[], None] = lambda: None,
        **record: Any,
    ) -> None:
        """Open the run directory, on resume restore the last checkpoint into the learner, `parts` and `models`, evaluate before.

        An evaluation is pass@k of the site's policy, or what `held_out` finds: then the site needs no engine and no rewards.
        `prepare` is called with the run directory open and the learner still as the recipe makes it, on resume too.
        `record` is stored in environment.json, beside the versions of the rewards.
        """
        self._site, self._parts, self._held_out, self._models = site, parts, held_out, models or {}
        if self.ranks.is_first:
            judges = {} if held_out else {"rewards": site.scorer.stack.versions, "sandbox": site.scorer.stack.layers}
            record = {**judges, **record}
            self._run = self._stack.enter_context(RunDirectory.open(self.resolved, **self._how, record=record))
        prepare()
        resumed = self.agreed(lambda: self.run.resumed)
        if resumed:
            self._restore()
        evaluation = self.recipe.evaluate
        if evaluation and evaluation.before and self.step == 0 and self.agreed(lambda: self.run.evaluation("before") is None):
            self._evaluate("before")
        if self.ranks.is_first:
            steps = self.recipe.train.steps
            self._log = self._stack.enter_context(RunLog(self.run, self.resolved, self.console, steps=steps, done=self.step))
            if self.step == 0 and self.run.evaluation("before"):
                self._log_evaluation("before")  # made before there was a log
        if resumed:
            self._evaluate_on_schedule()  # stopped between a checkpoint and its evaluation

    @property
    def run(self) -> RunDirectory:
        """The run directory, of the first rank."""
        return self._run

    def agreed(self, decide: Callable[[], T]) -> T:
        """What `decide` gives on the first rank, on every rank; the others do not call it. All ranks must come here."""
        return self.ranks.from_first(decide)

    def steps(self) -> Iterator[int]:
        """The steps that are left; none after `evaluate.stop_after` evaluations without a better one."""
        for step in range(self.step + 1, self.recipe.train.steps + 1):
            if self._stopped_early():
                return
            yield step

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measure a phase of the step as `time/<name>`."""
        return self._log.timer.phase(name) if self.ranks.is_first else nullcontext()

    def write_rollouts(self, step: int, *rollouts: Any) -> None:
        """Keep the samples of a step, see `RunDirectory.write_rollouts`."""
        if self.ranks.is_first:
            self.run.write_rollouts(step, *rollouts)

    def end_step(
        self, step: int, metrics: Mapping[str, Any], *, tokens: int, groups: Sequence[Group] = (), notes: Sequence[Note] = ()
    ) -> None:
        """Log the step; evaluate and save where they are due. Raises Preempted, after saving, when the run was asked to stop."""
        self.step, self.tokens = step, self.tokens + tokens
        train, last = self.recipe.train, step == self.recipe.train.steps
        if self.ranks.is_first:
            self._log.step(step, {**metrics, "num_tokens": self.tokens}, groups, notes)
        if self.agreed(lambda: self._stop.requested) and not last:
            self._save_and_leave()
        if last or (train.save_steps and step % train.save_steps == 0):
            self._save()
        self._evaluate_on_schedule()

    def finish(self) -> dict[str, Any]:
        """Evaluate the trained model, write the summary and show the report; the summary, empty on other ranks than the first."""
        evaluation = self.recipe.evaluate
        if evaluation and evaluation.after and not self._is_evaluated("after"):
            if self._is_evaluated(f"step-{self.step:06d}"):  # the run was stopped early, right after this
                self.agreed(lambda: self.run.copy_evaluation(f"step-{self.step:06d}", "after"))
            else:
                self._evaluate("after")
        best = self._best_of_run()
        if not self.ranks.is_first:
            return {}
        self._log.close()
        summary = self.run.finish(**best)
        final_report(self.run, self.console, next_command=self._next_command())
        return summary

    def __enter__(self) -> Self:
        self.ranks = Ranks.present()
        self.console = self._stack.enter_context(RunConsole() if self.ranks.is_first else silent_console())
        self._stop = self._stack.enter_context(StopSignals(self.console.announce_stop))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def _next_command(self) -> str:
        """What to try on the trained model: sample it more often where it was evaluated, else write it out as a plain folder."""
        evaluation, path = self.recipe.evaluate, self.run.path
        if not isinstance(evaluation, Evaluation):
            return f"align export {path} {path}/model"
        return f"align evaluate {path}/resolved.yaml --model {path} --n {4 * evaluation.num_generations}"

    def _save(self) -> None:
        if self.ranks.is_first:
            write_checkpoint(self.run.checkpoints, self.step, self._write, keep=self.recipe.train.save_total_limit)
        else:
            self._write(Path())  # takes part in gathering, and writes nothing
        self.ranks.wait()  # nobody leaves before it is on the disk

    def _save_and_leave(self) -> NoReturn:
        self._save()
        raise Preempted(
            f"stopped by {self._stop.requested}; step {self.step} is saved",
            place=self.recipe.output_dir,
            fix="continue with the same command and --resume",
        )

    def _evaluate_on_schedule(self) -> None:
        evaluation, name = self.recipe.evaluate, f"step-{self.step:06d}"
        due = evaluation and evaluation.every and self.step % evaluation.every == 0 and 0 < self.step < self.recipe.train.steps
        if due and not self._is_evaluated(name):
            self._evaluate(name)
        elif due:
            self._keep_if_best()  # stopped between an evaluation and keeping its model

    def _is_evaluated(self, name: str) -> bool:
        def is_stored() -> bool:
            stored = self.run.evaluation(name)
            return stored is not None and stored["step"] == self.step

        return self.agreed(is_stored)

    def _evaluate(self, name: str) -> None:
        """Evaluate, store it under `name`, and keep the model where it is the best so far."""
        with undisturbed():
            left = self._judge(self._held_out, name) if self._held_out is not None else self._sample_published(name)
        if left:
            self._save_and_leave()  # the evaluation is made up for on resume
        if name != "before":
            self._keep_if_best()

    def _sample_published(self, name: str) -> bool:
        evaluation = self.recipe.evaluate
        assert isinstance(evaluation, Evaluation)
        if self._site.engine.version != self.step:
            self._site.publish(self.step)
        return self.agreed(lambda: self._sample(evaluation, name))

    def _standing(self) -> Standing | None:
        """How the evaluations so far compare; None where none are to be compared."""
        best = self.recipe.evaluate.best if self.recipe.evaluate else None
        return self.agreed(lambda: standing(self.run.evaluations, best)) if best else None

    def _keep_if_best(self) -> None:
        """Keep the present model where its evaluation is the best so far."""
        now = self._standing()
        if now is None or now.step != self.step or self.agreed(lambda: is_kept(self.run.checkpoints, self.step)):
            return
        if self.ranks.is_first:
            keep_best(self.run.checkpoints, self.step, self._write)
        else:
            self._write(Path())  # takes part in gathering, and writes nothing
        self.ranks.wait()

    def _stopped_early(self) -> bool:
        """Whether so many evaluations in a row were no better than the best that the run ends here; it is saved then."""
        patience = self.recipe.evaluate.stop_after if self.recipe.evaluate else None
        now = self._standing() if patience else None
        if patience is None or now is None or now.since < patience:
            return False
        if self.agreed(lambda: not checkpoint_path(self.run.checkpoints, self.step).exists()):
            self._save()
        if self.ranks.is_first:
            self.console.show(f"stopped after step {self.step}: {now.since} evaluations no better than that of step {now.step}")
        return True

    def _best_of_run(self) -> dict[str, Any]:
        """What the summary says of the best evaluation."""
        now, evaluation = self._standing(), self.recipe.evaluate
        if now is None or evaluation is None or evaluation.best is None:
            return {}
        best = {"metric": evaluation.best.metric, "value": now.value, "step": now.step}
        return {"best": best, **({"stopped_early": self.step} if self.step < self.recipe.train.steps else {})}

    def _sample(self, evaluation: Evaluation, name: str) -> bool:
        """Estimate pass@k of the site's policy and store it. Returns whether it was left because the run is to stop."""
        ends = evaluation_sampling(self.recipe, evaluation)
        problems = spread(self._site.eval_prompts, evaluation.max_problems)
        try:
            with self.console.activity(f"evaluating ({name})", total=len(problems) * evaluation.num_generations) as advance:

                def on_progress(*_: int) -> None:
                    advance(1)
                    if self._stop.requested:
                        raise _Left

                result = evaluate_model(
                    self._site.engine,
                    problems,
                    self._site.scorer,
                    evaluation,
                    seed=self.recipe.seed,
                    max_completion_length=ends.max_tokens,
                    stop=ends.stop,
                    stop_token_ids=ends.stop_token_ids,
                    on_progress=on_progress,
                )
        except _Left:
            return True
        pass_at_k = {k: estimate.to_dict() for k, estimate in result.pass_at_k.items()}
        metrics = {
            "reward": result.mean_reward,
            "mean_length": result.mean_length,
            "truncated": result.truncated,
            "errors": result.errors,
        }
        self.run.write_evaluation(name, step=self.step, pass_at_k=pass_at_k, metrics=metrics, rows=result.rows())
        if name != "before":
            self._log_evaluation(name)
        return False

    def _judge(self, held_out: HeldOut, name: str) -> bool:
        """Judge the held-out data and store it. Returns whether it was left because the run is to stop."""
        try:
            with self.console.activity(f"evaluating ({name})") as advance:

                def on_progress(done: int) -> None:
                    advance(done)
                    if self.agreed(lambda: self._stop.requested):
                        raise _Left

                result = held_out(on_progress)
        except _Left:
            return True
        if not self.ranks.is_first:
            return False
        estimates = {key: estimate.to_dict() for key, estimate in result.estimates.items()}
        self.run.write_evaluation(name, step=self.step, metrics=result.metrics, estimates=estimates, rows=result.rows)
        if name != "before":
            self._log_evaluation(name)
        return False

    def _log_evaluation(self, name: str) -> None:
        """Its numbers for every sink, with their intervals, at the step that it belongs to."""
        stored = self.run.evaluation(name)
        assert stored is not None, "it was written"
        estimates = {f"pass@{k}": one for k, one in stored["pass_at_k"].items()} | stored.get("estimates", {})
        values = {key: one["value"] for key, one in estimates.items()}
        bounds = {f"{key}/{bound}": one[bound] for key, one in estimates.items() for bound in ("low", "high")}
        self._log.evaluation(stored["step"], {**stored["metrics"], **values, **bounds})

    def _write(self, folder: Path) -> None:
        """The contents of a checkpoint: model and tokenizer in Hugging Face layout, the trainer's state beside them."""
        trainer = folder / "trainer"
        if self.ranks.is_first:
            trainer.mkdir()
            state = {"tokens": self.tokens, "parts": {name: part.state_dict() for name, part in self._parts.items()}}
            (trainer / "state.json").write_text(json.dumps(state))
        for place, name, model in [
            (folder, "learner", self._site.learner),
            *((folder / n, n, m) for n, m in self._models.items()),
        ]:
            model.save_model(place)
            moments = model.state_dict()
            if self.ranks.is_first:
                torch.save(moments, trainer / f"{name}.pt")
                self._site.tokenizer.save_pretrained(place)

    def _last_checkpoint(self) -> Checkpoint:
        """Where the run goes on; what was recorded after it is taken back."""
        checkpoint = resume_checkpoint(self.run.checkpoints)
        for note in checkpoint.notes:
            self.console.show(note)
        self.run.rewind(checkpoint.step)
        return checkpoint

    def _stored(self, file: Path) -> Any:
        """A learner's state. Where ranks divide it, each reads its part of a mapped file."""
        divided = Partition.of(self.recipe.train) is not None
        return torch.load(file, map_location="cpu", weights_only=True, mmap=divided)

    def _restore(self) -> None:
        checkpoint = self.agreed(self._last_checkpoint)
        trainer = checkpoint.path / "trainer"
        self._site.learner.load_model(checkpoint.path)
        self._site.learner.load_state_dict(self._stored(trainer / "learner.pt"))
        for name, model in self._models.items():
            model.load_model(checkpoint.path / name)
            model.load_state_dict(self._stored(trainer / f"{name}.pt"))
        state = json.loads((trainer / "state.json").read_text())
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        self.step, self.tokens = checkpoint.step, state["tokens"]
        self.console.show(f"continuing after step {self.step}")
