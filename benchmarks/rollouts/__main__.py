"""Tokens a second of vLLM, of the transformers engine, and of transformers' own `generate`, which trl calls.

    python benchmarks/rollouts --rounds 3

For each size of model the engines take turns, round after round, on the same prompts, at the same length and with log-probs; then
the time and the bytes of a publish. Prints medians, and ratios to transformers' `generate`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from align.learner.fresh import train_tokenizer
from align.learner.plain import plain_weights
from align.recipe.schema import VLLM, TokenizerInit
from align.rollout.transformers import TransformersEngine
from align.rollout.vllm import VLLMEngine
from align.types import Prompt, Sampling

SIZES = {"0.4 M": (128, 2), "5 M": (256, 6), "30 M": (512, 10)}  # hidden size, layers
WORDS = "Tom has three apples and buys five more. How many apples does he have now? "


def build(hidden: int, layers: int, tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,  # nobody stops early: all write the same number of tokens
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


def sampled(engine: Any, prompts: list[Prompt], sampling: Sampling) -> int:
    return sum(len(completion.token_ids) for completion in engine.generate(prompts, sampling))


@torch.no_grad()
def generated(model: Any, prompts: list[Prompt], sampling: Sampling) -> int:
    """What trl does without vLLM: every sample is a row, and log-probs take a forward pass of their own."""
    rows = torch.tensor([prompt.token_ids for prompt in prompts for _ in range(sampling.n)])
    settings = {"max_new_tokens": sampling.max_tokens, "min_new_tokens": sampling.max_tokens, "do_sample": True}
    whole = model.generate(rows, attention_mask=torch.ones_like(rows), **settings)
    model(whole, logits_to_keep=sampling.max_tokens + 1).logits.log_softmax(-1)
    return whole[:, rows.shape[1] :].numel()


def measured(work: Callable[[], int]) -> float:
    begin = time.perf_counter()
    tokens = work()
    return tokens / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    options = parser.parse_args()
    tokenizer = train_tokenizer(TokenizerInit(vocab_size=400), [WORDS * 20])
    ids = tokenizer(WORDS * 4)["input_ids"][:64]
    prompts = [Prompt(id=f"p:{number}", messages=(), token_ids=(5 + number % 200, *ids)) for number in range(options.prompts)]
    sampling = Sampling(n=options.samples, max_tokens=options.tokens)
    print("| model | `generate` | transformers engine | vLLM | publish to vLLM |\n|---|---|---|---|---|")
    for size in options.sizes:
        print(row(size, build(*SIZES[size], tokenizer), tokenizer, prompts, sampling, options.rounds), flush=True)


def row(size: str, model: Any, tokenizer: Any, prompts: list[Prompt], sampling: Sampling, rounds: int) -> str:
    tokenizer.eos_token = None  # the engines ask it as well
    ours = TransformersEngine(model, tokenizer)
    theirs = VLLMEngine(model, tokenizer, VLLM(kv_cache_gib=1.0), dtype="float32")
    try:
        theirs.publish(plain_weights(model), version=0)
        ways: dict[str, Callable[[], int]] = {
            "generate": lambda: generated(model, prompts, sampling),
            "transformers": lambda: sampled(ours, prompts, sampling),
            "vllm": lambda: sampled(theirs, prompts, sampling),
        }
        for work in ways.values():  # what is done once is not counted
            work()
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        seconds = []
        for number in range(rounds):
            for name, work in ways.items():
                speeds[name].append(measured(work))
            begin = time.perf_counter()
            theirs.publish(plain_weights(model), version=number + 1)
            seconds.append(time.perf_counter() - begin)
    finally:
        theirs.close()
    usual = {name: median(values) for name, values in speeds.items()}
    cells = [f"{usual['generate']:,.0f} tokens/s"]
    cells += [f"{usual[name]:,.0f} ({usual[name] / usual['generate']:.2f}x)" for name in ("transformers", "vllm")]
    size_mib = sum(tensor.nbytes for _, tensor in plain_weights(model)) / 2**20
    return f"| {size} | {' | '.join(cells)} | {1000 * median(seconds):.0f} ms, {size_mib:.1f} MiB |"


if __name__ == "__main__":
    main()
