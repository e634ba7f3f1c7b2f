"""`algorithm:` of a recipe for reinforcement learning: a named method and what to change of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from align.algorithms.names import (
    AdvantageName,
    Baseline,
    DemonstrationMode,
    KLKind,
    KLPlace,
    MacroKind,
    MismatchMode,
    Reduction,
    SampleChoice,
    Scale,
    Selection,
)
from align.recipe.schema.critic import Critic
from align.recipe.schema.sections import Model, NonNegative, Positive, Section, Share


class Mismatch(Section):
    """Correction for a sampler that differs from the trainer."""

    mode: MismatchMode = "token_truncate"
    low: NonNegative = 0.5
    high: NonNegative = 2.0


class Overlong(Section):
    """DAPO's soft overlong penalty (Yu et al. 2025, eq. 13): from 0 to -penalty over the last `buffer` tokens."""

    buffer: Positive = 64
    penalty: NonNegative = 1.0


class TrainOn(Section):
    """Which of a prompt's `rollout.num_generations` samples are trained on; the others are recorded."""

    samples: Positive
    by: SampleChoice = Field(
        "best_worst", description="best, best_worst, best_random (PF-PPO), max_variance (PODS), random; by their rewards"
    )


class Demonstrations(Section):
    """The completion of each row, judged by the same rewards, as one more sample of its group (LUFFY, RL-PLUS)."""

    mode: DemonstrationMode = "shaped"
    gamma: Annotated[float, Field(gt=0)] | None = Field(None, description="Default: 0.1 for shaped, 1.0 for mixture")


class Teacher(Section):
    """A frozen model that says of every sampled token how likely it would have been (on-policy distillation)."""

    path: str = Field(description="Hub id or folder of a causal LM with the tokenizer of the trained model")
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = Field(None, description="Of the computation; default: model.dtype")
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    coefficient: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Weight of its log-ratio beside the method's own advantage; default: 1.0"
    )

    def as_model(self) -> Model:
        """Where to load it from."""
        return Model(
            path=self.path,
            revision=self.revision,
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
        )


class MacroActions(Section):
    """Credit for chunks of tokens instead of tokens (MA-RLHF, Chai et al. 2024)."""

    by: MacroKind = "ngram"
    length: Positive = Field(5, description="Tokens of an n-gram")


class ReferenceSchedule(Section):
    """Moves the reference every so many steps: towards the policy, or all the way (ProRL, Liu et al. 2025)."""

    every: Positive = Field(description="Steps between moves")
    mix: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Share of the policy in the mixture; 1 replaces it")
    reset_optimizer: bool = Field(False, description="Forget the optimizer's moments at every move, as ProRL does")


class Algorithm(Section):
    """A named method; every other key overrides one piece of it. None keeps the method's own."""

    method: str = "grpo"
    advantage: AdvantageName | None = Field(None, description="What a sample is credited with, see docs/methods.md")
    baseline: Baseline | None = None
    scale: Scale | None = None
    loss: str | None = Field(None, description="A policy loss, see docs/methods.md")
    epsilon: NonNegative | None = None
    epsilon_high: NonNegative | None = None
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    knobs: dict[str, float] = Field(default_factory=dict, description="Other knobs of the loss, such as cap or delta")
    reduce: Reduction | None = None
    norm_length: Positive | None = Field(None, description="For sequence_sum_norm; default: rollout.max_completion_length")
    beta: NonNegative | None = Field(None, description="KL coefficient; 0 switches the reference model off")
    kl: KLKind | None = None
    kl_in: KLPlace | None = None
    kl_target: Annotated[float, Field(gt=0)] | None = Field(None, description="Adapt beta towards this KL (Ziegler et al. 2019)")
    kl_horizon: Positive | None = Field(None, description="Samples over which an adaptive beta moves")
    gamma: Share | None = Field(None, description="Discount per token, of gae and reinforce++")
    lam: Share | None = Field(None, description="Of gae")
    length_adaptive_lambda: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Of gae: lam = 1 - 1 / (this * length) for each sample (VAPO), in place of lam"
    )
    critic_lam: Share | None = Field(None, description="Of gae: lambda of the critic's returns; default: that of the advantages")
    bootstrap_truncated: bool | None = Field(None, description="Of gae: what follows a cut-off answer has a value")
    pass_k: Positive | None = Field(None, description="Of the advantage pass@k: samples of which the best counts")
    choose: Selection | None = Field(None, description="Of the advantage selection: the best sample, or all correct ones")
    threshold: float | None = Field(None, description="Of choose: correct, rewards above it are correct")
    entropy_mask: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Train on this share of a step's tokens alone, those of highest entropy (Wang et al. 2025)"
    )
    entropy_coefficient: float | None = None
    entropy_target: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Let entropy_coefficient grow while the entropy per token, in nats, is below this"
    )
    entropy_increment: Annotated[float, Field(gt=0)] | None = Field(
        None, description="By how much it grows or shrinks after a step"
    )
    macro_actions: MacroActions | None = None
    dense: dict[str, float] | None = Field(
        None, description="Of gae: rewards whose steps and spans are credited where they end, by weight, beside the whole"
    )
    reference: ReferenceSchedule | None = None
    teacher: Teacher | None = None
    critic: Critic | None = None
    demonstrations: Demonstrations | None = None
    train_on: TrainOn | None = None
    oversample: Annotated[float, Field(gt=1)] | None = Field(
        None, description="Prompts drawn for each one trained on; those whose rewards differ most are kept"
    )
    mismatch: Mismatch | None = None
    dynamic_sampling: bool | None = Field(None, description="Replace groups whose rewards are all equal by new prompts (DAPO)")
    max_resamples: Positive | None = Field(None, description="Rounds of topping up before a step trains on what it has")
    overlong: Overlong | None = None
    mask_truncated: bool | None = Field(None, description="Leave completions cut at the length limit out of the loss")
