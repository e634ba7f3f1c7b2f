"""What decontamination finds of planted copies, and what the data tools cost on a million rows.

    python benchmarks/data_tools --train gsm8k_train.jsonl.gz --against gsm8k_test.jsonl
    python benchmarks/data_tools --rows 1000000

The first plants changed copies of the benchmark's problems among the training rows; the second times generated rows.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from align.data.contamination import Rule
from align.data.decontaminate import decontaminate
from align.data.duplicates import find_duplicates
from align.data.named import ProblemText, readable_rows

RULES = {
    "defaults": Rule(),
    "any run of 13 words": Rule(share=1e-9, near=2),
    "half of the runs of 8 words": Rule(n=8, near=2),
}
FILLER = (
    "Here is a task that was found in an old book of exercises. Read it twice before you begin, and write down what you know."
)


def changed_words(text: str, count: int, draws: random.Random) -> str:
    words = text.split()
    for place in draws.sample(range(len(words)), min(count, len(words))):
        words[place] = "zebra"
    return " ".join(words)


def renumbered(text: str) -> str:
    """Numbers in another notation: 1000 as 1,000 and 1000.00, $5 as $5.00."""
    return re.sub(
        r"\d+",
        lambda match: f"{int(match[0]):,}" if len(match[0]) > 3 else f"{match[0]}.00",
        re.sub(r"(?<=\d),(?=\d{3})", "", text),
    )


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": lambda text, _: text,
    "another case": lambda text, _: text.swapcase(),
    "other punctuation and spaces": lambda text, _: re.sub(r"[.,](?!\d)", " ;\n", text),
    "numbers in another notation": lambda text, _: renumbered(text),
    "inside of a longer text": lambda text, _: f"{FILLER} {text} {FILLER}",
    "one word changed": lambda text, draws: changed_words(text, 1, draws),
    "one word in ten changed": lambda text, draws: changed_words(text, max(1, len(text.split()) // 10), draws),
    "one word in five changed": lambda text, draws: changed_words(text, max(1, len(text.split()) // 5), draws),
}


def planted(train: str, against: str, folder: Path) -> None:
    """For each rule the share of each kind of copy that is removed, and what is removed besides."""
    problem = ProblemText({})
    texts = [problem.asked(row) for row in readable_rows(against, split="test")]
    clean = [{"prompt": problem.asked(row), "kind": ""} for row in readable_rows(train)]
    copies = [
        {"prompt": change(text, random.Random(f"{kind}/{number}")), "kind": kind}
        for kind, change in CHANGES.items()
        for number, text in enumerate(texts)
    ]
    file = folder / "planted.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*clean, *copies]))
    print(f"| copy of {len(texts)} problems | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}")
    shares: dict[str, list[str]] = {kind: [] for kind in [*CHANGES, ""]}
    for rule in RULES.values():
        decontaminate([str(file)], [against], folder / "clean.jsonl", rule=rule, columns=["prompt"])
        removed = Counter(json.loads(line)["row"]["kind"] for line in (folder / "clean.removed.jsonl").open())
        for kind in CHANGES:
            shares[kind].append(f"{removed[kind] / len(texts):.1%}")
        shares[""].append(str(removed[""]))
    for kind, cells in shares.items():
        print(f"| {kind or f'removed of the {len(clean):,} other rows'} | {' | '.join(cells)} |")


def generated(rows: int, file: Path, test: Path) -> None:
    """Word problems of some 45 words from a vocabulary of 20,000; of each hundred rows one is a copy of an earlier one."""
    draws = random.Random(0)
    vocabulary = ["".join(draws.choices("abcdefghijklmnopqrstuvwxyz", k=draws.randrange(2, 9))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 5) for rank in range(len(vocabulary))))  # as words of a language are distributed
    recent: list[str] = []
    with file.open("w") as lines, test.open("w") as items:
        for number in range(rows):
            text = " ".join([*draws.choices(vocabulary, cum_weights=weights, k=draws.randrange(20, 70)), str(number), "?"])
            if number % 100 == 99:
                text = f"{draws.choice(recent)} {draws.choice(vocabulary)}"
            recent = [*recent[-50:], text]
            lines.write(json.dumps({"prompt": text, "answer": str(number % 7)}) + "\n")
            if number % max(1, rows // 1500) == 0:
                items.write(json.dumps({"prompt": text}) + "\n")


def timed(rows: int, folder: Path) -> None:
    file, test = folder / "rows.jsonl", folder / "test.jsonl"
    generated(rows, file, test)
    print(
        f"{rows:,} rows, {file.stat().st_size / 2**20:.0f} MiB\n\n| | found | wall s | CPU s | peak MiB |\n|---|---|---|---|---|"
    )
    for name, run in (
        ("decontaminate", lambda: decontaminate([str(file)], [str(test)], folder / "out.jsonl").removed),
        ("duplicates, exact", lambda: find_duplicates([str(file)], threshold=1.0).surplus),
        ("duplicates, near", lambda: find_duplicates([str(file)]).surplus),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of the process so far: the rows are ordered by it
        print(f"| {name} | {found:,} | {wall:.0f} | {cpu:.0f} | {peak:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="training data without copies of the benchmark")
    parser.add_argument("--against", help="the benchmark")
    parser.add_argument("--rows", type=int, default=0, help="generated rows to time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.train and options.against:
            planted(options.train, options.against, Path(folder))
        if options.rows:
            timed(options.rows, Path(folder))


if __name__ == "__main__":
    main()
