"""The sections of a recipe that several kinds share. Key names are trl's where the concept is the same."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine"]  # of the learning rate
Truncation = Literal["drop", "keep_end", "keep_start"]  # of rows that are too long


class Section(BaseModel):
    """A part of a recipe: frozen, typed strictly, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class TokenizerInit(Section):
    """A byte-level tokenizer trained on the texts of `data.train`."""

    vocab_size: Positive = 512
    split_digits: bool = True


class ModelInit(Section):
    """A model with fresh weights, for tests, trials and the quickstart."""

    model_type: str = Field("llama", description="A transformers model type: llama, qwen2, qwen3, ...")
    config: dict[str, Any] = Field(default_factory=dict, description="Arguments of that type's config class, such as hidden_size")
    tokenizer: TokenizerInit = TokenizerInit()


class Lora(Section):
    r: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    target_modules: str | list[str] = "all-linear"


class Model(Section):
    """The model to train: a hub id or a local folder (`path`), or fresh weights (`init`)."""

    path: str | None = None
    revision: str | None = None
    init: ModelInit | None = None
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the computation; trained weights are kept in float32"
    )
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = Field(
        None, description="A Jinja template, or the path of a .jinja file, in place of the tokenizer's own"
    )
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if (self.path is None) == (self.init is None):
            raise ValueError("give either path (a hub id or a folder) or init (fresh weights), not both and not neither")
        return self


class Options(Section):
    """Multiple choice: where the options of a row stand. They become {options_text}, with letters, and the answer a letter."""

    of: str | None = Field(
        None, description="The column that holds them as a list, in order; the answer stands in its own column"
    )
    right: str | None = Field(None, description="The column of the right option; with `wrong` shuffled by seed and row")
    wrong: list[str] = Field(default_factory=list, description="The columns of the wrong options")
    seed: int = Field(0, description="Of the shuffling")

    @model_validator(mode="after")
    def _one_form(self) -> Options:
        if (self.of is None) == (self.right is None) or bool(self.wrong) != (self.right is not None):
            raise ValueError("give either of (a column with a list), or right (a column) together with wrong (columns)")
        return self


class FewShot(Section):
    """Solved examples before every prompt, as turns: rows of another split or file, drawn once, never those that are asked."""

    count: Annotated[int, Field(ge=0)] = 4
    path: str | None = Field(None, description="Where the examples are; default: the source's own path, there another split")
    name: str | None = Field(None, description="Configuration name; default: that of the source")
    split: str = "train"
    answer_template: str = Field("{answer}", description="What the example answers, with any {column}")
    same: str | None = Field(None, description="A column: examples share the prompt's value in it, such as a subject")
    seed: int = Field(0, description="Of the draw")


class Source(Section):
    """One source of rows: a hub id, a folder or a file (`path`), or generated problems (`task`)."""

    path: str | None = Field(None, description="Hub id, folder, or .jsonl/.json/.parquet/.csv file, each also .gz")
    name: str | None = Field(None, description="Configuration name of a hub dataset")
    split: str = "train"
    task: str | None = Field(None, description="A generated task, see `align recipes tasks`")
    size: Positive | None = Field(None, description="How many problems a task generates")
    seed: int = Field(0, description="Seed of a task's problems; other seeds give other problems")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of the task")
    columns: dict[str, str] = Field(default_factory=dict, description="Our column: the file's column, e.g. {prompt: question}")
    system_prompt: str | None = None
    prompt_template: str | None = Field(None, description="Text around the prompt, with {prompt} and any other {column}")
    options: Options | None = Field(None, description="Of multiple choice: the columns that hold the options")
    few_shot: FewShot | None = Field(None, description="Solved examples before every prompt")
    limit: Positive | None = Field(None, description="Use the first rows only")
    weight: Annotated[float, Field(gt=0)] = Field(1.0, description="Share of this source in a mixture, relative to the others")
    label: str | None = Field(None, description="Name of the source in metrics; default: file or task name")

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        if (self.path is None) == (self.task is None):
            raise ValueError("give either path (a file, folder or hub id) or task (generated problems), not both and not neither")
        if self.task is None and (self.size or self.params):
            raise ValueError("size and params belong to a task; for a file use limit")
        if self.task is not None and (self.options or self.few_shot):
            raise ValueError("options and few_shot are for rows of files; a task's problems are complete")
        return self


class Curriculum(Section):
    """In which order the rows of `data.train` come, by a number in one of their columns."""

    by: str = Field(
        "pass_rate", description="The column; a higher number is an easier row. `align data difficulty` writes pass_rate"
    )
    order: Literal["shuffled", "easy_to_hard", "hard_to_easy", "middle"] = Field(
        "shuffled", description="Of each pass over the data; middle: those nearest to 0.5 first"
    )
    band: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[lowest, highest]: rows outside are left out"
    )


