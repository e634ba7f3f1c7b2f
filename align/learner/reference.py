"""Log-probs under the reference: asked once, kept on the disk by the content of model and tokens."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.learner.packing import Batch
from align.learner.partition import whole
from align.learner.preference_batch import PromptAndCompletion, pack_sequences, sequence_sums
from align.storage import storage_errors

Ask = Callable[[Batch], Tensor]  # batch -> logp_N

CHUNK_TOKENS = 1 << 16  # tokens between two writes to the disk
CHECKED = 4  # stored values that are computed again before any is trusted
TOLERANCE = 0.01  # nats a token between two computations of a log-prob; bfloat16 rounds to about that


class Reference:
    """log p(completion | prompt) of a frozen model, for a run and its resumes.

    Every value is appended to `folder`/<hash of the model>.txt as soon as it is known, one line each with a checksum: a run that
    was killed goes on from there, runs of the same model can share the folder, and a line that is damaged is computed again.
    """

    def __init__(self, folder: Path, model: str, ask: Ask, *, writes: bool = True) -> None:
        """`model` is the `fingerprint` of what `ask` computes log-probs with. Of several ranks one `writes`."""
        self.path = folder / f"{model[:32]}.txt"
        self._ask, self._writes = ask, writes
        self._known = _read(self.path)

    def sums(self, sequences: Sequence[PromptAndCompletion]) -> Tensor:
        """Log-probs of completions that the reference was asked for before."""
        return torch.tensor([self._known[_key(one)] for one in sequences])

    def missing(self, sequences: Sequence[PromptAndCompletion]) -> int:
        """How many of these are not known yet."""
        return len({_key(one) for one in sequences} - self._known.keys())

    def ask(self, sequences: Sequence[PromptAndCompletion], on_progress: Callable[[int], None] = lambda _: None) -> None:
        """Find out what is not known yet. `on_progress` hears of so many more being known."""
        unknown = {key: one for one in sequences if (key := _key(one)) not in self._known}
        for chunk in _chunks(unknown):
            self._store(dict(zip(chunk, self._compute(list(chunk.values())), strict=True)))
            on_progress(len(chunk))

    def verify(self, sequences: Sequence[PromptAndCompletion]) -> bool:
        """Compute some of the stored values again; where they differ, forget them all. Returns whether they agreed."""
        stored = [one for one in sequences if _key(one) in self._known][:CHECKED]
        again = self._compute(stored) if stored else []
        agreed = [
            abs(value - self._known[_key(one)]) <= TOLERANCE * len(one[1]) for one, value in zip(stored, again, strict=True)
        ]
        if not all(agreed):
            self._known = {}
            if self._writes:
                with storage_errors(self.path):
                    self.path.unlink(missing_ok=True)
        return all(agreed)

    def _compute(self, sequences: Sequence[PromptAndCompletion]) -> list[float]:
        batch = pack_sequences(sequences, range(len(sequences)))
        return sequence_sums(self._ask(batch), batch).tolist()

    def _store(self, values: Mapping[str, float]) -> None:
        self._known |= values
        if not self._writes:
            return
        lines = [f"{key} {value!r}" for key, value in values.items()]
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                # The line break comes first: what a killed writer left of a line stays a line of its own.
                file.write("".join(f"\n{line} {_checksum(line)}" for line in lines))


def fingerprint(causal_lm: Any, dtype: str) -> str:
    """A hash of the weights, adapters left out, and of the precision they are computed in.

    All ranks call: of divided weights one is gathered at a time.
    """
    digest = hashlib.sha256(dtype.encode())
    for name, parameter in causal_lm.named_parameters():
        if "lora_" not in name:
            weight = whole(parameter)
            digest.update(str(tuple(weight.shape)).encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, float]:
    """The lines that are whole."""
    known: dict[str, float] = {}
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        content, _, checksum = line.rpartition(" ")
        if checksum == _checksum(content):
            key, _, value = content.partition(" ")
            known[key] = float(value)
    return known


def _key(sequence: PromptAndCompletion) -> str:
    return hashlib.sha256(repr(sequence).encode()).hexdigest()[:32]


def _checksum(content: str) -> str:
    return f"{zlib.crc32(content.encode()):08x}"


def _chunks(sequences: Mapping[str, PromptAndCompletion]) -> Iterator[dict[str, PromptAndCompletion]]:
    """Parts of about CHUNK_TOKENS tokens, the longest sequences first: what does not fit into memory fails at once."""
    chunk: dict[str, PromptAndCompletion] = {}
    tokens = 0
    for key, one in sorted(sequences.items(), key=lambda item: -sum(map(len, item[1]))):
        chunk[key] = one
        tokens += sum(map(len, one))
        if tokens >= CHUNK_TOKENS:
            yield chunk
            chunk, tokens = {}, 0
    if chunk:
        yield chunk
