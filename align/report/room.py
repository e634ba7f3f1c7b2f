"""Which samples a file has room for: the same share of the prompts of every step and evaluation, whatever they hold."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from align.report.samples import TRAINING, Block, SampleFile, read_block, spread_out

_TRIED = 12  # files that are read to learn how large samples are
_TOKEN_SHARE = 1 / 3  # of the room, that tokens may take from texts
_CAUTION = 0.95  # the rest may be larger than those that were tried


def blocks_within(files: Sequence[SampleFile], room: float) -> list[Block]:
    """The blocks of all files, in about `room` bytes.

    Where they do not fit, of each file the same share of the prompts is taken, at even distances and with all their samples; the
    tokens of whole files go first.
    """
    rows, bearing = {}, []
    for file in files:
        rows[file.name], has_tokens = _rows(file)
        bearing += [file] if has_tokens else []
    tried = [block for file in _some(files) if (block := read_block(file, tokens=False))]
    if not tried:
        return []
    each = sum(len(block.texts) for block in tried) / sum(block.index["total"] for block in tried)
    texts = each * sum(rows.values())
    share = min(1.0, _CAUTION * room * (1 - _TOKEN_SHARE) / texts) if texts > room * (1 - _TOKEN_SHARE) else 1.0
    with_tokens = _with_tokens(bearing, share, room - share * texts)
    read = (read_block(file, share, tokens=file.name in with_tokens) for file in files)
    return [block for block in read if block is not None]


def _with_tokens(bearing: Sequence[SampleFile], share: float, room: float) -> set[str]:
    """The names of the files whose tokens have room."""
    sizes = [len(block.tokens or b"") for file in _some(bearing, 4) if (block := read_block(file, share))]
    if not sizes:
        return set()
    fitting = _CAUTION * room / (fmean(sizes) * len(bearing))
    if fitting >= 1:
        return {file.name for file in bearing}
    count = int(fitting * len(bearing))
    return {bearing[index * len(bearing) // count].name for index in range(count)}


def _some(files: Sequence[SampleFile], most: int = _TRIED) -> list[SampleFile]:
    return spread_out(files, min(1.0, most / max(len(files), 1)))


def _rows(file: SampleFile) -> tuple[int, bool]:
    """How many samples a file holds, and whether token by token."""
    if file.origin != TRAINING:
        with file.path.open("rb") as lines:
            return sum(1 for _ in lines), False
    import pyarrow.parquet as pq  # only runs with rollouts need it

    with pq.ParquetFile(file.path) as parquet:
        return parquet.metadata.num_rows, "tokens/text" in parquet.schema_arrow.names
