"""The rollout engine that samples with the transformers model itself, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from align.errors import RolloutError
from align.rollout.attention import grouped_attention
from align.rollout.decoder import Decoder, Forward, Row
from align.rollout.engine import completed, generate_by_steps
from align.rollout.kv_cache import decode_cache
from align.rollout.limits import room_for
from align.rollout.noise import sample_key
from align.rollout.stopping import StopRule, end_of_sequence_ids
from align.types import Completion, Prompt, Request, Sampling, Written


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
        self._closed = self._training = False
        self._decoders: dict[Sampling, Decoder] = {}  # by how they draw; the first one is next

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield `sampling.n` completions for each prompt, in the order in which they finish.

        Raises RolloutError for a prompt that is empty or leaves no room in the model's context, and for non-finite logits.
        """
        return generate_by_steps(self, prompts, sampling)

    def add(self, requests: Sequence[Request]) -> None:
        if self._closed:
            raise RolloutError("the rollout engine is closed", fix="make a new engine")
        longest = getattr(self._config, "max_position_embeddings", None) or 2**31
        groups: dict[tuple[Sampling, tuple[int, ...]], list[Row]] = {}
        for request in requests:
            place = replace(request.sampling, n=1, seed=0, max_tokens=1), request.context
            groups.setdefault(place, []).append(_row(request, longest))
        if groups and not self._decoders:
            self._training = self._model.training
            self._model.eval()
        # Neighbours of similar length waste little padding; the longest go first, so that what does not fit fails at once.
        for (sampling, _), rows in sorted(groups.items(), key=lambda item: -len(item[0][1])):
            if sampling not in self._decoders:
                self._decoders[sampling] = self._decoder(sampling)
            self._decoders[sampling].add([rows])

    def step(self) -> list[tuple[str, Completion]]:
        """As the protocol says. After an error nothing of what was being written is left."""
        if not self._decoders:
            return []
        sampling, decoder = next(iter(self._decoders.items()))
        try:
            with grouped_attention(self._model):
                finished = decoder.fill() if decoder.wants_rows else decoder.step()
        except torch.OutOfMemoryError as error:
            self._give_up()
            raise RolloutError(
                f"out of memory while decoding {self._max_rows} sequences: {error}",
                place="rollout.max_batch_sequences",
                fix=f"decode fewer sequences at a time, for example max_batch_sequences: {max(1, self._max_rows // 2)}",
            ) from error
        except BaseException:
            self._give_up()
            raise
        self._decoders[sampling] = self._decoders.pop(sampling)  # those who sample otherwise are next
        self._forget_idle()
        return [(row.request.name, self._completion(row, decoder.stop)) for row in finished]

    def interrupt(self, names: Iterable[str] | None = None) -> list[Request]:
        chosen = None if names is None else set(names)
        dropped = [
            row
            for decoder in self._decoders.values()
            for row in decoder.drop(lambda row: chosen is None or row.request.name in chosen)
        ]
        self._forget_idle()
        return [replace(row.request, written=self._written(row)) if row.token_ids else row.request for row in dropped]

    @torch.no_grad()
    def next_logprobs(self, prompt: Prompt) -> Tensor:
        """logp_V: natural logs of what follows the prompt, at temperature 1 over the full vocabulary, in float32.

        Raises RolloutError for a prompt that is empty or too long.
        """
        room_for(prompt, getattr(self._config, "max_position_embeddings", None) or 2**31)
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
        running = self.interrupt()
        with torch.no_grad():
            for target, tensor in copies:
                target.copy_(tensor)
        self._version = version
        self.add(running)

    def sleep(self) -> None:
        """Keys and values live no longer than the samples that they belong to; the weights are the learner's."""

    def wake(self) -> None:
        """Nothing was put away that has to come back."""

    def close(self) -> None:
        self.interrupt()
        self._closed = True

    @property
    def _config(self) -> Any:
        return self._model.config.get_text_config(decoder=True)

    def _decoder(self, sampling: Sampling) -> Decoder:
        device = next(self._model.parameters()).device
        stop = StopRule(self._tokenizer, sampling, end_of_sequence_ids(self._model, self._tokenizer))
        cache = decode_cache(self._config, device)
        return Decoder(Forward(self._model), cache, sampling, stop, self._max_rows, device)

    def _give_up(self) -> None:
        """Drop all decoders: a step that breaks off leaves rows in no place from where they could go on."""
        self._decoders = {}
        self._model.train(self._training)

    def _forget_idle(self) -> None:
        """Keys and values of what is finished are not kept; an idle engine leaves the model in the mode it was in."""
        busy = {sampling: decoder for sampling, decoder in self._decoders.items() if decoder.busy}
        if self._decoders and not busy:
            self._model.train(self._training)
        self._decoders = busy

    def _written(self, row: Row) -> Written:
        before = row.request.written.versions if row.request.written else ()
        versions = before + (self._version,) * (len(row.token_ids) - len(before))
        return Written(token_ids=tuple(row.token_ids), logprobs=tuple(row.logprobs), versions=versions)

    def _completion(self, row: Row, stop: StopRule) -> Completion:
        assert row.finish_reason is not None
        return completed(row.request, self._written(row), stop.text(row.token_ids), row.finish_reason)


def _row(request: Request, longest: int) -> Row:
    limit = min(request.sampling.max_tokens, room_for(request.prompt, longest))
    written = request.written
    return Row(
        request=request,
        context=request.context,
        key=sample_key(request.sampling.seed, request.prompt.id, request.sample_index),
        limit=limit,
        token_ids=list(written.token_ids) if written else [],
        logprobs=list(written.logprobs) if written else [],
    )
