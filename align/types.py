"""The stages a sample goes through, one frozen type each.

Shape suffixes, on tensors and lists alike: _N tokens of a flat batch, _B sequences, _P prompts, _G samples of a prompt,
_T tokens of one sequence, _V vocabulary, _D hidden size.

Prompt -> Completion -> Rollout -> Scored -> Group -> Batch (align.learner.packing) -> Update
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from align.rewards.verdict import Verdict

FinishReason = Literal["stop", "length"]
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem to answer, tokenized with the chat template of the model that will answer it."""

    id: str  # stable over runs and epochs: "<source>:<row>"
    messages: tuple[Message, ...]  # a bare string prompt is one user message
    token_ids: tuple[int, ...]  # what the model sees, generation prompt included
    answer: Any = None  # reference answer, None where the data has none
    source: str = "data"  # label of the data source, for per-source metrics
    columns: Mapping[str, Any] = field(default_factory=dict)  # the whole row, handed to rewards
    demonstration: tuple[int, ...] = ()  # the row's own completion in tokens, for methods that learn from it too


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample; the seed together with prompt id and sample index decides every draw."""

    n: int = 1  # samples per prompt
    max_tokens: int = 256
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps all
    min_p: float = 0.0
    stop: tuple[str, ...] = ()  # stop strings; the matched tokens stay in the completion
    stop_token_ids: tuple[int, ...] = ()  # besides the model's own end-of-sequence ids
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine sampled for prompt number `prompt_index` of the call.

    `logprobs` are natural logs under softmax(logits / temperature) over the full vocabulary, one per token; top_p, top_k
    and min_p restrict what is drawn but not what is reported, so that trainer and sampler speak of the same distribution.
    At temperature 0 they are those of temperature 1.
    """

    prompt_index: int
    sample_index: int
    token_ids: tuple[int, ...]  # the end-of-sequence token included
    logprobs: tuple[float, ...]
    text: str  # decoded without special tokens
    finish_reason: FinishReason
    weights_version: int = 0  # of the weights that its first token was drawn with
    token_versions: tuple[int, ...] = ()  # of each token, where weights changed while it was written; else empty

    @property
    def versions(self) -> tuple[int, ...]:
        """versions_T: of the weights that each token was drawn with."""
        return self.token_versions or (self.weights_version,) * len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What there is of a sample that is not finished: its tokens so far, their log-probs and weights versions."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]

    def cut(self, length: int) -> Written:
        """The first `length` tokens of it."""
        return Written(token_ids=self.token_ids[:length], logprobs=self.logprobs[:length], versions=self.versions[:length])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample that an engine is asked for; where it was interrupted it goes on after what is `written`."""

    name: str  # of no other request that the engine works on
    prompt: Prompt
    sampling: Sampling
    prompt_index: int = 0
    sample_index: int = 0
    written: Written | None = None

    @property
    def context(self) -> tuple[int, ...]:
        """The tokens that the next one follows."""
        return self.prompt.token_ids + (self.written.token_ids if self.written else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A prompt with one completion; `loss_mask` marks the completion tokens that are trained on (None: all).

    A demonstrated completion comes from the data: no policy sampled it, and its log-probs mean nothing.
    """

    prompt: Prompt
    completion: Completion
    loss_mask: tuple[bool, ...] | None = None
    demonstrated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A rollout with its verdicts by reward name; `reward` is their combination, NaN where there is no verdict."""

    rollout: Rollout
    verdicts: Mapping[str, Verdict]
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All samples of one prompt."""

    prompt: Prompt
    samples: tuple[Scored, ...]

    @property
    def rewards_G(self) -> tuple[float, ...]:
        return tuple(sample.reward for sample in self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """Tokens to imitate (supervised fine-tuning); `loss_mask` marks the tokens that are trained on."""

    id: str
    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    source: str = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two completions of a prompt, the first one preferred; each completion ends with its end-of-turn token.

    `margin` says by how much, in the units of the data's scores; None where the data does not say.
    """

    id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    margin: float | None = None
    source: str = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCompletion:
    """A completion that is judged by itself: `score` is 1 for desirable and 0 for undesirable, or any reward."""

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    score: float
    source: str = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Several completions of a prompt with their scores; the higher score is the better one."""

    id: str
    prompt_ids: tuple[int, ...]
    completions_G: tuple[tuple[int, ...], ...]
    scores_G: tuple[float, ...]
    source: str = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedCompletion:
    """A completion with what people gave it for each of several attributes; NaN where they gave nothing."""

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    ratings: tuple[float, ...]
    source: str = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedSteps:
    """The steps of an answer, separators included, and how good each is: 1, 0, or a probability."""

    id: str
    prompt_ids: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    good: tuple[float, ...]
    source: str = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one optimizer step reports. `applied` is False where there was no gradient, or a non-finite one made it skip.

    `logp_N` and `entropy_N` are the policy's log-probs and entropies before the step, 0 on tokens that are not trained on; None
    where no policy was updated.
    """

    metrics: Mapping[str, float]
    applied: bool
    logp_N: Tensor | None = None
    entropy_N: Tensor | None = None
