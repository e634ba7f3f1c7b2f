"""The decode loop: prompts are computed once, their samples decoded together, finished rows leave and waiting ones join."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align.errors import RolloutError
from align.rollout.draw import draw
from align.rollout.kv_cache import Block, DecodeCache
from align.rollout.noise import uniforms
from align.rollout.stopping import StopRule
from align.types import FinishReason, Request, Sampling

_PREFILL_TOKENS = 8192  # prompts computed in one forward pass, padding included


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One sample on its way. `token_ids` and `logprobs` begin with what was written of it before."""

    request: Request
    context: tuple[int, ...]  # the tokens that its next one follows, of the request as it came
    key: int  # names the sample to the random numbers
    limit: int  # tokens it may have
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason | None = None


class Forward:
    """The model's forward pass, reduced to the logits of the last position."""

    def __init__(self, model: Any) -> None:
        self._model = model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        accepted = inspect.signature(base.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._positions = "position_ids" in accepted
        self._past_name = "past_key_values" if "past_key_values" in accepted else "cache_params"  # the latter: Mamba

    def __call__(self, input_ids: Tensor, mask: Tensor, position_ids: Tensor, past: Any) -> Tensor:
        """Logits [rows, vocabulary] after the last of `input_ids` [rows, columns]."""
        inputs = {"position_ids": position_ids, self._past_name: past} if self._positions else {self._past_name: past}
        if self._past_name == "past_key_values" or input_ids.shape[1] > 1:
            inputs["attention_mask"] = mask  # a Mamba step has no columns to mask, and would multiply by all of them
        output = self._model(input_ids=input_ids, use_cache=True, **inputs, **self._options)
        return output.logits[:, -1]


class Decoder:
    """Decodes the samples of many prompts, at most `max_rows` at a time.

    Call `fill` when there is room and `step` otherwise, until `busy` is false; both return the rows that finished.
    """

    def __init__(
        self,
        forward: Forward,
        cache: DecodeCache,
        sampling: Sampling,
        stop: StopRule,
        max_rows: int,
        device: torch.device,
    ) -> None:
        self.stop = stop
        self._forward, self._cache, self._sampling = forward, cache, sampling
        self._max_rows, self._device = max_rows, device
        self._waiting: deque[list[Row]] = deque()
        self._block: tuple[Block, Tensor, deque[tuple[int, Row]]] | None = None  # computed, not all placed: its rows and logits
        self._remaining = 0
        self._rows: list[Row] = []
        self._token_R = torch.zeros(0, dtype=torch.long, device=device)
        self._position_R = torch.zeros(0, dtype=torch.long, device=device)

    def add(self, groups: Iterable[list[Row]]) -> None:
        """Rows that wait for room; those of a group follow the same context."""
        for rows in groups:
            self._waiting.append(rows)
            self._remaining += len(rows)
            self._cache.max_width = max(
                self._cache.max_width, *(len(row.context) + row.limit - len(row.token_ids) for row in rows)
            )

    def drop(self, leaves: Callable[[Row], bool]) -> list[Row]:
        """Stop decoding the rows of which `leaves` is true; returns them as far as they are written."""
        dropped = [row for rows in self._waiting for row in rows if leaves(row)]
        self._waiting = deque(kept for rows in self._waiting if (kept := [row for row in rows if not leaves(row)]))
        if self._block:
            block, logits_PV, pending = self._block
            dropped += [row for _, row in pending if leaves(row)]
            pending = deque((source, row) for source, row in pending if not leaves(row))
            self._block = (block, logits_PV, pending) if pending else None
        if gone := [index for index, row in enumerate(self._rows) if leaves(row)]:
            dropped += [self._rows[index] for index in gone]
            self._take_out(gone)
        self._remaining -= len(dropped)
        return dropped

    @property
    def busy(self) -> bool:
        return bool(self._remaining)

    @property
    def wants_rows(self) -> bool:
        """Whether joining rows are worth a pass over their prompts: an eighth of the batch is free, or all of it."""
        waits = self._remaining > len(self._rows)
        if not self._cache.refillable:
            return waits and not self._rows
        return waits and (not self._rows or (self._max_rows - len(self._rows)) * 8 >= self._max_rows)

    @torch.no_grad()
    def fill(self) -> list[Row]:
        """Let rows join while there is room; returns those that their first token finished."""
        finished: list[Row] = []
        self._cache.expected_rows = min(self._max_rows, self._remaining)
        while self._remaining > len(self._rows) + len(finished) and (free := self._max_rows - len(self._rows)):
            if self._rows and not self._cache.refillable:
                break
            block, logits_PV, pending = self._block or self._compute_prompts(free)
            joining = [pending.popleft() for _ in range(min(free, len(pending)))]
            self._block = (block, logits_PV, pending) if pending else None
            finished += self._join(block, logits_PV, joining)
        self._remaining -= len(finished)
        return finished

    @torch.no_grad()
    def step(self) -> list[Row]:
        """One more token for every row; returns those that it finished."""
        self._cache.expected_rows = min(self._max_rows, self._remaining)
        mask = self._cache.mask()
        logits_RV = self._forward(self._token_R[:, None], mask, self._position_R[:, None], self._cache.past)
        self._cache.advance()
        self._token_R = self._extend(self._rows, logits_RV)
        self._position_R += 1
        gone = [index for index, row in enumerate(self._rows) if row.finish_reason]
        if not gone:
            return []
        finished = [self._rows[index] for index in gone]
        self._remaining -= len(gone)
        self._take_out(gone)
        return finished

    def _take_out(self, gone: Sequence[int]) -> None:
        """These rows need their places no longer."""
        kept = self._cache.remove(gone)
        self._rows = [self._rows[index] for index in kept]
        index = torch.tensor(kept, dtype=torch.long, device=self._device)
        self._token_R, self._position_R = self._token_R[index], self._position_R[index]

    def _compute_prompts(self, free: int) -> tuple[Block, Tensor, deque[tuple[int, Row]]]:
        """One forward pass over the next prompts, as many as have room."""
        groups = [self._waiting.popleft()]
        width, samples = len(groups[0][0].context), len(groups[0])
        while self._waiting and samples < free:
            width = max(width, len(self._waiting[0][0].context))
            if width * (len(groups) + 1) > _PREFILL_TOKENS:
                break
            groups.append(self._waiting.popleft())
            samples += len(groups[-1])
        lengths = tuple(len(rows[0].context) for rows in groups)
        width = max(lengths)
        ids = [[0] * (width - len(rows[0].context)) + list(rows[0].context) for rows in groups]
        column_C = torch.arange(width, device=self._device)
        position_PC = column_C - (width - torch.tensor(lengths, device=self._device))[:, None]
        past = self._cache.new_block()
        logits_PV = self._forward(torch.tensor(ids, device=self._device), position_PC >= 0, position_PC.clamp(min=0), past)
        pending = deque((source, row) for source, rows in enumerate(groups) for row in rows)
        return Block(past=past, lengths=lengths), logits_PV, pending

    def _join(self, block: Block, logits_PV: Tensor, joining: Sequence[tuple[int, Row]]) -> list[Row]:
        """Draw the first tokens of rows from their prompts' logits and place those that go on; returns the others."""
        token_B = self._extend([row for _, row in joining], logits_PV[[source for source, _ in joining]])
        going_on = [index for index, (_, row) in enumerate(joining) if not row.finish_reason]
        if going_on:
            sources = [joining[index][0] for index in going_on]
            self._cache.place(block, sources)
            self._rows += [joining[index][1] for index in going_on]
            position_B = torch.tensor([block.lengths[source] for source in sources], device=self._device)
            self._token_R = torch.cat((self._token_R, token_B[going_on]))
            self._position_R = torch.cat((self._position_R, position_B))
        return [row for _, row in joining if row.finish_reason]

    def _extend(self, rows: Sequence[Row], logits_RV: Tensor) -> Tensor:
        """Draw the next token of each row, note it, and see whether it ends the row; returns the tokens."""
        key_R = np.fromiter((row.key for row in rows), np.uint64, len(rows))
        drawn_R = np.fromiter((len(row.token_ids) for row in rows), np.uint64, len(rows))
        uniform_R = torch.from_numpy(uniforms(key_R, drawn_R)).to(self._device)
        token_R, logprob_R = draw(logits_RV, uniform_R, self._sampling)
        logprobs = logprob_R.tolist()
        if not math.isfinite(sum(logprobs)):
            raise RolloutError(
                "the model's logits are not finite",
                fix="the weights or the dtype are broken: check the learning rate and the loss of the last steps, or use float32",
            )
        for row, token_id, logprob in zip(rows, token_R.tolist(), logprobs, strict=True):
            row.token_ids.append(token_id)
            row.logprobs.append(logprob)
            if self.stop.ends(row.token_ids):
                row.finish_reason = "stop"
            elif len(row.token_ids) == row.limit:
                row.finish_reason = "length"
        return token_R
