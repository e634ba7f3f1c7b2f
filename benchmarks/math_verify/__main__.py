"""The math reward and math-verify alone on labelled answers: who is right, and how fast. README.md explains."""

import argparse
import asyncio
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cases import FILES, Case, read
from math_verify import parse, verify

from align.rewards.math import MathParams, MathReward
from align.types import Completion, Prompt, Rollout

PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`accepted` of each case, and the seconds all took; the start of the processes is not counted."""

    accepted: list[bool]
    seconds: float


def by_align(cases: list[Case]) -> Result:
    rollouts = [_rollout(case) for case in cases]
    reward = MathReward("math", MathParams(workers=PROCESSES))
    try:
        asyncio.run(reward.score([_rollout(Case(gold="1", text="1", correct=True))] * 8))
        begin = time.perf_counter()
        verdicts = asyncio.run(reward.score(rollouts))
        seconds = time.perf_counter() - begin
    finally:
        reward.close()
    return Result(accepted=[one is not None and one.value == 1.0 for one in verdicts], seconds=seconds)


def by_math_verify(cases: list[Case]) -> Result:
    """As its page says: parse both, then verify, with its own time limits."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        list(pool.map(_verified, [("1", "1")] * 8))
        begin = time.perf_counter()
        accepted = list(pool.map(_verified, [(case.gold, case.text) for case in cases], chunksize=8))
        return Result(accepted=accepted, seconds=time.perf_counter() - begin)


def report(name: str, cases: list[Case], result: Result) -> str:
    wrong_accepts = sum(got and not case.correct for got, case in zip(result.accepted, cases, strict=True))
    wrong_rejects = sum(case.correct and not got for got, case in zip(result.accepted, cases, strict=True))
    accuracy = 1 - (wrong_accepts + wrong_rejects) / len(cases)
    rate = len(cases) / result.seconds
    return f"{name} | {len(cases)} | {accuracy:.1%} | {wrong_accepts} | {wrong_rejects} | {rate:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("ALIGN_TEST_DATA"), help="folder with math_cases/")
    parser.add_argument("--rows", type=int, help="only the first rows of each file")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is missing, and ALIGN_TEST_DATA is not set")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        "| file | judge | answers | accuracy | wrong accepts | wrong rejects | answers a second |\n|---|---|---|---|---|---|---|"
    )
    for file in FILES:
        cases = read(arguments.data / "math_cases" / file, arguments.rows)
        for judge, judged in (("align", by_align), ("math-verify", by_math_verify)):
            print(report(f"| {file.partition('.')[0]} | {judge}", cases, judged(cases)), flush=True)


def _verified(pair: tuple[str, str]) -> bool:
    gold, text = pair
    if "$" not in gold and "\\boxed" not in gold:
        gold = f"${gold}$"  # else it would read a reference in LaTeX as plain text
    try:
        return bool(verify(parse(gold), parse(text)))
    except Exception:  # noqa: BLE001  whatever it raises, it did not accept
        return False


def _rollout(case: Case) -> Rollout:
    completion = Completion(prompt_index=0, sample_index=0, token_ids=(1,), logprobs=(0.0,), text=case.text, finish_reason="stop")
    prompt = Prompt(id="d:0", messages=(), token_ids=(1,), answer=case.gold, columns={})
    return Rollout(prompt=prompt, completion=completion)


if __name__ == "__main__":
    main()
