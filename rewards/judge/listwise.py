"""All answers to a prompt ranked at once, several times in different orders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

from align.rewards.judge.asking import Asker, Field, settled
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.group import GroupCases, failed
from align.rewards.judge.params import JudgeParams
from align.rewards.judge.quoting import neutral
from align.rewards.verdict import Verdict


async def rank_group(asker: Asker, group: GroupCases, params: JudgeParams) -> list[Verdict]:
    """The verdict of each sample: the share of the other answers that it stands above, the mean over `k` rankings.

    Each ranking shows the answers in another order. Equal texts are shown once and share their place; texts that failed before
    stand below all.
    """
    texts = list(group.texts)
    verdicts = [verdict or Verdict.error("this answer was not ranked") for verdict in group.settled_G]
    others = len(texts) - 1 + (group.beaten > 0)
    if len(texts) < 2:
        alone = "there is no other answer to rank this one with: listwise needs two samples of a prompt"
        for sample in group.shown:
            equal = 1.0 if others else 0.5
            verdicts[sample] = _passed(equal, "the only answer", params) if len(group.cases_G) > 1 else Verdict.error(alone)
        return verdicts
    orders = shuffled_orders(len(texts), params.repetitions, asker.seed)
    rankings = await settled([_rank(asker, group, texts, order, params, draw) for draw, order in enumerate(orders)])
    failures = [ranking for ranking in rankings if isinstance(ranking, JudgeFailure)]
    valid = [ranking for ranking in rankings if not isinstance(ranking, JudgeFailure)]
    for number, samples in enumerate(group.texts.values()):
        if not valid or len(valid) < params.quorum * len(rankings):
            verdict = failed(failures[0], f"{len(valid)} of {len(rankings)} rankings succeeded; ")
        else:
            places = [ranking.index(number) for ranking in valid]
            value = fmean((others - place) / others for place in places)
            verdict = _passed(value, f"place {', '.join(str(place + 1) for place in places)} of {len(texts)}", params)
        for sample in samples:
            verdicts[sample] = verdict
    return verdicts


def shuffled_orders(count: int, repetitions: int, seed: int) -> list[list[int]]:
    """An order of `count` answers for each repetition; every second one is its predecessor backwards, so that places even out."""
    source = random.Random(f"{seed} {count}")  # a text: the same on every machine and in every process
    orders: list[list[int]] = []
    while len(orders) < repetitions:
        order = source.sample(range(count), count)
        orders += [order, order[::-1]]
    return orders[:repetitions]


async def _rank(
    asker: Asker, group: GroupCases, texts: Sequence[str], order: Sequence[int], params: JudgeParams, draw: int
) -> list[int]:
    """The numbers of the texts, best first. Raises JudgeFailure where the reply does not name each answer once."""
    labels = [str(place) for place in range(1, len(order) + 1)]
    blocks = [*group.question, *((f"answer {label}", texts[number]) for label, number in zip(labels, order, strict=True))]
    fields = {
        "reason": Field(schema={"type": "string"}, told='"<what decides the order, in a few sentences>"'),
        "ranking": Field(
            schema={
                "type": "array",
                "items": {"type": "string", "enum": labels},
                "minItems": len(labels),
                "maxItems": len(labels),
            },
            told=f'["<the best answer>", ..., "<the worst answer>"], each of {", ".join(labels)} once',
        ),
    }
    task = f"{neutral(params.task)}\n\nRank the answers by this. The order in which they stand means nothing."
    reply = await asker.fields(blocks, task, fields, draw)
    ranking = reply["ranking"]
    if len(set(ranking)) != len(labels):
        raise JudgeFailure(f"the judge's ranking names an answer twice: {', '.join(ranking)}", kind="schema")
    return [order[int(label) - 1] for label in ranking]


def _passed(value: float, detail: str, params: JudgeParams) -> Verdict:
    return Verdict(value=value, status="pass" if value >= params.pass_at else "fail", detail=detail)
