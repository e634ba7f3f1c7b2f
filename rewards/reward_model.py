"""`reward_model`: a trained model judges the answer, or each of its steps; several models, or heads, are an ensemble."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from align.rewards.daemon import DaemonThread
from align.rewards.reward import Params, fingerprint, source_of
from align.rewards.verdict import Verdict
from align.types import Rollout

if TYPE_CHECKING:
    from align.rewards.pooling_server import ServedJudge
    from align.rewards.score_model import Judgement, ScoreJudge


STEPS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "prod": math.prod,
    "last": lambda good: good[-1],
    "mean": fmean,
}


class RewardModelParams(Params):
    path: Annotated[str | list[str], Field(min_length=1)] = Field(
        description="Folder, checkpoint, run directory or hub id of a reward model; a list is an ensemble"
    )
    normalise: bool = Field(True, description="Subtract the mean and divide by the standard deviation saved with the model")
    combine: Literal["mean", "min", "mean_minus_std"] = Field("mean", description="What an ensemble's scores become")
    penalty: Annotated[float, Field(ge=0)] = Field(1.0, description="Standard deviations that mean_minus_std subtracts")
    steps: Literal["min", "prod", "last", "mean"] = Field("min", description="What the steps of a process model become")
    step_separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Where steps end, for a token-classification model that was not trained here; default: a line break"
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Of a model's attributes; default: their mean")
    max_length: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Longer prompts and answers are errors, never cut; default: what the model was trained on, in tokens"
    )
    max_batch_tokens: Annotated[int, Field(gt=0)] = Field(16384, description="Tokens of one forward pass, padding included")
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str | None = Field(None, description="Default: the GPU where there is one")
    server: str | None = Field(
        None, description="A vLLM pooling server, as http://127.0.0.1:8000; path is the model's name there"
    )
    tokenizer: str | None = Field(None, description="server: the local folder of the tokenizer, where path is none")
    timeout: Annotated[float, Field(gt=0)] = Field(120.0, description="server: seconds of one attempt")
    deadline: Annotated[float, Field(gt=0)] = Field(900.0, description="server: seconds of one request with all its attempts")
    start_deadline: Annotated[float, Field(gt=0)] = Field(
        120.0, description="server: the deadline of requests while the server has never answered yet"
    )
    first_wait: Annotated[float, Field(gt=0)] = Field(
        0.5, description="server: bound of the wait before the first retry, in seconds"
    )


class RewardModelReward:
    """The score of a reward model, passed where it is above 0: with normalisation, above the mean of its training data.

    A process model gives the probability that a step is good, and `Verdict.steps` holds them. An answer that is too long, or that
    the model's chat template refuses, is an error: it is masked and counted, never cut.
    """

    params_type = RewardModelParams
    range: tuple[float, float] | None = None

    def __init__(self, name: str, params: RewardModelParams) -> None:
        """Load the models. Raises CheckpointError where one cannot be loaded, RecipeError where the models do not go together."""
        from align.rewards.score_model import open_judges

        self.name, self._params = name, params
        paths = [params.path] if isinstance(params.path, str) else params.path
        self._judges: Sequence[ScoreJudge | ServedJudge] = open_judges(paths, params)
        settings = params.model_dump(
            mode="json", exclude={"path", "device", "max_batch_tokens", "timeout", "deadline", "start_deadline", "first_wait"}
        )
        self.version = fingerprint(source_of(type(self)), settings, *(judge.version for judge in self._judges))
        self._thread = DaemonThread(f"align-reward-{name}")

    async def score(self, rollouts: Sequence[Rollout]) -> list[Verdict | None]:
        loop = asyncio.get_running_loop()
        judged = [await loop.run_in_executor(self._thread, judge.judge, rollouts) for judge in self._judges]
        return [self._verdict(list(found)) for found in zip(*judged, strict=True)]

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        for judge in self._judges:
            judge.close()

    def _verdict(self, judgements: Sequence[Judgement]) -> Verdict:
        """One verdict from those of every model."""
        wrong = next((judgement.error for judgement in judgements if judgement.error), None)
        if wrong is not None:
            return Verdict.error(wrong)
        first = judgements[0]
        if first.ends is not None:
            return self._steps_verdict(first.ends, [judgement.scores for judgement in judgements])
        members = [member for judgement in judgements for member in self._members(judgement)]
        value = self._combined(members)
        parts = {**{f"member_{n}": one for n, one in enumerate(members) if len(members) > 1}, **_attributes(judgements)}
        return Verdict(value=value, status="pass" if value > 0 else "fail", parts=parts)

    def _steps_verdict(self, ends: Sequence[int], scores: Sequence[Sequence[Sequence[float]]]) -> Verdict:
        """Of a process model: the last of each step's numbers is the probability that it is good."""
        if not ends:
            return Verdict.unparsable("the answer has no steps: it is empty")
        good = [self._combined([step[-1] for step in steps]) for steps in zip(*scores, strict=True)]
        value = STEPS[self._params.steps](good)
        status: Literal["pass", "fail"] = "pass" if min(good) > 0.5 else "fail"
        return Verdict(value=value, status=status, steps=tuple(zip(ends, good, strict=True)))

    def _members(self, judgement: Judgement) -> list[float]:
        """The numbers of one model that mean the same: its heads, or the weighted sum of its attributes."""
        ((scores),) = judgement.scores
        if not judgement.attributes:
            return list(scores)
        if not self._params.weights:
            return [fmean(scores)]
        named = dict(zip(judgement.attributes, scores, strict=True))
        return [math.fsum(weight * named[name] for name, weight in self._params.weights.items())]

    def _combined(self, members: Sequence[float]) -> float:
        if self._params.combine == "min":
            return min(members)
        penalty = self._params.penalty if self._params.combine == "mean_minus_std" else 0.0
        return fmean(members) - penalty * pstdev(members)


def _attributes(judgements: Sequence[Judgement]) -> Mapping[str, Any]:
    """The attributes of a single model, by name."""
    if len(judgements) > 1:
        return {}
    return dict(zip(judgements[0].attributes, judgements[0].scores[0], strict=True)) if judgements[0].attributes else {}
