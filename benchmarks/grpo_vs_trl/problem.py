"""The problem both toolkits train on: the model, the prompts and the reward. Imported by both sides, so nothing differs."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

WORDS = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "en", "in", "on", "un")]
PROMPTS, GENERATIONS, MAX_COMPLETION = 8, 8, 192
LEARNING_RATE, TEMPERATURE = 1e-4, 1.0
MODEL = {
    "model_type": "llama",
    "config": {
        "hidden_size": 320,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
    },
    "tokenizer": {"vocab_size": 4096},
}


def write_data(folder: Path, rows: int = 4000, seed: int = 0) -> None:
    """Prompts of uneven length, and demonstrations whose lengths have a long tail: log-normal, median 24 words, up to 150."""
    rng = random.Random(seed)
    with (folder / "train.jsonl").open("w") as file:
        for _ in range(rows):
            prompt = " ".join(rng.choices(WORDS, k=min(100, int(math.exp(rng.gauss(2.5, 0.9))) + 2)))
            answer = " ".join(rng.choices(WORDS, k=min(150, int(math.exp(rng.gauss(3.2, 0.9))) + 1)))
            file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")


def vowel_a(completions: list[Any], **_: Any) -> list[float]:
    """The share of words with the vowel a: easy to learn, and blind to length."""
    rewards = []
    for completion in completions:
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        words = text.split()
        rewards.append(sum("a" in word for word in words) / max(1, len(words)))
    return rewards
