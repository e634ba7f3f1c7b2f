"""The samples of a report: everything that was recorded, or a fair part of it, in a file of bounded size."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

import align
from align.report.page_file import page
from align.report.record import read_run
from align.report.room import blocks_within
from align.report.samples import MOST_CHARACTERS, SampleFile, read_block, sample_files, spread_out
from align.run.directory import RunDirectory
from align.types import Group
from tests.report.conftest import MakeRun, group_of, tokens_of


def files_of(path: Path) -> list[SampleFile]:
    return sample_files(0, read_run(path))


def unpacked(part: bytes | None) -> Any:
    assert part is not None
    return json.loads(gzip.decompress(part))


def test_a_block_holds_what_was_recorded(make_run: MakeRun) -> None:
    files = files_of(make_run())
    assert [file.origin for file in files] == ["before", "after", *["training"] * 12]
    block = read_block(files[7])
    assert block is not None
    index, texts, tokens = block.index, unpacked(block.texts), unpacked(block.tokens)
    assert (index["step"], index["groups"], index["sources"], index["total"]) == (6, [2, 2], ["sums", "more"], 4)
    assert (index["reward"], index["advantage"], index["cut"], index["tokens"]) == (
        [1, 0, 0, 0],
        [1, -1, 0, 0],
        [0, 1, 1, 1],
        [1] * 4,
    )
    assert index["verdicts"] == {"task": ["pass", "fail", "fail", "fail"]}
    assert texts["prompts"] == ["What is 6+0?", "What is 6+1?"]
    assert texts["completions"][:2] == ["so 6", "no idea"]
    assert texts["details"]["task"][1] == "right is 6"
    assert tokens["text"][0] == ["so", " 6", "<|end|>"]
    numbers = [x if x is None else x * tokens["units"]["difference"] for x in tokens["difference"][0]]
    assert numbers == [pytest.approx(1e-6, rel=0.03), pytest.approx(-2e-6, rel=0.03), None]  # as exact as half floats
    assert read_block(files[6]) is not None
    assert unpacked(read_block(files[0]).texts)["answers"] == ["7"] * 20  # type: ignore[union-attr]


def test_samples_of_a_prompt_stand_together_also_when_some_were_not_trained_on(
    make_run: MakeRun, resolve_run: RunDirectory
) -> None:
    first, second = group_of(1, 0, [True, False]), group_of(1, 1, [True])
    rest = group_of(1, 0, [False])
    resolve_run.write_rollouts(1, [first, second], [[1.0, -1.0], [0.0]], [rest], [tokens_of(first), tokens_of(second)])
    (file,) = files_of(resolve_run.path)
    block = read_block(file)
    assert block is not None
    assert block.index["groups"] == [3, 1]
    assert block.index["used"] == [1, 1, 0, 1]
    assert block.index["tokens"] == [1, 1, 0, 1]
    assert [text is None for text in unpacked(block.tokens)["text"]] == [False, False, True, False]


def long_group(step: int, number: int) -> Group:
    """A prompt whose samples do not compress well."""
    group = group_of(step, number, [True, False])
    for sample in group.samples:
        text = str(random.Random(f"{step} {number} {sample.rollout.completion.sample_index}").getrandbits(2000))
        object.__setattr__(sample.rollout.completion, "text", text)
    return group


@pytest.fixture
def resolve_run(make_run: MakeRun) -> RunDirectory:
    """The directory of a run without rollouts or evaluations."""
    path = make_run(rollouts=False)
    for file in (path / "eval").iterdir():
        file.unlink()
    run = RunDirectory.__new__(RunDirectory)
    run.path, run.rollouts = path, path / "rollouts"
    return run


def test_a_share_takes_whole_prompts_at_even_distances() -> None:
    assert spread_out(list(range(10)), 0.5) == [0, 2, 4, 6, 8]
    assert spread_out(list(range(10)), 0.01) == [0]
    assert spread_out(list(range(10)), 1.0) == list(range(10))
    assert spread_out([], 0.5) == []


def test_where_there_is_no_room_every_step_gives_the_same_share(resolve_run: RunDirectory) -> None:
    for step in range(1, 31):
        groups = [long_group(step, number) for number in range(20)]
        resolve_run.write_rollouts(
            step, groups, [[1.0, -1.0]] * 20, (), [tokens_of(group) for group in groups] if step % 3 == 0 else None
        )
    files = files_of(resolve_run.path)
    whole = blocks_within(files, 1e9)
    texts, tokens = (sum(len(getattr(block, part) or b"") for block in whole) for part in ("texts", "tokens"))
    assert sum(len(block.index["sample"]) for block in whole) == 1200
    room = (texts + tokens) / 2
    cut = blocks_within(files, room)
    assert sum(len(block.texts) + len(block.tokens or b"") for block in cut) <= room * 1.1
    assert {len(block.index["groups"]) for block in cut} == {len(cut[0].index["groups"])}
    assert 0 < len(cut[0].index["groups"]) < 20
    assert all(size == 2 for block in cut for size in block.index["groups"])  # groups are never cut
    assert 0 < sum(block.tokens is not None for block in cut) <= 10


def test_very_long_texts_keep_their_start_and_end(resolve_run: RunDirectory) -> None:
    group = group_of(1, 0, [True])
    completion = group.samples[0].rollout.completion
    object.__setattr__(completion, "text", "start" + "x" * 3 * MOST_CHARACTERS + "end")
    resolve_run.write_rollouts(1, [group], [[1.0]])
    block = read_block(files_of(resolve_run.path)[0])
    assert block is not None
    (text,) = unpacked(block.texts)["completions"]
    assert text.startswith("startx")
    assert text.endswith("xend")
    assert "40,008 characters left out" in text


def test_the_file_is_whole_and_names_no_other_place(make_run: MakeRun) -> None:
    written = align.report(make_run())
    html = written.path.read_text()
    assert written.path.name == "report.html"
    assert (written.shown, written.samples, written.bytes) == (208, 208, len(html.encode()))
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", html)
    assert "default-src 'none'" in html
    assert "connect-src 'none'" in html
    parts = dict(re.findall(r'<script type="text/plain" id="part-(.*?)">(.*?)</script>', html))
    assert {"overview", "index", "0-step-000006-tokens", "0-before-held-out-texts"} <= set(parts)
    assert unpacked(base64.b64decode(parts["overview"]))["samples"] == 208


def test_a_name_cannot_become_markup() -> None:
    assert "<title>a&lt;script&gt;%% - align report</title>" in page("a<script>%%", {})


def test_the_default_file_of_several_and_a_chosen_one(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a", rollouts=False), make_run("b", rollouts=False)]
    assert align.report(runs).path == runs[0] / "comparison.html"
    assert align.report(runs, tmp_path / "x.html").path.stat().st_size > 10_000


def test_the_command_says_what_it_wrote(make_run: MakeRun) -> None:
    from typer.testing import CliRunner

    from align.cli import app

    run = make_run()
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(run / "x.html")])
    assert done.exit_code == 0
    assert re.fullmatch(rf"wrote {re.escape(str(run))}/x\.html: 0\.\d MB, 208 samples\n", done.output)
