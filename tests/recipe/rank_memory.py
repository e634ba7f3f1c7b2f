"""What a real learner holds on one of several ranks: `python -m tests.recipe.rank_memory FOLDER`, as a rank."""

import gc
import json
import sys
from pathlib import Path

import torch
from torch import distributed

from align.learner.learner import Learner
from align.learner.model import load_model
from align.learner.ranks import Ranks
from align.recipe.schema import Model, ModelInit, Optimization
from tests.learner.conftest import make_batch
from tests.learner.rank_cases import TOKENIZER, imitation

CONFIG = {
    "hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
STAGES = (0, 1, 2, 3)
SET_ASIDE = 1_000_000_000  # bytes; nothing of this model comes near


def tensors() -> dict[int, int]:
    """Bytes of every storage that some tensor of this process has."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        try:
            if isinstance(one, torch.Tensor):
                found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        except (ReferenceError, RuntimeError, NotImplementedError):  # proxies, and tensors without a storage
            continue
    return found


def held(stage: int) -> dict[str, int]:
    """Bytes between two steps; what DeepSpeed sets aside for messages counts apart."""
    before = tensors()
    model = load_model(Model(init=ModelInit(config=CONFIG)), TOKENIZER, seed=0)
    sizes = [parameter.numel() for parameter in model.parameters()]
    learner = Learner(model, Optimization(zero_stage=stage, micro_batch_tokens=64), total_updates=4)
    batch = make_batch([12, 9, 7, 5])
    for index in range(2):
        learner.update(batch, imitation(batch), index=index)
    new = {place: size for place, size in tensors().items() if place not in before}
    return {
        "parameters": sum(sizes),
        "small": sum(size for size in sizes if size <= 100_000),
        "always": sum(size for size in new.values() if size < SET_ASIDE),
        "set_aside": max((size for size in new.values() if size >= SET_ASIDE), default=0),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = Ranks.present().rank
    found = {str(stage): held(stage) for stage in STAGES}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
