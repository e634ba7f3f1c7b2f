"""What the tests of several ranks do on each rank, and alone: `python -m tests.learner.rank_cases FOLDER STAGE CASE ...`."""

import copy
import gc
import re
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed

from align.learner import logprobs, sharded
from align.learner.critic import SharedCritic
from align.learner.fresh import build_model, train_tokenizer
from align.learner.frozen import FrozenPolicy
from align.learner.learner import Learner
from align.learner.model import load_model, load_weights
from align.learner.partition import Partition, whole
from align.learner.ranks import Ranks
from align.learner.reference import fingerprint
from align.learner.reward_model import build_reward_model
from align.learner.scores import ScoreLearner
from align.learner.value_model import load_value_model, value_model_of, value_model_on
from align.recipe.schema import Critic, Lora, Model, ModelInit, Optimization, RewardModelRecipe
from tests.learner.conftest import SIZES, make_batch

LENGTHS = [5, 12, 3, 9, 9, 2, 17, 6]
TOKENIZER = train_tokenizer(ModelInit().tokenizer, ["17+25=42 42+38=80", "user assistant system"])


def settings(stage, **own):
    offload = stage.endswith("-offload")
    chosen = {"zero_stage": int(stage.removesuffix("-offload")), "offload_optimizer": offload}
    # With a smaller epsilon AdamW's first steps make as much of a gradient that is a rounding error as of any other.
    usual = {"learning_rate": 1e-3, "adam_epsilon": 1e-6, "micro_batch_tokens": 24, "weight_decay": 0.1}
    return Optimization(**{**usual, **chosen, **own})


def make_learner(stage, lora=None, tied=False, options=None, path=None, **own):
    init = None if path else ModelInit(config=SIZES | {"tie_word_embeddings": tied})
    train = settings(stage, **own)
    causal_lm = load_model(Model(path=path, init=init, lora=lora), TOKENIZER, seed=0, partition=Partition.of(train))
    return Learner(causal_lm, train, total_updates=20, **(options or {}))


