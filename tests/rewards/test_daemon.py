"""Functions of the user's own that never come back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align.recipe.schema import RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.daemon import DaemonThread
from align.rewards.scorer import Scorer
from align.types import Rollout

Make = Callable[..., Rollout]

SOURCE = """
import time
from align.rewards.verdict import Verdict

def hangs(completions, **kwargs):
    time.sleep(600)

async def blocks(completions, **kwargs):
    time.sleep(600)

class Slow:
    def score(self, rollouts):
        time.sleep(0.4)
        return [Verdict.passed()] * len(rollouts)

class Hangs:
    def score(self, rollouts):
        time.sleep(600)
    def close(self):
        time.sleep(600)
"""
PROGRAM = """
import sys, time
from align.recipe.schema import RewardSpec
from align.rewards.compose import RewardStack
from align.rewards.scorer import Scorer
from align.types import Completion, Prompt, Rollout

completion = Completion(prompt_index=0, sample_index=0, token_ids=(), logprobs=(), text="x", finish_reason="stop")
rollout = Rollout(prompt=Prompt(id="0", messages=({"role": "user", "content": "q"},), token_ids=()), completion=completion)
with Scorer(RewardStack([RewardSpec(use=use) for use in sys.argv[1:]])) as scorer:
    scorer.submit([rollout])
    time.sleep(0.3)
print("closed", flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


def test_a_synchronous_score_leaves_the_event_loop(file: str, rollout: Make) -> None:
    specs = [RewardSpec(use=f"{file}:Slow", name=name) for name in ("one", "two")]
    with Scorer(RewardStack(specs)) as scorer:
        started = time.monotonic()
        assert scorer.submit([rollout("x")]).result(timeout=10)[0].reward == 2.0
        assert time.monotonic() - started < 0.7, "both worked at the same time"


@pytest.mark.parametrize("names", [["hangs"], ["Hangs"], ["blocks"], ["hangs", "Hangs"]])
def test_what_hangs_keeps_neither_the_scorer_nor_the_process(file: str, names: list[str]) -> None:
    uses = [f"{file}:{name}" for name in names]
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *uses], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
    assert time.monotonic() - started < 20  # half of it for imports


@pytest.mark.parametrize("raised", [StopIteration("no more"), SystemExit(3), KeyboardInterrupt()])
def test_what_asyncio_cannot_carry_is_an_ordinary_error(
    rollout: Make, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    def judge(completions: list[str], **columns: object) -> list[float]:
        raise raised

    monkeypatch.setattr(sys.modules[__name__], "judge", judge, raising=False)
    with Scorer(RewardStack([RewardSpec(use=f"{__name__}.judge", name="it")])) as scorer:
        verdict = scorer.submit([rollout("x")]).result(timeout=10)[0].verdicts["it"]
    assert type(raised).__name__ in verdict.detail


def test_one_call_at_a_time_in_order_and_what_waits_can_be_cancelled() -> None:
    thread, gate = DaemonThread("one"), threading.Event()
    seen: list[int] = []
    first = thread.submit(gate.wait, 10)
    later = [thread.submit(seen.append, number) for number in range(3)]
    assert later[1].cancel()
    gate.set()
    assert first.result(10)
    later[2].result(10)
    assert seen == [0, 2]
    gate.clear()
    thread.submit(gate.wait, 10)
    waiting = thread.submit(seen.append, 3)
    thread.shutdown(cancel_futures=True)
    gate.set()
    assert waiting.cancelled()
    assert seen == [0, 2]