class Data(Section):
    train: list[Source] = Field(default_factory=list)
    eval: list[Source] = Field(default_factory=list)
    max_prompt_length: Positive = Field(512, description="Longer prompts are dropped and counted (rl), in tokens")
    max_bad_rows: Annotated[int, Field(ge=0)] = Field(0, description="How many unusable rows are skipped before the run refuses")
    shuffle: bool = True
    curriculum: Curriculum | None = Field(None, description="Which rows are trained on first (rl, sft, online preferences)")


class RewardSpec(Section):
    """One reward: a built-in name, `package.module.function`, or `file.py:function`."""

    use: str
    weight: float = 1.0
    name: str | None = Field(None, description="Name in metrics and records; default: derived from use")
    only_if: str | None = Field(None, description="Judge only what this reward has passed; saves calls of a judge")
    params: dict[str, Any] = Field(default_factory=dict)


Combine = Annotated[
    dict[str, Any] | str | None,
    Field(description="How the rewards become one number, see docs/rewards.md; default: the sum of weight times value"),
]


class RewardBudget(Section):
    """When broken rewards stop a run (exit code 6)."""

    max_error_rate: Share = 0.05
    window: Positive = Field(512, description="Verdicts over which the error rate is taken")


class Monitor(Section):
    """When a reward looks hacked: notes in the log, with examples. Everything is measured whether or not it is noted."""

    gold: str | None = Field(None, description="A reward of weight 0 that is held out: it must not fall while the reward rises")
    window: Positive = Field(20, description="Steps that trends and usual values are taken over")
    length_correlation: Share = Field(0.6, description="Correlation of reward and length, over a window in which both rise")
    jump: NonNegative = Field(6.0, description="A change of the mean reward in one step, in usual changes")
    frequent_answer: Share = Field(0.5, description="Share of a step's prompts that may get the same rewarded answer")


class VLLM(Section):
    """Of `rollout.engine: vllm`."""

    tensor_parallel_size: Positive = Field(1, description="Devices that share one copy of the model")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="Share of the GPU's memory for weights and cache; the learner needs the rest"
    )
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Memory of the cache of keys and values, in GiB; default: by gpu_memory_utilization, 1 without a GPU"
    )
    max_model_len: Positive | None = Field(None, description="Tokens of prompt and completion; default: the model's")
    enforce_eager: bool = Field(False, description="Without CUDA graphs: slower, starts sooner; always so without a GPU")
    separate_process: bool = Field(False, description="In a process of its own, beside the learner's")
    sleep: bool = Field(
        False, description="Give the GPU's memory to the learner while nothing is sampled; for engines on its GPU"
    )
    extra: dict[str, Any] = Field(default_factory=dict, description="Further arguments of vLLM's EngineArgs")


class Rollout(Section):
    engine: Literal["transformers", "vllm"] = "transformers"
    vllm: VLLM = VLLM()
    mode: Literal["sync", "overlap", "async"] = Field(
        "sync",
        description="When rollouts are sampled. sync: before each step, from the newest weights; overlap: the next "
        "step's while this step trains; async: all the time, up to max_staleness steps ahead, weights change in flight",
    )
    max_staleness: Positive = Field(
        2, description="Of mode async: steps between the weights a sample began with and those it trains"
    )
    num_generations: Positive = 8
    max_completion_length: Positive = 256
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Share = 0.0
    stop: list[str] = Field(default_factory=list)
    stop_token_ids: list[int] = Field(default_factory=list)
    max_batch_sequences: Positive = Field(256, description="Sequences decoded at a time; finished ones make room for others")
    publish: Literal["auto", "shared_memory", "gloo"] = Field(
        "auto",
        description="How weights travel to the engines of launch.engines. auto: through shared memory on this machine, by Gloo "
        "to others",
    )
    publish_timeout: Annotated[float, Field(gt=0)] = Field(300.0, description="Seconds of one phase of a publish")
    parity_every: Annotated[int, Field(ge=0)] = Field(
        50, description="Steps between sampler-trainer parity checks; 0: never after the first"
    )
    parity_tolerance: Annotated[float, Field(gt=0)] = Field(
        0.02, description="Largest mean |log-prob difference| the parity check accepts"
    )