def grouped(lengths=LENGTHS):
    batch = make_batch(lengths).replace(group_B=torch.arange(len(lengths)) // 2)
    generator = torch.Generator().manual_seed(1)
    return batch.replace(advantage_N=torch.randn(len(lengths), generator=generator)[batch.segment_N])


def policy_gradient(batch):
    tokens = batch.mask_N.sum()

    def loss(micro, logp_N, entropy_N):
        ratio_N = (logp_N - (logp_N.detach() if micro.old_N is None else micro.old_N)).exp()
        surrogate_N = torch.minimum(ratio_N * micro.advantage_N, ratio_N.clamp(0.8, 1.2) * micro.advantage_N)
        bonus = 0.01 * entropy_N.sum() / tokens
        clipped = ((ratio_N - 1).abs() > 0.2).sum() / tokens
        return -(surrogate_N * micro.mask_N).sum() / tokens - bonus, {"entropy": entropy_N.sum() / tokens, "clipped": clipped}

    return loss


def imitation(batch):
    tokens = batch.mask_N.sum()
    return lambda micro, logp_N, entropy_N: (-logp_N.sum() / tokens, {"tokens": micro.mask_N.sum()})


def contrast(micro, logp_N, entropy_N):
    """Looks at all sequences of its micro-batch at once."""
    sums_B = torch.zeros(micro.size).index_add(0, micro.segment_N, logp_N)
    return -(sums_B / 10).logsumexp(0), {"sequences": torch.tensor(float(micro.size))}


def pairs(micro, logp_N, entropy_N):
    """Sees whole groups of two, and is a sum over groups."""
    sums_B = torch.zeros(micro.size).index_add(0, micro.segment_N, logp_N)
    first_B = torch.tensor([group in micro.group_B[:b].tolist() for b, group in enumerate(micro.group_B.tolist())]).logical_not()
    assert int(first_B.sum()) * 2 == micro.size
    return -torch.nn.functional.logsigmoid(0.1 * (sums_B[first_B] - sums_B[~first_B])).sum() / 4, {}


def weights(learner):
    return {name: weight.detach().cpu().clone() for name, weight in learner.weights()}


def result(learner, updates, **more):
    metrics = [
        {key: value for key, value in update.metrics.items() if key not in ("padding_share", "micro_batches")}
        for update in updates
    ]
    applied = [update.applied for update in updates]
    return {"weights": weights(learner), "metrics": metrics, "applied": applied, "logp_N": [u.logp_N for u in updates], **more}


def policy(stage, folder):
    """Ten steps with importance ratios, a bonus of entropy and a clipped gradient."""
    learner, batch = make_learner(stage, options={"entropy_gradient": True, "reference": True}, max_grad_norm=0.05), grouped()
    batch = batch.replace(old_N=learner.logprobs(batch))
    updates = [learner.update(batch, policy_gradient(batch), index=index) for index in range(10)]
    learner.move_reference(0.5)
    logp_N, entropy_N = learner.logprobs_and_entropies(batch)
    reference_N = learner.logprobs(batch, "reference")
    return result(learner, updates, logprobs=[logp_N, entropy_N, reference_N], old_N=batch.old_N)


def supervised(stage, folder):
    """Steps with different numbers of micro-batches and sequences, one of them a single sequence, on tied embeddings."""
    learner = make_learner(stage, tied=True, gradient_checkpointing=True)
    updates = []
    for index in range(10):
        batch = make_batch([[7], LENGTHS, [4, 4, 30], [6, 6]][index % 4], seed=index)
        updates.append(learner.update(batch, imitation(batch), index=index))
    return result(learner, updates, one=learner.logprobs(make_batch([7])))


def cuts(stage, folder):
    """Groups together, a loss of the whole batch, sequences without a gradient, and steps in which nothing has one."""
    learner, batch = make_learner(stage, max_skipped_steps=0), grouped()
    wanted_B = torch.tensor([0, 0, 1, 0, 0, 0, 0, 1]).bool()

    def some(micro, logp_N, entropy_N):
        wanted_N = torch.isin(micro.group_B, batch.group_B[wanted_B])[micro.segment_N]
        return -(logp_N * wanted_N).sum() / 20, {"entropy": entropy_N.sum()}

    nothing = {"gradient_B": torch.zeros(8, dtype=torch.bool)}
    how: list[Any] = [
        (pairs, {"together": True}),
        (contrast, {"whole": True}),
        (some, {"gradient_B": wanted_B, "together": True}),
    ]
    how += [(imitation(batch), nothing), (lambda micro, logp_N, _: (0.0 * logp_N.sum(), {}), {})]
    return result(learner, [learner.update(batch, loss, index=index, **options) for index, (loss, options) in enumerate(how * 2)])


def broken(stage, folder):
    """A loss that is no number on one token of one sequence, one whose value alone is not finite, and a step after both."""
    learner, batch = make_learner(stage), grouped()
    worst = torch.zeros(len(batch.mask_N))
    worst[batch.mask_N.nonzero().flatten()[0]] = torch.nan

    def bad_gradient(micro, logp_N, entropy_N):
        return -(logp_N * (1 + micro.advantage_N)).sum() / 20, {}

    def bad_value(micro, logp_N, entropy_N):
        return -logp_N.sum() / 20 + torch.tensor(torch.inf), {}

    bad = batch.replace(advantage_N=worst)
    updates = [learner.update(batch, imitation(batch), index=0), learner.update(bad, bad_gradient, index=1)]
    before = weights(learner)
    updates.append(learner.update(batch, bad_value, index=2))
    skipped = all(torch.equal(before[name], weight) for name, weight in weights(learner).items())
    updates.append(learner.update(batch, imitation(batch), index=3))
    return result(learner, updates, skipped=skipped)


def lora(stage, folder):
    learner, batch = make_learner(stage, lora=Lora(r=4, alpha=8), options={"reference": True}), grouped()
    updates = [learner.update(batch, policy_gradient(batch), index=index) for index in range(10)]
    learner.save_model(folder / "lora")
    again = make_learner(stage, lora=Lora(r=4, alpha=8))
    again.load_model(folder / "lora")
    again.load_state_dict(read(learner.state_dict()))
    updates += [one.update(batch, policy_gradient(batch), index=10) for one in (learner, again)]
    loaded, reference = weights(again), learner.logprobs(batch, "reference")
    assert all(torch.allclose(loaded[name], weight, atol=1e-7) for name, weight in weights(learner).items())
    plain = {name: weight.detach().clone() for name, weight in learner.weights(plain=True)}
    return result(learner, updates, reference=reference, plain=plain)


def half(stage, folder):
    """bfloat16: weights and moments stay in float32."""
    # Steps in proportion to the gradient: it is rounded by how products are cut, and AdamW's are as large for a small one.
    learner, batch = make_learner(stage, options={"dtype": "bfloat16"}, learning_rate=0.1, adam_epsilon=0.1), grouped()
    in_full = make_learner(stage).logprobs(batch)
    assert 1e-4 < (learner.logprobs(batch) - in_full).abs().max() < 1e-1
    updates = [learner.update(batch, policy_gradient(batch), index=index) for index in range(3)]
    assert {weight.dtype for weight in weights(learner).values()} == {torch.float32}
    return result(learner, updates, logprobs=learner.logprobs(batch))


def critics(stage, folder):
    """A value model beside the policy, and a head on another policy that learns alone, then with it; both are saved."""
    learner, batch = make_learner(stage), grouped()
    critic = ScoreLearner(value_model_of(load_model(Model(init=ModelInit(config=SIZES)), TOKENIZER, seed=1)), settings(stage),
                          total_updates=20, at="before")  # fmt: skip
    other = make_learner(stage, options={"value_head": settings(stage, learning_rate=1e-2)}, max_grad_norm=100.0)
    shared_critic = SharedCritic(other, Critic(trunk="shared"))
    batch = batch.replace(value_N=critic.scores(batch), return_N=batch.advantage_N * batch.mask_N)
    tokens = batch.mask_N.sum()
    updates: list[Any] = []
    values = []
    for index in range(5):

        def loss(micro, value_N):
            return ((value_N - micro.return_N) * micro.mask_N).square().sum() / tokens, {"mean": value_N.sum() / tokens}

        updates.append(critic.update(batch, loss, index=index))
        updates.append(learner.update(batch, policy_gradient(batch), index=index))
        if index < 2:
            updates.append(shared_critic.update(batch, index=index, alone=True))
        else:
            updates.append(other.update(batch, shared_critic.joined(policy_gradient(batch), batch), index=index))
        values += [critic.scores(batch), shared_critic.values(batch)]
    critic.save_model(folder / "critic")
    shared_critic.save_model(folder / "shared")
    again = ScoreLearner(value_model_of(load_model(Model(init=ModelInit(config=SIZES)), TOKENIZER, seed=2)), settings(stage),
                         total_updates=20, at="before")  # fmt: skip
    again.load_model(folder / "critic")
    assert torch.allclose(again.scores(batch), critic.scores(batch), atol=1e-6)
    expected = other.values(batch)
    with torch.no_grad():
        other.stepper.held.overwrite((weight, torch.ones(weight.ds_shape if hasattr(weight, "ds_shape") else weight.shape))
                                     for weight in other.value_head.parameters())  # fmt: skip
    assert not torch.allclose(other.values(batch), expected)
    shared_critic.load_model(folder / "shared")
    assert torch.allclose(other.values(batch), expected, atol=1e-6)
    return result(learner, updates, values=values, other=weights(other))


def saved(stage, folder):
    """Five steps, written as a checkpoint is, and five more."""
    learner, batch = make_learner(stage, tied=True), grouped()
    updates = [learner.update(batch, policy_gradient(batch), index=index) for index in range(5)]
    learner.save_model(folder / "model")
    assert (folder / "model" / "config.json").is_file()  # on every rank: nobody goes on before it is written
    state = learner.state_dict()
    if Ranks.present().is_first:
        torch.save(state, folder / "learner.pt")
    return result(learner, updates + [learner.update(batch, policy_gradient(batch), index=index) for index in range(5, 10)])


def resumed(stage, folder):
    """The five more, from a checkpoint of other ranks."""
    learner, batch = make_learner(stage, tied=True), grouped()
    learner.update(batch, imitation(batch), index=0)  # what it has of its own must go
    learner.load_model(folder / "from" / "model")
    learner.load_state_dict(torch.load(folder / "from" / "learner.pt", weights_only=True))
    return result(learner, [learner.update(batch, policy_gradient(batch), index=index) for index in range(5, 10)])


def stored_model(folder, tied):
    """A model of an untrained folder, in several files; of ranks that of the one process that has run before."""
    earlier = folder / "from" / f"stored-{tied}"
    if earlier.is_dir():
        return str(earlier)
    stored = load_model(Model(init=ModelInit(config=SIZES | {"tie_word_embeddings": tied})), TOKENIZER, seed=7)
    own = folder / f"stored-{tied}"
    stored.to(torch.bfloat16 if tied else torch.float32).save_pretrained(own, max_shard_size="20KB")
    TOKENIZER.save_pretrained(own)
    assert len(list(own.glob("*.safetensors"))) > 2
    return str(own)


def adapters_on(path, folder):
    """A folder of adapters on a model, as a checkpoint has them: written by the one process that has run before."""
    earlier = folder / "from" / "adapters"
    if not earlier.is_dir():
        adapted = load_model(Model(path=path, lora=Lora(r=4, alpha=8)), TOKENIZER, seed=3)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.1)
        earlier = folder / "adapters"
        adapted.save_pretrained(earlier)
        TOKENIZER.save_pretrained(earlier)
    return Model(path=str(earlier))


