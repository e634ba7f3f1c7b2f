"""Weights travel whole: names, shapes, dtypes and bytes, in parts of bounded size; what was changed on the way is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from align.rollout.buckets import Buckets, received


def weights() -> list[tuple[str, torch.Tensor]]:
    torch.manual_seed(0)
    shapes = {"a": (3, 5), "b": (7,), "scalar": (), "empty": (0, 4), "large": (40, 40)}
    return [*((name, torch.randn(shape)) for name, shape in shapes.items()), ("whole", torch.arange(9))]


@pytest.mark.parametrize("largest", [1, 200, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_sent_is_received(largest: int, dtype: torch.dtype) -> None:
    buckets = Buckets(largest)
    try:
        found = [pair for part in buckets.parts(weights(), dtype) for pair in received(part)]
    finally:
        buckets.close()
    assert [name for name, _ in found] == [name for name, _ in weights()]
    for (_, sent), (_, got) in zip(weights(), found, strict=True):
        expected = sent.to(dtype) if sent.is_floating_point() else sent
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert torch.equal(got, expected)


def test_parts_are_bounded_and_use_one_piece_of_memory() -> None:
    buckets = Buckets(2000)
    parts = list(buckets.parts(weights(), torch.float32))
    assert [[piece[0] for piece in part["pieces"]] for part in parts] == [["a", "b", "scalar", "empty"], ["large"], ["whole"]]
    again = list(buckets.parts(weights(), torch.float32))
    assert {part["path"] for part in again} == {parts[-1]["path"]}, "memory that was large enough stays"
    assert [part["sha256"] for part in again] == [part["sha256"] for part in parts]
    buckets.close()
    buckets.close()
    assert not Path(parts[-1]["path"]).exists()


def test_another_process_reads_it_and_no_folder_has_it() -> None:
    buckets = Buckets()
    (part,) = buckets.parts(weights(), torch.float32)
    program = "import json, sys; from align.rollout.buckets import received; print(*dict(received(json.load(sys.stdin))))"
    done = subprocess.run([sys.executable, "-c", program], input=json.dumps(part), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [name for name, _ in weights()]
    assert "deleted" in os.readlink(part["path"]), "whatever ends this process, nothing is left"
    buckets.close()


@pytest.mark.parametrize("change", ["byte", "name", "shape"])
def test_what_was_changed_on_the_way_is_refused(change: str) -> None:
    buckets = Buckets()
    (part,) = buckets.parts(weights(), torch.float32)
    if change == "byte":
        with open(part["path"], "r+b") as file:
            file.seek(5)
            file.write(b"\x00\x01")
    name, kind, shape, offset = part["pieces"][0]
    other = {"name": ("b", kind, shape, offset), "shape": (name, kind, [5, 3], offset), "byte": part["pieces"][0]}[change]
    with pytest.raises(ValueError, match="checksum differs"):
        received({**part, "pieces": [other, *part["pieces"][1:]]})
    buckets.close()
