"""Rules of `data.curriculum`."""

from __future__ import annotations

from collections.abc import Iterator

from align.recipe.schema import OnlinePreferenceRecipe, RLRecipe, SFTRecipe, TrainRecipe
from align.recipe.validate.findings import Finding


def curriculum(recipe: TrainRecipe) -> Iterator[Finding]:
    asked = recipe.data.curriculum
    if asked is None:
        return
    if not isinstance(recipe, RLRecipe | SFTRecipe | OnlinePreferenceRecipe):
        message = f"data.curriculum is not for recipe: {recipe.recipe} on stored judgements"
        yield Finding(key="data.curriculum", message=message, fix="remove it; data.shuffle: false keeps the order of the file")
    if not asked.by.strip():
        yield Finding(key="data.curriculum.by", message="data.curriculum.by is empty", fix="name a column: by: pass_rate")
    if not recipe.data.shuffle:
        message = "data.shuffle: false keeps the order of the data, and data.curriculum asks for another one"
        yield Finding(key="data.shuffle", message=message, fix="remove one of the two")
    if asked.band and asked.band[0] > asked.band[1]:
        message = f"data.curriculum.band: {asked.band[0]:g} is above {asked.band[1]:g}"
        yield Finding(key="data.curriculum.band", message=message, fix=f"write band: [{asked.band[1]:g}, {asked.band[0]:g}]")
    if asked.order == "shuffled" and asked.band is None:
        message = "data.curriculum has neither an order nor a band: it would change nothing"
        yield Finding(key="data.curriculum", message=message, fix="write order: easy_to_hard, or band: [0.2, 0.8]")