class Optimization(Section):
    """What every kind of training shares."""

    steps: Positive = 100
    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-6
    lr_scheduler_type: Schedule = "constant_with_warmup"
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="Optimizer updates of warm-up; a step of rl makes epochs x minibatches of them"
    )
    weight_decay: NonNegative = 0.0
    adam_beta1: Share = 0.9
    adam_beta2: Share = 0.999
    adam_epsilon: NonNegative = 1.0e-8
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    micro_batch_tokens: Positive = Field(8192, description="Tokens of one forward and backward pass, padding included")
    gradient_checkpointing: bool = False
    packing: Literal["auto", "packed", "rectangles"] = Field(
        "auto",
        description="auto: rows without padding where attention allows it; packed needs a variable-length attention kernel",
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(
        0,
        description="What DeepSpeed divides between the ranks: 0 nothing (it is not used), 1 AdamW's moments, 2 and gradients, "
        "3 and weights; 1-3 need `pip install 'align[deepspeed]'`",
    )
    offload_optimizer: bool = Field(False, description="AdamW's moments and step on the CPU; needs zero_stage 1-3")
    max_skipped_steps: Annotated[int, Field(ge=0)] = Field(3, description="Consecutive non-finite steps before exit code 7")
    save_steps: Annotated[int, Field(ge=0)] = Field(50, description="Steps between checkpoints; 0: at the end only")
    save_total_limit: Positive = 2


class Best(Section):
    """By what the evaluations of a run are compared."""

    metric: str = Field(description="Such as pass@1 or reward; without sampling accuracy and the like")
    mode: Literal["max", "min"] = "max"


class Evaluation(Section):
    """pass@k on `data.eval`."""

    before: bool = True
    after: bool = True
    every: Annotated[int, Field(ge=0)] = Field(0, description="Steps between evaluations; 0: none in between")
    best: Best | None = Field(
        None, description="Keep the model of the best evaluation in checkpoints/best, whatever save_total_limit says"
    )
    stop_after: Positive | None = Field(
        None, description="End the run after this many evaluations in a row that are no better than the best before them"
    )
    num_generations: Positive = 8
    k: list[Positive] = Field(default_factory=lambda: [1, 8])
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_completion_length: Positive | None = Field(None, description="Default: rollout.max_completion_length, or 256")
    stop: list[str] | None = Field(None, description="Default: rollout.stop, or none")
    stop_token_ids: list[int] | None = Field(None, description="Default: rollout.stop_token_ids, or none")
    max_problems: Positive | None = None
    threshold: float = Field(
        1.0,
        description="A sample is correct when every reward but those of the form (format.*) gives at least this, unweighted",
    )

    correct_by: list[str] = Field(
        default_factory=list, description="The rewards that say whether a sample is correct; default: all but format.*"
    )

    @model_validator(mode="after")
    def _k_within_n(self) -> Evaluation:
        if self.k and max(self.k) > self.num_generations:
            raise ValueError(f"k = {max(self.k)} needs at least as many num_generations, got {self.num_generations}")
        return self


class HeldOut(Section):
    """What the model makes of the rows of `data.eval`; nothing is sampled."""

    before: bool = True
    after: bool = True
    every: Annotated[int, Field(ge=0)] = Field(0, description="Steps between evaluations; 0: none in between")
    best: Best | None = Field(
        None, description="Keep the model of the best evaluation in checkpoints/best, whatever save_total_limit says"
    )
    stop_after: Positive | None = Field(
        None, description="End the run after this many evaluations in a row that are no better than the best before them"
    )
    max_rows: Positive | None = Field(None, description="Take this many, spread evenly over the data")


class Log(Section):
    tensorboard: bool = True
    wandb: str | None = Field(None, description="Weights & Biases project; needs `pip install wandb`")
    samples_every: Annotated[int, Field(ge=0)] = Field(
        20, description="Steps between sample completions on the console; 0: never"
    )
    tokens_every: Annotated[int, Field(ge=0)] = Field(
        10, description="Steps of rl between rollouts that are kept token by token, the first one included; 0: none"
    )


class Launch(Section):
    on: Literal["local", "ray"] = Field(
        "local", description="local: processes of this machine; ray: actors of a Ray cluster, on one machine or many"
    )
    learners: Positive = Field(1, description="Processes that train together, one for each GPU; on a CPU they share its cores")
    engines: Annotated[int, Field(ge=0)] = Field(
        0, description="Rollout engines in processes of their own, which share the prompts; 0: one, where the first learner is"
    )
    reward_workers: Annotated[int, Field(ge=0)] = Field(
        0, description="Processes of their own that judge (Ray actors with on: ray); 0: judged where the first learner is"
    )
    placement: Literal["separate", "colocated"] = Field(
        "separate",
        description="Of ray: whether engines have GPUs of their own, or share those of the learners and sleep meanwhile",
    )
    address: str | None = Field(
        None,
        description="Of ray: the cluster, HOST:PORT or auto; default: the one that is running here, or a new one of this machine",
    )
    restarts: Annotated[int, Field(ge=0)] = Field(
        2, description="How often a run whose process was killed goes on from its last checkpoint by itself"
    )
    gpus_per_node: Positive | None = Field(
        None, description="GPUs of a machine, for the plan of `align check`; default: those of this machine, or 8"
    )
    device_memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Memory of a GPU, in GiB, for the plan of `align check`; default: what is measured on this machine"
    )


class Common(Section):
    seed: int = 0
    output_dir: str | None = Field(None, description="The run directory; default: runs/<recipe file name>")
    model: Model
    data: Data
    log: Log = Log()
    launch: Launch = Launch()

    @property
    def reward_specs(self) -> list[RewardSpec]:
        """The rewards, of kinds that have any."""
        return getattr(self, "rewards", [])

    @property
    def combination(self) -> Any:
        """How they are combined, of kinds that have any."""
        return getattr(self, "combine", None)
