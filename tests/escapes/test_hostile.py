"""The hostile completions that are programs, run as a careless grader would run them: called on the tests of their task."""

import json
import re

import pytest


def programs(shared_data):
    path = shared_data / "hostile" / "hostile_completions.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    for row in map(json.loads, path.read_text().splitlines()):
        block = re.search(r"```python\n(.*?)```", row["completion"], flags=re.S)
        if block and "fn" in row:
            calls = "".join(f"\nprint({row['fn']}(*{json.dumps(test[:-1])}))" for test in row["tests"])
            yield row["cls"], block[1] + calls


def test_all_are_contained(lab, world, shared_data):
    tried = 0
    for kind, source in programs(shared_data):
        ended = lab.run(source)
        assert world.token.encode() not in ended.stdout + ended.stderr, kind
        world.check()
        lab.check()
        assert lab.run("print(6)").stdout == b"6\n", kind
        tried += 1
    assert tried > 15
