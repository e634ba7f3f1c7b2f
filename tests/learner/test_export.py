from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align.errors import CheckpointError, RecipeError, StorageError
from align.learner.checkpoint import write_checkpoint
from align.learner.export import export_model
from align.learner.fresh import build_model, train_tokenizer
from align.recipe.schema import ModelInit, TokenizerInit

CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TokenizerInit(vocab_size=300), ["one and two are three"] * 3)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return build_model(ModelInit(config=CONFIG), tokenizer, seed=3)


@pytest.fixture
def run(model: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """A run directory with one checkpoint and trainer state beside the model."""

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "trainer").mkdir()
        (folder / "trainer" / "learner.pt").write_bytes(b"state")

    write_checkpoint(tmp_path / "run" / "checkpoints", 5, write, keep=1)
    return tmp_path / "run"


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits.float()


def test_a_run_becomes_a_plain_model_folder(run: Path, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    out = export_model(run, tmp_path / "deep" / "out")
    loaded, words = load(out)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    messages = [{"role": "user", "content": "one and two"}]
    assert words.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert not (out / "trainer").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]  # nothing aside is left
    assert out.stat().st_mode & 0o755 == 0o755


def test_weights_get_the_asked_type(run: Path, model: Any, tmp_path: Path) -> None:
    loaded, _ = load(export_model(run, tmp_path / "out", dtype="bfloat16"))
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0.02, atol=0.02)


def test_adapters_are_merged(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tmp_path / "base"
    model.save_pretrained(base)
    copy, _ = load_model_only(base)
    torch.manual_seed(0)
    adapted = get_peft_model(copy, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    tokenizer.save_pretrained(tmp_path / "adapter")
    exported, _ = load(export_model(tmp_path / "adapter", tmp_path / "out"))
    assert (logits(adapted) - logits(model)).abs().max() > 0.01  # the adapter does something
    torch.testing.assert_close(logits(exported), logits(adapted), rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def load_model_only(folder: Path) -> tuple[Any, None]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder), None


def test_nothing_is_replaced_unless_asked_for(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for overwrite in (False, True):  # not even then: this is no model
        with pytest.raises(StorageError):
            export_model(run, out, overwrite=overwrite)
    assert (out / "thesis.txt").read_text() == "mine"
    export_model(run, tmp_path / "model")
    with pytest.raises(StorageError, match="something already"):
        export_model(run, tmp_path / "model")
    export_model(run, tmp_path / "model", dtype="bfloat16", overwrite=True)
    assert next(load(tmp_path / "model")[0].parameters()).dtype == torch.bfloat16


def test_the_source_is_never_the_target(run: Path) -> None:
    checkpoint = run / "checkpoints" / "step-000005"
    for out in (checkpoint, run):
        with pytest.raises(StorageError, match="replace the model"):
            export_model(run, out, overwrite=True)
    assert (checkpoint / "config.json").is_file()


def test_what_is_no_model_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no model"):
        export_model(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(RecipeError, match="float8"):
        export_model(run, tmp_path / "out", dtype="float8")
    weights = run / "checkpoints" / "step-000005" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="intact"):
        export_model(run, tmp_path / "out")
    with pytest.raises(CheckpointError, match="cannot load"):
        export_model(weights.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()
