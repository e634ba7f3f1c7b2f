"""How much of a trained model each rank holds: whole (ZeRO stage 0), or divided by DeepSpeed.

The terms are those of DeepSpeed for weights in float32 (its stage_1_and_2.py and stage3.py): beside the weights, or a rank's
share of them, its optimizer has a copy of that share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from align.learner.ranks import BUCKET
from align.recipe.memory_part import FLOAT32, Part
from align.recipe.schema import Optimization

REDUCE_BUCKET = 500_000_000  # elements of gradients that DeepSpeed sums in one message, and sets aside
LIVE = 1_000_000_000 + 50_000_000  # elements that stage 3 holds gathered: those in use and those fetched ahead
SMALL = 100_000  # elements; smaller parameters stay whole under stage 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Parameters of a model, in elements: all, those that are trained, those in small tensors, and the largest tensor."""

    all: int
    trained: int
    small: int
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """What one of `world` ranks holds of a model that is trained, on its device and on its host, in bytes."""

    stage: int
    world: int
    offload: bool
    on_gpu: bool

    @classmethod
    def of(cls, train: Optimization, world: int, *, on_gpu: bool) -> Sharding:
        return cls(stage=train.zero_stage, world=world, offload=train.offload_optimizer, on_gpu=on_gpu)

    def share(self, elements: int) -> int:
        """float32 of a rank's part."""
        return FLOAT32 * -(-elements // self.world)

    @property
    def kept(self) -> str:
        """How several ranks keep weights, in words."""
        if self.world == 1:
            return ""
        return f", divided between {self.world} ranks" if self.divided else ", whole on every rank"

    @property
    def divided(self) -> bool:
        """Whether no rank ever has a whole model."""
        return self.stage == 3 and self.world > 1

    def weights(self, sizes: Sizes) -> int:
        return self.share(sizes.all) + FLOAT32 * sizes.small if self.stage == 3 else FLOAT32 * sizes.all

    def copy(self, trained: int) -> int:
        """The optimizer's own weights."""
        return self.share(trained) if self.stage else 0

    def moments(self, trained: int) -> int:
        return 2 * (self.share(trained) if self.stage else FLOAT32 * trained)

    def gradients(self, trained: int) -> int:
        """Stage 2 has a rank's share twice when it steps: tensor by tensor and as one."""
        return FLOAT32 * trained if self.stage < 2 else self.share(trained) * (2 if self.stage == 2 else 1)

    def parts(self, sizes: Sizes) -> Iterator[Part]:
        """On the device: weights, the optimizer's copy and moments, gradients, and what is set aside for messages."""
        yield Part(name="weights", bytes=self.weights(sizes), held="always", how=f"{sizes.all:,} x float32{self._divided(3)}")
        how = f"{sizes.trained:,} trained x "
        if not self.offload:
            if self.copy(sizes.trained):
                own = f"{how}float32{self._divided(1)}: DeepSpeed's copy"
                yield Part(name="weights of the optimizer", bytes=self.copy(sizes.trained), held="always", how=own)
            own = f"{how}2 x float32{self._divided(1)}"
            yield Part(name="optimizer (AdamW)", bytes=self.moments(sizes.trained), held="always", how=own)
        if not (self.offload and self.stage >= 2):
            held = "always" if self.stage == 3 else "update"
            own = f"{how}{'2 x ' * (self.stage == 2)}float32{self._divided(2)}"
            yield Part(name="gradients", bytes=self.gradients(sizes.trained), held=held, how=own)
        yield from self.messages(sizes)

    def messages(self, sizes: Sizes) -> Iterator[Part]:
        """Gradients on their way to the other ranks, and weights on their way from them."""
        if self.stage == 0 and self.world > 1:
            elements = min(sizes.trained, BUCKET + sizes.largest)
            yield Part(
                name="messages", bytes=FLOAT32 * elements, held="update", how=f"{elements:,} gradients x float32 at a time"
            )
        if self.stage:
            elements = REDUCE_BUCKET if self.on_gpu else min(REDUCE_BUCKET, sizes.trained)
            held = "always" if self.stage == 3 else "update"
            yield Part(name="messages", bytes=FLOAT32 * elements, held=held, how=f"{elements:,} gradients x float32, set aside")
        if self.stage == 3:
            elements = min(LIVE, sizes.all - sizes.small)
            how = f"{elements:,} x float32, whole while they are used"
            yield Part(name="gathered weights", bytes=FLOAT32 * elements, held="update", how=how)

    def host(self, trained: int) -> int:
        """On the host: what `offload_optimizer` puts there, with gradients and new weights on their way."""
        return self.copy(trained) + self.moments(trained) + 2 * self.share(trained) if self.offload else 0

    def _divided(self, stage: int) -> str:
        return f" / {self.world} ranks" if self.stage >= stage and self.world > 1 else ""
