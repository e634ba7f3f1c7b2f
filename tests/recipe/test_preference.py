"""Preference recipes: what goes together, and errors that name the key and the way out."""

import json
import subprocess
import sys

import pytest

from align.errors import RecipeError
from align.recipe.load import load_recipe, resolve_tree
from align.recipe.preference import needs_reference, online_need, row_kind, sees_whole_step, weighted_losses
from align.recipe.schema import OnlinePreferenceRecipe, PreferenceAlgorithm, PreferenceRecipe, WeightedLoss

STORED = {
    "recipe": "preference",
    "model": {"path": "org/name"},
    "data": {"train": [{"path": "org/pairs"}], "eval": [{"path": "org/pairs"}]},
}
ONLINE = {
    "recipe": "preference",
    "model": {"path": "org/name"},
    "data": {"train": [{"task": "chain_sum"}]},
    "online": {},
    "rewards": [{"use": "task"}],
}


@pytest.fixture
def load(tmp_path):
    def loaded(base, *overrides):
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps(base))
        return load_recipe(file, overrides)

    return loaded


def test_online_decides_which_recipe_it_is(load):
    assert isinstance(load(STORED).recipe, PreferenceRecipe)
    resolved = load(ONLINE)
    assert isinstance(resolved.recipe, OnlinePreferenceRecipe)
    assert resolve_tree(resolved.tree) == resolved.recipe


def test_what_the_losses_come_to():
    mixed = PreferenceAlgorithm(beta=0.3, losses=[WeightedLoss(loss="dpo", beta=0.1), WeightedLoss(loss="kto", weight=0.5)])
    assert [(one.loss, one.beta, one.weight) for one in weighted_losses(mixed)] == [("dpo", 0.1, 1.0), ("kto", 0.3, 0.5)]
    assert (row_kind(mixed), needs_reference(mixed), sees_whole_step(mixed)) == ("pair", True, True)
    simpo = PreferenceAlgorithm(loss="simpo", knobs={"gamma": 1.0})
    assert (weighted_losses(simpo)[0].knobs, needs_reference(simpo)) == ({"gamma": 1.0}, False)
    assert row_kind(PreferenceAlgorithm(loss="kto")) == "label"
    assert row_kind(PreferenceAlgorithm(loss="lipo_lambda")) == "ranking"
    assert weighted_losses(PreferenceAlgorithm())[0].loss == "dpo"


@pytest.mark.parametrize(
    ("overrides", "need"),
    [([], "prompt"), (["online.pairs=demonstrated"], "demonstration"), (["algorithm.loss=hypo", "rewards=[]"], "comparison")],
)
def test_what_online_training_draws_from(load, overrides, need):
    assert (
        online_need(
            load(ONLINE, *overrides, "evaluate={}", "data.eval=[{task: chain_sum, seed: 1}]", "rewards=[{use: task}]").recipe
        )
        == need
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["algorithm.loss=dppo"], "did you mean dpo"),
        (["algorithm.loss=hypo"], "online: {}"),
        (["algorithm.loss=xpo"], "drawn during training"),
        (["algorithm.losses=[{loss: dpo}, {loss: sftt}]"], "did you mean sft"),
        (["algorithm.losses=[{loss: dpo}, {loss: dpo}]"], "twice"),
        (["algorithm.losses=[{loss: dpo}]", "algorithm.loss=ipo"], "exclude each other"),
        (["algorithm.losses=[{loss: dpo}]", "algorithm.knobs={tau: 1}"], "exclude each other"),
        (["algorithm.losses=[{loss: dpo}, {loss: lipo_lambda}]"], "ranked lists"),
        (["algorithm.knobs={tau: 1}"], "label_smoothing"),
        (["algorithm.loss=hinge", "algorithm.knobs={tau: 1}"], "has no knobs"),
        (["algorithm.knobs={label_smoothing: 0.5}"], "below 0.5"),
        (["algorithm.loss=exo_pair", "algorithm.knobs={label_smoothing: 0}"], "above 0"),
        (["algorithm.loss=inpo", "algorithm.knobs={anchor: 2}"], "share"),
        (["algorithm.loss=discopop", "algorithm.knobs={tau: 0}"], "above 0"),
        (["algorithm.loss=ipo", "algorithm.margin_scale=1.0"], "margins are for dpo, rebel, dno"),
        (["algorithm.loss=orpo", "train.reference_cache=cache"], "no reference"),
        (["algorithm.loss=simpo", "algorithm.reference=org/other"], "no reference"),
        (["algorithm.beta=0"], "greater than 0"),
        (["data.train=[{task: chain_sum}]"], "nothing that somebody judged"),
        (["evaluate={}", "data.eval=[]"], "names none"),
        (["data.train=[]"], "names no source"),
        (["train.warmup_steps=101"], "at most 100"),
        (["rewards=[{use: math}]"], "add a section `online: {}`"),
        (["train.pairs_per_step=3"], "did you mean `rows_per_step`"),
    ],
)
def test_stored_preferences_are_refused(load, overrides, words):
    with pytest.raises(RecipeError) as caught:
        load(STORED, *overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rewards=[]"], "ranked by rewards"),
        (["rollout.num_generations=1"], "at least 2"),
        (["algorithm.loss=xpo", "rollout.num_generations=3"], "num_generations: 4"),
        (["algorithm.loss=xpo", "online.pairs=all"], "no effect on xpo"),
        (["algorithm.loss=hypo", "data.train=[{path: org/pairs}]"], "rewards have no effect: hypo"),
        (["online.pairs=demonstrated"], "wins every pair"),
        (["online.pairs=demonstrated", "rewards=[]", "online.min_margin=1.0"], "nothing is judged"),
        (
            ["online.pairs=demonstrated", "rewards=[]", "algorithm.loss=rebel", "algorithm.margin_scale=1.0"],
            "demonstration is preferred without any",
        ),
        (["algorithm.loss=lipo_lambda", "online.pairs=all"], "ranked lists"),
        (["algorithm.reference=org/other"], "as it starts"),
        (["algorithm.loss=simpo", "online.new_reference_every=2"], "no reference"),
        (["model.lora={}", "online.new_reference_every=2"], "stands still"),
        (["rollout.temperature=0"], "nothing to compare"),
        (["train.minibatches=3"], "1, 2, 4, 8"),
        (["rewards=[{use: maths}]"], "did you mean math"),
        (["evaluate={}"], "data.eval names none"),
    ],
)
def test_online_preferences_are_refused(load, overrides, words):
    with pytest.raises(RecipeError, match=words):
        load(ONLINE, *overrides)


def test_loading_needs_no_torch(load, tmp_path):
    load(STORED)
    loading = f"from align.recipe.load import load_recipe; load_recipe({str(tmp_path / 'recipe.yaml')!r})"
    code = f"import sys; {loading}; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
