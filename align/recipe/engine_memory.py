"""What a rollout engine holds on a device: weights, keys and values of the longest sequences, and a sampler's tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from align.recipe.evaluation import evaluation_sampling
from align.recipe.hardware import Hardware
from align.recipe.memory_part import FLOAT32, Part, width_of
from align.recipe.model_shape import ModelShape
from align.recipe.placement import shards
from align.recipe.schema import Evaluation, OnlinePreferenceRecipe, Recipe, RLRecipe
from align.recipe.schema.sections import Rollout

SAMPLER_COPIES = 4  # [rows, vocabulary] of float32: logits, the same by temperature, probabilities, their running sums
SORTED_COPIES = 8  # with top_k or top_p also sorted, with their order (int64), and filtered
OTHER_BATCH = 256  # sequences an engine decodes at a time where the recipe has no rollout section
VLLM_WORK = 2 << 30  # bytes of a GPU that vLLM needs beside weights and cache: activations and CUDA graphs, about this much


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Sequences that an engine decodes at a time, how long each may get, and copies of their logits that a draw makes."""

    what: str
    sequences: int
    length: int
    copies: int


def decodings(recipe: Recipe) -> Iterator[Decoding]:
    """Of the training steps and of the evaluations, those that the recipe has; engines share the sequences."""
    prompt, rollout, engines = recipe.data.max_prompt_length, None, max(1, recipe.launch.engines)
    if isinstance(recipe, RLRecipe | OnlinePreferenceRecipe):
        rollout = recipe.rollout
        at_once = 1 + {"sync": 0, "overlap": 0, "async": rollout.max_staleness}[rollout.mode]  # steps whose samples are written
        samples = at_once * recipe.train.prompts_per_step * rollout.num_generations
        yield Decoding(
            what="rollouts",
            sequences=min(rollout.max_batch_sequences, -(-samples // engines)),
            length=prompt + rollout.max_completion_length,
            copies=SORTED_COPIES if rollout.top_k or rollout.top_p < 1 else SAMPLER_COPIES,
        )
    if isinstance(evaluation := recipe.evaluate, Evaluation):
        most = rollout.max_batch_sequences if rollout else OTHER_BATCH
        samples = -(-evaluation.max_problems * evaluation.num_generations // engines) if evaluation.max_problems else most
        yield Decoding(
            what="evaluation",
            sequences=min(most, samples),
            length=prompt + evaluation_sampling(recipe, evaluation).max_tokens,
            copies=SORTED_COPIES if evaluation.top_p < 1 else SAMPLER_COPIES,
        )


def transformers_parts(recipe: Recipe, shape: ModelShape, *, own_process: bool) -> list[Part]:
    """Weights, where they are not those of the learner, and the cache and logits of whichever decoding needs more."""
    width = width_of(recipe.model.dtype)
    parts = []
    if own_process or (isinstance(recipe, RLRecipe | OnlinePreferenceRecipe) and _copies(recipe)):
        how = f"{shape.sizes.all:,} x {recipe.model.dtype}: a copy that is published to"
        parts.append(Part(name="weights of the engine", bytes=width * shape.sizes.all, held="always", how=how))
    return parts + max((_decoding(one, shape, width) for one in decodings(recipe)), key=lambda both: sum(p.bytes for p in both))


def _copies(recipe: RLRecipe | OnlinePreferenceRecipe) -> bool:
    """Whether the engine beside the learner cannot take the learner's own model."""
    return recipe.model.dtype == "bfloat16" or recipe.train.zero_stage == 3 or recipe.rollout.mode != "sync"


def _decoding(decoding: Decoding, shape: ModelShape, width: int) -> list[Part]:
    rows, length, copies = decoding.sequences, decoding.length, decoding.copies
    per_token = shape.cache * width // FLOAT32
    how = f"{decoding.what}: {rows} sequences x {length} tokens x {per_token:,} bytes"
    cache = Part(name="key-value cache", bytes=rows * length * per_token, held="generate", how=how)
    how = f"{decoding.what}: {copies} copies of {rows} x {shape.vocabulary} logits"
    return [cache, Part(name="sampler", bytes=copies * FLOAT32 * rows * shape.vocabulary, held="generate", how=how)]


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMShare:
    """Bytes of one device of a vLLM engine, and how many of the longest sequences its cache has room for at a time."""

    weights: int
    cache: int
    work: int
    sequences: int
    wanted: int
    length: int


def vllm_share(recipe: Recipe, rollout: Rollout, shape: ModelShape, where: Hardware) -> VLLMShare:
    settings, width, parts = rollout.vllm, width_of(recipe.model.dtype), shards(rollout)
    weights = width * shape.plain // parts
    if settings.kv_cache_gib is not None or not where.is_gpu:
        work, cache = (VLLM_WORK if where.is_gpu else 0), int((settings.kv_cache_gib or 1.0) * 2**30)
    else:
        work = VLLM_WORK
        cache = int(settings.gpu_memory_utilization * where.memory) - weights - work
    per_token = shape.cache * width // FLOAT32 // min(parts, shape.shared_heads)
    longest = max(decodings(recipe), key=lambda one: one.length)
    wanted = max(one.sequences for one in decodings(recipe))
    room = max(0, cache) // (per_token * longest.length)
    return VLLMShare(weights=weights, cache=cache, work=work, sequences=room, wanted=wanted, length=longest.length)


def vllm_parts(recipe: Recipe, rollout: Rollout, share: VLLMShare, *, sleeps: bool) -> Iterator[Part]:
    """What vLLM takes at once and keeps; one that sleeps gives it back while the learner works."""
    held, parts = "generate" if sleeps else "always", shards(rollout)
    divided = f" / {parts} devices" if parts > 1 else ""
    yield Part(name="vLLM: weights", bytes=share.weights, held=held, how=f"{recipe.model.dtype}{divided}")
    how = f"room for {share.sequences:,} sequences of {share.length} tokens, up to {share.wanted} are asked for at a time"
    yield Part(name="vLLM: key-value cache", bytes=max(0, share.cache), held=held, how=how)
    if share.work:
        yield Part(name="vLLM: passes", bytes=share.work, held=held, how="activations and CUDA graphs, about this much")
