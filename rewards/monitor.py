"""Is the reward being hacked? What it goes along with, step by step, and notes with examples when that looks wrong."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from align.rewards.answers import final_answer, visible_part
from align.rewards.reward import gold_of
from align.run.samples import prompt_text, shorten
from align.run.watch import Note
from align.types import Scored

if TYPE_CHECKING:
    from align.recipe.schema import Monitor

_FEWEST_PROMPTS = 8  # of a step, for a share of them to mean something
_FEWEST_STEPS = 8  # of the window, for a trend to mean something
_SMALLEST_JUMP = 0.05  # of the reward's own spread between samples, however steady it was before
_EXAMPLES = 2
_LONGEST = 300  # characters of an example


class RewardMonitor:
    """Watches the samples of each training step. Its state belongs to the run: one that was resumed says the same.

    Metrics: `monitor/length_correlation` (of reward and tokens, within the groups), `monitor/frequent_answer` (the largest
    share of the prompts that got the same rewarded answer) and, with a held-out reward, `monitor/gold_correlation`.
    """

    def __init__(self, settings: Monitor, *, every: int = 20) -> None:
        self._settings, self._every = settings, every
        self._history: deque[dict[str, float]] = deque(maxlen=settings.window)
        self._last: dict[str, int] = {}

    def observe(self, step: int, scored: Sequence[Scored]) -> tuple[dict[str, float], list[Note]]:
        """The metrics of a step and the notes due at it; the same kind of note comes at most once in some steps."""
        judged = [one for one in scored if not math.isnan(one.reward)]
        answer, share, usual = _most_frequent(judged)
        now = {
            "reward": _mean([one.reward for one in judged]),
            "spread": statistics.pstdev([one.reward for one in judged]) if judged else math.nan,
            "length": _mean([float(len(one.rollout.completion.token_ids)) for one in judged]),
            "length_correlation": within_groups(judged, lambda one: float(len(one.rollout.completion.token_ids))),
            "frequent_answer": share,
        }
        gold = self._settings.gold
        held = [one for one in judged if gold in one.verdicts and one.verdicts[gold].value is not None] if gold else []
        if held and gold:
            now["gold"] = _mean([one.verdicts[gold].value or 0.0 for one in held])
            now["gold_correlation"] = within_groups(held, lambda one: one.verdicts[gold].value or 0.0)
        found = [self._gold(now, judged), self._length(now, judged), self._jump(now, judged)]
        found.append(self._frequent(answer, share, usual, judged))
        self._history.append(now)
        due = [note for note in found if note and step - self._last.get(note.kind, -math.inf) >= self._every]
        self._last |= {note.kind: step for note in due}
        names = ("length_correlation", "frequent_answer", "gold_correlation")
        return {f"monitor/{name}": now[name] for name in names if name in now}, due

    def state_dict(self) -> dict[str, Any]:
        return {"history": list(self._history), "last": dict(self._last)}

    def load_state_dict(self, state: Any) -> None:
        self._history = deque(state["history"], maxlen=self._settings.window)
        self._last = dict(state["last"])

    def _gold(self, now: dict[str, float], judged: Sequence[Scored]) -> Note | None:
        """The reward rises and the held-out one falls (Gao et al. 2023)."""
        rise, fall = self._trend("reward", now), self._trend("gold", now)
        if not (rise > 0 and fall < 0):
            return None
        name = self._settings.gold
        text = f"in {len(self._history) + 1} steps the reward rose by {rise:.3g} while {name}, held out, fell by {-fall:.3g}"
        return _note("gold", text, "stop at the step where they part; a higher beta; a reward that is harder to fool", judged)

    def _length(self, now: dict[str, float], judged: Sequence[Scored]) -> Note | None:
        """Longer answers are rewarded, and both rise."""
        known = [row["length_correlation"] for row in (*self._history, now) if not math.isnan(row["length_correlation"])]
        if len(known) < _FEWEST_STEPS or statistics.fmean(known) < self._settings.length_correlation:
            return None
        if self._trend("reward", now) <= 0 or self._trend("length", now) <= 0:
            return None
        text = f"reward and length correlate by {statistics.fmean(known):.2f} within groups, and both rise"
        return _note("length", text, "a length penalty, or a reward without this bias, if long answers are no better", judged)

    def _jump(self, now: dict[str, float], judged: Sequence[Scored]) -> Note | None:
        """The mean reward leaps, as it does where a loophole is found."""
        rewards = [row["reward"] for row in (*self._history, now) if not math.isnan(row["reward"])]
        changes = [abs(new - old) for old, new in pairwise(rewards)]
        if len(changes) < _FEWEST_STEPS or math.isnan(now["reward"]):
            return None
        usual = statistics.median(changes[:-1])
        leap = rewards[-1] - rewards[-2]
        if leap <= max(self._settings.jump * usual, _SMALLEST_JUMP * now["spread"], 0.0) or leap <= 3 * max(changes[:-1]):
            return None
        text = f"the mean reward leapt by {leap:.3g} in one step, usually it moves by {usual:.3g}"
        return _note("jump", text, "read what is rewarded below: a loophole looks like this", judged)

    def _frequent(self, answer: str, share: float, usual: float, judged: Sequence[Scored]) -> Note | None:
        """The same answer is rewarded for many different prompts, more often than the references would have it."""
        if not share > max(self._settings.frequent_answer, 1.5 * usual):
            return None
        text = f"{share:.0%} of the prompts got a reward for the same answer, {shorten(answer, 60)!r}"
        return _note("frequent_answer", text, "`align score --audit` tries constant answers on the reward", judged)

    def _trend(self, key: str, now: dict[str, float]) -> float:
        """By how much the later half of the window lies above the earlier one; 0 where that is within its noise."""
        values = [row[key] for row in (*self._history, now) if not math.isnan(row.get(key, math.nan))]
        if len(values) < _FEWEST_STEPS:
            return 0.0
        half = len(values) // 2
        early, late = values[:half], values[-half:]
        difference = statistics.fmean(late) - statistics.fmean(early)
        noise = math.sqrt((statistics.variance(early) + statistics.variance(late)) / half)
        return difference if abs(difference) > 2 * noise else 0.0


def within_groups(scored: Sequence[Scored], of: Callable[[Scored], float]) -> float:
    """Pearson's correlation of the reward with something else, both less their group's mean; NaN where either does not vary.

    The group's mean is taken away because hard prompts have lower rewards and longer answers whatever the reward is.
    """
    by_prompt: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        by_prompt[one.rollout.prompt.id].append(one)
    xs, ys = [], []
    for group in by_prompt.values():
        rewards, others = [one.reward for one in group], [of(one) for one in group]
        xs += [reward - statistics.fmean(rewards) for reward in rewards]
        ys += [other - statistics.fmean(others) for other in others]
    scale = math.sqrt(math.fsum(x * x for x in xs) * math.fsum(y * y for y in ys))
    return math.fsum(x * y for x, y in zip(xs, ys, strict=True)) / scale if scale > 1e-12 else math.nan


def _most_frequent(judged: Sequence[Scored]) -> tuple[str, float, float]:
    """The answer rewarded for most prompts, its share of them, and the share of the most frequent reference."""
    prompts = {one.rollout.prompt.id: one.rollout.prompt for one in judged}
    if len(prompts) < _FEWEST_PROMPTS:
        return "", math.nan, math.nan
    rewarded = {(one.rollout.prompt.id, _answer(one)) for one in judged if one.reward > 0}
    counts = Counter(answer for _, answer in rewarded if answer)
    golds = Counter(str(gold_of(one.rollout)) for one in {one.rollout.prompt.id: one for one in judged}.values())
    answer, count = counts.most_common(1)[0] if counts else ("", 0)
    return answer, count / len(prompts), golds.most_common(1)[0][1] / len(prompts) if len(golds) > 1 else 0.0


def _answer(one: Scored) -> str:
    """What a completion comes down to: its marked answer, else its last line."""
    text = visible_part(one.rollout.completion.text) or ""
    found = final_answer(text)
    return (text.rstrip().rpartition("\n")[2] if found is None else found).strip()[:200]


def _note(kind: str, text: str, suggestion: str, judged: Sequence[Scored]) -> Note:
    best = sorted(judged, key=lambda one: -one.reward)[:_EXAMPLES]
    examples = tuple(
        f"reward {one.reward:.3g}: {shorten(prompt_text(one.rollout.prompt), _LONGEST // 3)!r} "
        f"-> {shorten(one.rollout.completion.text, _LONGEST)!r}"
        for one in best
    )
    return Note(kind=f"reward_{kind}", text=text, suggestion=suggestion, examples=examples)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan
