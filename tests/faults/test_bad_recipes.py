"""Bad recipes and arguments: each is refused at once, with its place and what to write instead, and leaves nothing behind."""

# ruff: noqa: E501  the tables of cases are read best with one case a line

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from align.cli import main

RECIPE = """\
recipe: rl
model:
  init: {model_type: llama, config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}
data:
  train:
    - task: chain_sum
      size: 64
  eval:
    - {task: chain_sum, seed: 1, size: 8}
rollout: {num_generations: 4, max_completion_length: 32}
rewards:
  - use: math
    weight: 1.0
algorithm:
  method: grpo
train:
  steps: 10
  learning_rate: 1.0e-4
evaluate: {num_generations: 4, k: [1, 4]}
output_dir: runs/bad
"""

# id: (text to replace, by what, line of the complaint, in the complaint, in the fix)
IN_THE_FILE = {
    "misspelt key": ("steps: 10", "stepz: 10", 17, "unknown key train.stepz", "did you mean `steps`?"),
    "misspelt section": ("rollout:", "rolout:", 10, "unknown key rolout", "did you mean `rollout`?"),
    "key of another section": ("steps: 10", "num_generations: 10", 17, "unknown key train.num_generations", "belongs under rollout or evaluate"),
    "key of another toolkit": ("steps: 10", "per_device_train_batch_size: 10", 17, "unknown key", "train.prompts_per_step"),
    "key inside an item": ("    weight: 1.0", "    wieght: 1.0", 13, "unknown key rewards.0.wieght", "did you mean `weight`?"),
    "far from any key": ("steps: 10", "xyzzy: 10", 17, "unknown key train.xyzzy", "possible here: steps"),
    "duplicate key": ("  steps: 10", "  steps: 10\n  steps: 20", 18, "duplicate key 'steps'", "keep one"),
    "duplicate section": ("output_dir: runs/bad", "train: {steps: 3}", 20, "duplicate key 'train'", "keep one"),
    "tab": ("  steps: 10", "\tsteps: 10", 17, "not valid YAML", "spaces, not tabs"),
    "open bracket": ("k: [1, 4]}", "k: [1, 4}", 19, "not valid YAML", "brackets"),
    "python tag": ("runs/bad", "!!python/name:os.system x", 20, "tag", "write the value itself"),
    "unset variable": ("runs/bad", "${ALIGN_NOT_SET}/x", 20, "ALIGN_NOT_SET is not set", "export ALIGN_NOT_SET="),
    "variable with default": ("runs/bad", "${ALIGN_NOT_SET:-x}", 20, "not the name", "only ${NAME}"),
    "no kind": ("recipe: rl\n", "", 1, "`recipe:` is missing", "write `recipe: rl`"),
    "unknown kind": ("recipe: rl", "recipe: rlhf", 1, "'rlhf' is no kind", "there are rl, sft, preference, reward_model, evaluate"),
    "text for a number": ("steps: 10", "steps: ten", 17, "must be a whole number, got the text 'ten'", "write a whole number"),
    "quoted number": ("1.0e-4", "'1.0e-4'", 18, "must be a number, got the text '1.0e-4'", "write 1.0e-4 without quotes"),
    "float for a whole number": ("steps: 10", "steps: 1e3", 17, "must be a whole number, got 1000.0", "write 1000"),
    "word for a boolean": ("output_dir: runs/bad", "log: {tensorboard: no}", 20, "must be true or false", "in YAML 1.2 yes, no"),
    "number for text": ("use: math", "use: 7", 12, "rewards.0.use must be text, got 7", 'write "7" in quotes'),
    "scalar for a list": ("k: [1, 4]", "k: 1", 19, "evaluate.k must be a list, got 1", "[a, b]"),
    "mapping for a list": ("    - task: chain_sum\n      size", "    task: chain_sum\n    size", 5, "data.train must be a list", "[a, b]"),
    "empty section": ("  method: grpo\n", "", 14, "algorithm is empty", "leave the key out"),
    "value for a section": ("algorithm:\n  method: grpo", "algorithm: grpo", 14, "section with keys of its own", "put its keys below"),
    "zero steps": ("steps: 10", "steps: 0", 17, "train.steps = 0: must be greater than 0", "greater than 0"),
    "negative rate": ("1.0e-4", "-1.0e-4", 18, "train.learning_rate = -0.0001", "greater than 0"),
    "not a number": ("weight: 1.0", "weight: .nan", 13, "rewards.0.weight = nan", "write a number"),
    "infinite rate": ("1.0e-4", ".inf", 18, "train.learning_rate = inf: not a finite number", "write a number"),
    "unknown choice": ("steps: 10", "lr_scheduler_type: cosin", 17, "'cosin' is not possible here", "write cosine; possible are"),
    "no rewards": ("rewards:\n  - use: math\n    weight: 1.0", "rewards: []", 11, "rewards = []: needs at least 1 item", "add one"),
    "missing rewards": ("rewards:\n  - use: math\n    weight: 1.0\n", "", 1, "rewards is missing", "write `rewards:` at the top"),
    "two origins of a model": ("model:\n", "model:\n  path: gpt2\n", 2, "give either path", "path (bad.yaml:3), init (bad.yaml:4)"),
    "no origin of a source": ("- task: chain_sum\n      size: 64", "- split: train", 6, "give either path", "written here: split"),
    "size of a file": ("- task: chain_sum\n", "- path: x.jsonl\n", 6, "size and params belong to a task", "size (bad.yaml:7)"),
    "k above n": ("k: [1, 4]", "k: [1, 8]", 19, "k = 8 needs at least as many num_generations", "num_generations (bad.yaml:19)"),
    "no k": ("k: [1, 4]", "k: []", 19, "evaluate.k is empty", "k: [1]"),
    "unknown method": ("method: grpo", "method: gropo", 15, "there is no method 'gropo'", "did you mean grpo?"),
    "unknown loss": ("method: grpo", "loss: clipp", 15, "there is no policy loss 'clipp'", "did you mean clip?"),
    "unknown knob": ("method: grpo", "loss: cispo\n  knobs: {cup: 2.0}", 16, "there is no knob of the loss cispo 'cup'", "cap"),
    "unknown reward": ("use: math", "use: maths", 12, "there is no reward 'maths'", "did you mean math?"),
    "unknown format reward": ("use: math", "use: format.thnik", 12, "there is no reward 'format.thnik'", "format.think"),
    "unknown task": ("task: chain_sum\n", "task: chain_sun\n", 6, "there is no task 'chain_sun'", "did you mean chain_sum?"),
    "unknown task parameter": ("      size: 64", "      size: 64\n      params: {therms: 3}", 8, "no parameter 'therms'", "'terms'"),
    "task parameter out of range": ("      size: 64", "      size: 64\n      params: {terms: 1}", 8, "terms", ""),
    "one generation": ("num_generations: 4, max", "num_generations: 1, max", 10, "compares the samples of a prompt", "at least 2"),
    "one generation of the best": ("num_generations: 4, max_completion_length: 32}\nrewards:\n  - use: math\n    weight: 1.0\nalgorithm:\n  method: grpo", "num_generations: 1}\nrewards: [{use: task}]\nalgorithm: {method: raft}", 10, "raft compares the samples", "at least 2"),
    "more than there are": ("method: grpo", "train_on: {samples: 5}", 15, "takes 5 samples of a prompt, and rollout.num_generations is 4", "num_generations: 10"),
    "one to train on": ("method: grpo", "train_on: {samples: 1}", 15, "compares the samples of a prompt, and algorithm.train_on.samples is 1", "samples: 8"),
    "no way of choosing": ("method: grpo", "train_on: {samples: 2, by: worst}", 15, "'worst' is not possible here", "best_worst"),
    "best of too many": ("method: grpo", "method: pass@k\n  pass_k: 5", 10, "the best of 5 samples", "smaller algorithm.pass_k"),
    "key of another advantage": ("method: grpo", "method: grpo\n  pass_k: 2", 16, "pass_k has no effect on the advantage group", "advantage: pass@k"),
    "lambda without a critic": ("method: grpo", "lam: 0.9", 15, "lam has no effect on the advantage group: it belongs to gae", "advantage: gae"),
    "unknown advantage": ("method: grpo", "advantage: groop", 15, "'groop' is not possible here", "group"),
    "no teacher": ("method: grpo", "method: distill", 14, "follows a teacher, and there is none", "teacher: {path:"),
    "teacher without a path": ("method: grpo", "teacher: {coefficient: 0.5}", 15, "algorithm.teacher.path is missing", "path:"),
    "teacher that is not there": ("method: grpo", "teacher: {path: ./nowhere}", 15, "no model folder nowhere", "working directory"),
    "demonstrations of pairs": ("method: grpo", "method: rebel\n  demonstrations: {}", 16, "no place for demonstrations", "dr_grpo"),
    "demonstrations in runs": ("method: grpo", "demonstrations: {}\n  macro_actions: {}", 15, "token by token", "remove"),
    "mixture above one": ("method: grpo", "reference: {every: 2, mix: 1.5}", 15, "algorithm.reference.mix = 1.5", "less than or equal to 1"),
    "undersampling": ("method: grpo", "oversample: 0.5", 15, "algorithm.oversample = 0.5", "greater than 1"),
    "dynamic sampling of one": (
        "{num_generations: 4, max_completion_length: 32}\nrewards:\n  - use: math\n    weight: 1.0\nalgorithm:\n  method: grpo",
        "{num_generations: 1}\nrewards: [{use: task}]\nalgorithm: {method: reinforce, dynamic_sampling: true}",
        12, "with one sample a group none ever does", "dynamic_sampling: false",
    ),
    "knob of another loss": ("method: grpo", "knobs: {cap: 2.0}", 15, "there is no knob of the loss clip 'cap'", "eps_low"),
    "key of another loss": ("method: grpo", "method: cispo\n  epsilon: 0.2", 16, "there is no knob of the loss cispo 'eps_low'", "cap"),
    "knob of a loss without": ("method: grpo", "method: rloo\n  dual_clip: 3.0", 16, "'dual_clip'", "importance has no knobs"),
    "target without coefficient": ("method: grpo", "beta: 0\n  kl_target: 0.1", 16, "kl_target has no effect", "such as 0.04"),
    "kind without coefficient": ("method: grpo", "beta: 0.0\n  kl: k3", 16, "kl has no effect", "or remove kl"),
    "place without coefficient": ("method: grpo", "beta: 0.0\n  kl_in: loss", 16, "kl_in has no effect", "or remove kl_in"),
    "unknown reward parameter": ("    weight: 1.0", "    params:\n      extrat: boxed", 14, "math has no parameter 'extrat'", "did you mean 'extract'?"),
    "reward parameter out of range": ("    weight: 1.0", "    params: {timeout: 0}", 13, "greater than 0", "timeout"),
    "unknown model type": ("model_type: llama", "model_type: lama", 3, "there is no model type 'lama'", "did you mean llama?"),
    "unknown configuration key": ("{hidden_size: 32,", "\n      {hidden_sise: 32,", 4, "has no 'hidden_sise'", "did you mean hidden_size?"),
    "revision of fresh weights": ("model:\n", "model:\n  revision: main\n", 3, "model.revision is for a stored model", "remove revision"),
    "code of fresh weights": ("model:\n", "model:\n  trust_remote_code: true\n", 3, "trust_remote_code is for a stored", "remove"),
    "kernel of fresh weights": ("model:\n", "model:\n  attn_implementation: eager\n", 3, "attn_implementation is for a stored", "remove"),
    "buffer too long": ("method: grpo", "overlong: {buffer: 64}", 15, "longer than a completion", "at most 32"),
    "crossed bounds": ("method: grpo", "mismatch: {mode: token_mask, low: 3}", 15, "low 3.0 is above high 2.0", "around 1"),
    "greedy training": ("num_generations: 4, max", "temperature: 0, max", 10, "nothing to learn from", "temperature: 1.0"),
    "greedy evaluation": ("k: [1, 4]", "k: [1, 4], temperature: 0", 19, "temperature 0 gives 4 equal samples", "num_generations: 1"),
    "empty stop string": ("max_completion_length: 32", "stop: ['']", 10, "ends every completion at once", "remove it"),
    "uneven minibatches": ("steps: 10", "minibatches: 3", 17, "8 prompts a step cannot be cut into 3", "1, 2, 4, 8"),
    "warm-up too long": ("steps: 10", "steps: 10\n  warmup_steps: 11", 18, "more than the 10 optimizer updates", "at most 10"),
    "warm-up too long for several updates a step": (
        "steps: 10", "epochs: 2\n  minibatches: 4\n  steps: 10\n  warmup_steps: 81", 20, "more than the 80 optimizer updates", "at most 80",
    ),
    "adapters of fresh weights": ("model:\n", "model:\n  lora: {r: 4}\n", 3, "makes one that is stored nowhere", "name the base model"),
    "flash attention in float32": (
        "model:\n", "model:\n  attn_implementation: org/flash-attn\n", 3, "computes in half precision", "dtype: bfloat16",
    ),
    "empty stop string of an evaluation": ("k: [1, 4]", "k: [1, 4], stop: ['']", 19, "ends every completion at once", "evaluate.stop"),
    "warm-up without schedule": (
        "steps: 10", "lr_scheduler_type: constant\n  warmup_steps: 2", 18, "has no warm-up", "constant_with_warmup",
    ),
    "packed without a kernel": ("steps: 10", "packing: packed", 17, "variable-length attention kernel", "packing: auto"),
    "two rewards of one name": ("- use: math\n", "- use: math\n  - use: math\n", 13, "same name 'math'", "name: math_2"),
    "rewards without weight": ("weight: 1.0", "weight: 0", 13, "all rewards have weight 0", "such as 1.0"),
    "no training data": ("  train:\n    - task: chain_sum\n      size: 64\n", "", 4, "data.train names no source", "data: {train:"),
    "no problems to evaluate on": ("  eval:\n    - {task: chain_sum, seed: 1, size: 8}\n", "", 17, "data.eval names none", "data: {eval:"),
    "seed too large": ("output_dir: runs/bad", "seed: 4294967296", 20, "seeds are 0 to 4294967295", "such as 7"),
    "missing data file": ("task: chain_sum\n      size: 64", "path: rowz.jsonl", 6, "no file or folder rowz.jsonl", "did you mean rows.jsonl?"),
    "home in a path": ("task: chain_sum\n      size: 64", "path: ~/x.jsonl", 6, "`~` stands for nothing", "${HOME}/x.jsonl"),
    "heads that do not divide": (
        "hidden_size: 32", "hidden_size: 33", 3, "hidden_size 33 is not a multiple of num_attention_heads 2", "such as hidden_size 32"
    ),
    "missing model": ("init: {", "path: ./elsewhere # {", 3, "no model folder elsewhere", "working directory"),
    "folder without a model": ("init: {", "path: folder # {", 3, "holds no config.json", "save_pretrained"),
    "file for a model": ("init: {", "path: notes.txt # {", 3, "notes.txt is a file", "its folder"),
    "missing template": ("model:", "model:\n  chat_template: chat.jinja", 3, "no file chat.jinja", "working directory"),
    "missing reward file": ("use: math", "use: juge.py:mine", 12, "no file juge.py", "did you mean judge.py?"),
    "missing reward function": ("use: math", "use: judge.py:main", 12, "judge.py defines no 'main'", "did you mean judge.py:mine?"),
    "broken reward file": ("use: math", "use: broken.py:f", 12, "broken.py, line 1", "correct the Python file"),
    "missing function of a package": ("use: math", "use: json.dumpz", 12, "json defines no 'dumpz'", "did you mean json.dump"),
    "missing module of a package": ("use: math", "use: json.decodr.x", 12, "there is no module 'json.decodr'", "file.py:function"),
    "missing reward package": ("use: math", "use: no_such_package.judge", 12, "no Python package 'no_such_package'", "install"),
    "output is a file": ("runs/bad", "notes.txt/run", 20, "notes.txt is a file", "another folder"),
    "missing include": ("recipe: rl", "include: base.yaml\nrecipe: rl", 1, "there is no file base.yaml", "relative to the including file"),
    "include of itself": ("recipe: rl", "include: bad.yaml\nrecipe: rl", 1, "includes itself", "remove"),
    "include of a number": ("recipe: rl", "include: [3]\nrecipe: rl", 1, "include takes a file name", "include: base.yaml"),
}  # fmt: skip

