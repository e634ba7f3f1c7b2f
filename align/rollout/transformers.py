"""The rollout engine that samples with the transformers model itself, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from align.errors import RolloutError
from align.rollout.attention import grouped_attention
from align.rollout.decoder import Decoder, Forward, Row
from align.rollout.kv_cache import decode_cache
from align.rollout.limits import room_for
from align.rollout.noise import sample_key
from align.rollout.stopping import StopRule, end_of_sequence_ids
from align.types import Completion, Prompt, Sampling


class TransformersEngine:
    """Samples from a loaded Hugging Face causal language model (a peft model too), which the learner may share.

    A prompt is computed once and its samples decoded from there. At most `max_batch_sequences` sequences are decoded at a
    time; finished ones make room for others. Draws depend on (sampling.seed, prompt.id, sample index) alone; only rounding in
    the model's own arithmetic can differ between batches.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_batch_sequences: int = 256) -> None:
        if max_batch_sequences < 1:
            raise ValueError(f"max_batch_sequences is {max_batch_sequences}, must be at least 1")
        self._model, self._tokenizer, self._max_rows = model, tokenizer, max_batch_sequences
        self._version = 0
        self._closed = False

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield `sampling.n` completions for each prompt, in the order in which they finish.

        Raises RolloutError for a prompt that is empty or leaves no room in the model's context, and for non-finite logits.
        """
        if self._closed:
            raise RolloutError("the rollout engine is closed", fix="make a new engine")
        if not prompts or not sampling.n:
            return
        config, device = self._model.config.get_text_config(decoder=True), next(self._model.parameters()).device
        groups = [self._rows(index, prompt, sampling, config) for index, prompt in enumerate(prompts)]
        # Neighbours of similar length waste little padding; the longest go first, so that what does not fit fails at once.
        groups.sort(key=lambda rows: -len(rows[0].prompt_ids))
        stop = StopRule(self._tokenizer, sampling, end_of_sequence_ids(self._model, self._tokenizer))
        cache = decode_cache(config, device, max(len(rows[0].prompt_ids) + rows[0].limit for rows in groups))
        decoder = Decoder(Forward(self._model), cache, groups, sampling, stop, self._max_rows, device)
        training = self._model.training
        self._model.eval()
        try:
            with grouped_attention(self._model):
                while decoder.busy:
                    for row in decoder.fill() if decoder.wants_rows else decoder.step():
                        yield self._completion(row, stop)
        except torch.OutOfMemoryError as error:
            raise RolloutError(
                f"out of memory while decoding {self._max_rows} sequences: {error}",
                place="rollout.max_batch_sequences",
                fix=f"decode fewer sequences at a time, for example max_batch_sequences: {max(1, self._max_rows // 2)}",
            ) from error
        finally:
            self._model.train(training)

    @torch.no_grad()
    def next_logprobs(self, prompt: Prompt) -> Tensor:
        """logp_V: natural logs of what follows the prompt, at temperature 1 over the full vocabulary, in float32.

        Raises RolloutError for a prompt that is empty or too long.
        """
        self._rows(0, prompt, Sampling(max_tokens=1), self._model.config.get_text_config(decoder=True))
        device, training = next(self._model.parameters()).device, self._model.training
        self._model.eval()
        try:
            ids_BT = torch.tensor([prompt.token_ids], device=device)
            return self._model(ids_BT, use_cache=False, logits_to_keep=1).logits[0, -1].float().log_softmax(-1)
        finally:
            self._model.train(training)

    def publish(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over named weights; those that are the model's own tensors already need no copy.

        Names are those of the model's state dict; an incomplete set (only an adapter) leaves the other weights as they are.
        Raises RolloutError for an unknown name or another shape, before anything was copied.
        """
        own = self._model.state_dict(keep_vars=True)
        copies = []
        for name, tensor in weights:
            if name not in own:
                close = get_close_matches(name, own, n=3)
                raise RolloutError(
                    f"the engine's model has no weight {name!r}", fix=f"names like it: {', '.join(close) or 'none'}"
                )
            if own[name].shape != tensor.shape:
                raise RolloutError(
                    f"weight {name!r} has shape {tuple(tensor.shape)}, the engine's model has {tuple(own[name].shape)}",
                    fix="publish the weights of the same architecture",
                )
            if own[name].data_ptr() != tensor.data_ptr() or own[name].dtype != tensor.dtype:
                copies.append((own[name], tensor))
        with torch.no_grad():
            for target, tensor in copies:
                target.copy_(tensor)
        self._version = version

    def sleep(self) -> None:
        """Hand cached device memory back; caches of keys and values live no longer than a call of `generate` anyway."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def wake(self) -> None:
        """Nothing was put away that has to come back."""

    def close(self) -> None:
        self._closed = True

    def _rows(self, index: int, prompt: Prompt, sampling: Sampling, config: Any) -> list[Row]:
        """The samples of one prompt, before their first token."""
        room = room_for(prompt, getattr(config, "max_position_embeddings", None) or 2**31)
        return [
            Row(
                prompt_index=index,
                sample_index=sample,
                prompt_ids=tuple(prompt.token_ids),
                key=sample_key(sampling.seed, prompt.id, sample),
                limit=min(sampling.max_tokens, room),
                version=self._version,
            )
            for sample in range(sampling.n)
        ]

    @staticmethod
    def _completion(row: Row, stop: StopRule) -> Completion:
        assert row.finish_reason is not None
        return Completion(
            prompt_index=row.prompt_index,
            sample_index=row.sample_index,
            token_ids=tuple(row.token_ids),
            logprobs=tuple(row.logprobs),
            text=stop.text(row.token_ids),
            finish_reason=row.finish_reason,
            weights_version=row.version,
        )