def loaded(stage, folder):
    """A model from files, with a reference; with tied weights in half the precision; and under adapters."""
    batch, results = grouped(), {}
    variants: list[Any] = [(False, None), (True, None), (False, Lora(r=4, alpha=8))]
    for tied, lora in variants:
        path = stored_model(folder, tied)
        learner = make_learner(stage, lora=lora, path=path, options={"reference": True})
        mark = fingerprint(load_model(Model(path=path), TOKENIZER, partition=Partition.of(settings(stage))), "float32")
        updates = [learner.update(batch, policy_gradient(batch), index=index) for index in range(4)]
        reference = [learner.logprobs(batch, "reference")]
        if lora is None:
            learner.move_reference(0.5)
            state = read(learner.state_dict())
            again = make_learner(stage, path=path, options={"reference": True})
            again.load_state_dict(state)
            reference += [one.logprobs(batch, "reference") for one in (learner, again)]
        plain = {name: weight.detach().clone() for name, weight in learner.weights(plain=True)}
        results[f"{tied} {lora is None}"] = result(learner, updates, mark=mark, reference=reference, plain=plain)
    last = results["False True"]
    return {**last, "all": results}


def asked(stage, folder):
    """A teacher in bfloat16, critics of a causal LM's files and on its layers, and the sampler's whole copy."""
    train, batch = settings(stage), grouped()
    partition = Partition.of(train)
    where = Model(path=stored_model(folder, tied=False))
    teacher, half = (
        FrozenPolicy(load_weights(where, getattr(torch, dtype), partition), train, device=torch.device("cpu"), dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert {weight.dtype for weight in half.module.parameters()} == {torch.bfloat16}
    assert 1e-4 < (half.logprobs(batch) - teacher.logprobs(batch)).abs().max() < 1e-1
    learner = make_learner(stage)
    critic = ScoreLearner(
        load_value_model(where, str(where.path), TOKENIZER, partition=partition), train, total_updates=20, at="before"
    )
    tokens = batch.mask_N.sum()

    def loss(micro, value_N):
        return ((value_N - micro.advantage_N) * micro.mask_N).square().sum() / tokens, {}

    updates = [critic.update(batch, loss, index=index) for index in range(3)]
    values = critic.scores(batch)
    critic.save_model(folder / "asked")
    again = ScoreLearner(value_model_on(load_model(where, TOKENIZER, partition=partition), None), train, total_updates=20,
                         at="before")  # fmt: skip
    assert not again.scores(batch).any()
    again.load_model(folder / "asked")
    assert torch.allclose(again.scores(batch), values, atol=1e-6)
    causal_lm = load_weights(adapters_on(where.path, folder), torch.float32, partition)
    copied = causal_lm if partition is None else partition.whole_copy(causal_lm, torch.float32)
    copies = {} if copied is None else {name: weight.detach().clone() for name, weight in copied.named_parameters()}
    return result(learner, updates, values=values, teacher=teacher.logprobs(batch), copies=read(copies))


def judging(stage, folder):
    """Reward models of files, of adapters and of fresh weights: a new head is drawn as in one process."""
    path = stored_model(folder, tied=False)
    models = {"files": Model(path=path), "adapters": adapters_on(path, folder), "fresh": Model(init=ModelInit(config=SIZES))}
    found: dict[str, torch.Tensor] = {}
    for name, model in models.items():
        settled = {
            "recipe": "reward_model",
            "output_dir": "unused",
            "model": model,
            "data": {"train": [{"path": "unused"}]},
            "algorithm": {"loss": "bradley_terry"},
            "train": {"zero_stage": int(stage[0]), "steps": 1, "rows_per_step": 2},
        }
        recipe = RewardModelRecipe.model_validate(settled)
        built = build_reward_model(recipe, TOKENIZER)
        found |= {f"{name}.{part}": whole(weight).detach().clone() for part, weight in built.named_parameters()}
    return {"weights": found, "metrics": [], "logp_N": []}


def memory(stage, folder):
    """Bytes of a model in float32, and the most that a rank has of its own while it gets it: divided, a copy, and whole."""
    partition = Partition.of(settings(stage))
    assert partition is not None
    big = SIZES | {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 8}
    if partition.ranks.is_first:
        for name, sizes in (("big", big), ("small", SIZES)):
            stored = load_model(Model(init=ModelInit(config=sizes)), TOKENIZER).to(torch.bfloat16)
            stored.save_pretrained(folder / name, max_shard_size="10MB")
            TOKENIZER.save_pretrained(folder / name)
            adapters_on(str(folder / name), folder / f"{name}-adapted")
        del stored
    partition.ranks.wait()

    def files(name):
        return load_model(Model(path=str(folder / name)), TOKENIZER, partition=partition)

    def merged(name):
        return load_model(Model(path=str(folder / f"{name}-adapted" / "adapters")), TOKENIZER, partition=partition)

    def undivided(name):
        return load_model(Model(path=str(folder / name)), TOKENIZER)

    for get in (files, merged, undivided):
        get("small")  # what is imported, and buffers of messages
    found = {}
    for get in (files, merged, undivided):
        found[get.__name__], model = peak(partial(get, "big"))
        if get is files:
            found["copied"], copied = peak(partial(partition.copy, model))
            del copied
    return {**found, "bytes": sum(4 * weight.numel() for weight in model.parameters())}


def peak(make):
    """The most own bytes over those of the beginning, looked at a thousand times a second; and what is made."""
    gc.collect()
    before, seen, done = own_bytes(), [], threading.Event()

    def watch():
        while not done.wait(0.001):
            seen.append(own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = make()
        seen.append(own_bytes())
    finally:
        done.set()
        watcher.join()
    return max(seen) - before, made


def own_bytes():
    """Memory of this process that no file stands behind: pages of mapped files can be dropped at any time."""
    (kibibytes,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kibibytes)


def started_apart(stage, folder):
    """Ranks whose models differ, by a mistake of whoever made them, learn that of the first."""
    model = build_model(ModelInit(model_type="llama", config=SIZES), TOKENIZER, seed=Ranks.present().rank)
    learner, batch = Learner(model, settings(stage), total_updates=1), grouped()
    return result(learner, [learner.update(batch, imitation(batch), index=0)])


def sliced(stage, folder):
    """Logits in slices, that are computed again in the backward pass; more than one micro-batch on each rank."""
    with mock.patch.object(logprobs, "CHUNK_ELEMENTS", 1500):
        learner, batch = make_learner(stage, options={"entropy_gradient": True}, packing="rectangles"), grouped()
        return result(learner, [learner.update(batch, policy_gradient(batch), index=index) for index in range(3)])


def read(state):
    """The first rank's state, as all ranks read it from a checkpoint."""
    states = [copy.deepcopy(state)]
    if distributed.is_initialized():
        distributed.broadcast_object_list(states, src=0)
    return states[0]


def always(configuration, small):
    return configuration | {"zero_optimization": configuration["zero_optimization"] | small}


def main(folder, stage, *names):
    torch.set_num_threads(1)
    usual = sharded.configuration
    # DeepSpeed keeps small weights whole, which are all weights of a tiny model; and its buckets are larger than this one.
    small = {"stage3_param_persistence_threshold": 0, "reduce_bucket_size": 5000, "stage3_prefetch_bucket_size": 5000}
    sharded.configuration = lambda *args, **options: always(usual(*args, **options), small)
    found = {name: globals()[name](stage, folder) for name in names}
    torch.save(found, folder / f"rank-{Ranks.present().rank}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