EXIT_CODES = {
    "missing data file": 3,
    "missing model": 4,
    "teacher that is not there": 4,
    "folder without a model": 4,
    "file for a model": 4,
}  # others: 2

# id: (arguments after `align train`, place, in the complaint, in the fix)
ON_THE_COMMAND_LINE = {
    "no such recipe": (["bat.yaml"], "bat.yaml", "no such file", "align recipes list"),
    "a folder": (["folder"], "folder", "is a folder", "name a .yaml file"),
    "a binary file": (["model.bin"], "model.bin", "not a text file", "the .yaml file"),
    "an empty file": (["empty.jsonl"], "empty.jsonl", "the recipe is empty", "recipe: rl"),
    "a list": (["list.yaml"], "list.yaml:1", "a recipe is a mapping", "recipe: rl"),
    "no equals sign": (["bad.yaml", "train.steps"], "command line", "'train.steps' is not an override", "dotted.key=value"),
    "no key": (["bad.yaml", "=3"], "command line", "not an override", "dotted.key=value"),
    "unknown override": (["bad.yaml", "train.stepz=3"], "command line", "unknown key train.stepz", "did you mean `steps`?"),
    "wrong type": (["bad.yaml", "train.steps=many"], "command line", "train.steps must be a whole number", "whole number"),
    "no such item": (["bad.yaml", "rewards.3.weight=1"], "command line", "there is no item 3", "the list has 1 item"),
    "item of a section": (["bad.yaml", "train.0=1"], "command line", "unknown key train.0", "possible here"),
    "through a value": (["bad.yaml", "output_dir.x=1"], "command line", "'runs/bad', not a section", "set output_dir=..."),
    "invalid YAML": (["bad.yaml", "rollout.stop=["], "command line", "not valid YAML", "brackets"),
    "unquoted colon": (["bad.yaml", "output_dir=a: b"], "command line", "output_dir must be text, got a section", "quote the text"),
    "an include": (["bad.yaml", "include=x.yaml"], "command line", "include cannot be overridden", "write a recipe file"),
    "a secret": (["bad.yaml", "output_dir=${ALIGN_NOT_SET}"], "command line", "ALIGN_NOT_SET is not set", "export"),
    "checker of generated problems": (
        ["bad.yaml", "rewards.0.use=task", "data.train.0={path: org/data}"], "command line", "org/data is not generated", "such as math",
    ),
    "resume and overwrite": (["bad.yaml", "--resume", "--overwrite"], None, "exclude each other", "give one"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the cases mention."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_NOT_SET", raising=False)
    files = {
        "rows.jsonl": "{}\n",
        "notes.txt": "x",
        "empty.jsonl": "",
        "judge.py": "def mine(): ...\n",
        "broken.py": "def f(:\n",
        "list.yaml": "- a\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.bin").write_bytes(b"\x80\x81\x00")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.yaml").write_text(RECIPE)
    return tmp_path


def refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int = 2
) -> dict[str, str]:
    """The parts of the block on stderr, after the checks that hold for every refusal."""
    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(sys, "argv", ["align", *arguments])
    start = time.perf_counter()
    with pytest.raises(SystemExit) as end:
        main()
    seconds = time.perf_counter() - start
    out, err = capsys.readouterr()
    assert end.value.code == code
    assert seconds < 5
    assert "Traceback" not in out + err
    assert out == ""
    assert sorted(Path().rglob("*")) == before, "a refused recipe leaves nothing behind"
    message, _, rest = err.removeprefix("error: ").partition("\n  at:  ")
    if not rest:
        message, _, fix = message.partition("\n  fix: ")
        return {"message": message, "place": "", "fix": fix.strip()}
    place, _, fix = rest.partition("\n  fix: ")
    return {"message": message, "place": place, "fix": fix.strip()}


@pytest.mark.parametrize("case", IN_THE_FILE)
def test_a_bad_recipe(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, line, complaint, fix = IN_THE_FILE[case]
    assert RECIPE.count(old) == 1, f"the case changes {RECIPE.count(old)} places of the recipe"
    (folder / "bad.yaml").write_text(RECIPE.replace(old, new))
    error = refused(["train", "bad.yaml"], monkeypatch, capsys, EXIT_CODES.get(case, 2))
    assert complaint in error["message"]
    assert error["place"] == f"bad.yaml:{line}"
    assert fix in error["fix"]
    assert error["fix"]


@pytest.mark.parametrize("case", ON_THE_COMMAND_LINE)
def test_bad_arguments(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, place, complaint, fix = ON_THE_COMMAND_LINE[case]
    error = refused(["train", *arguments], monkeypatch, capsys)
    assert complaint in error["message"]
    assert error["place"] == (place or "")
    assert fix in error["fix"]


def test_all_mistakes_are_listed_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = RECIPE.replace("steps: 10", "stepz: 10").replace("weight: 1.0", "weight: much").replace("k: [1, 4]", "kk: 1")
    (folder / "bad.yaml").write_text(bad)
    error = refused(["check", "bad.yaml"], monkeypatch, capsys)
    whole = f"{error['message']} {error['place']}"
    assert all(f"bad.yaml:{line}" in whole for line in (13, 17, 19))


def test_the_recipe_that_the_cases_change_is_good(folder: Path) -> None:
    from align.recipe.load import load_recipe

    assert load_recipe("bad.yaml").recipe.recipe == "rl"
