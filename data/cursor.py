"""Which items come next: epochs of fresh permutations, mixtures in exact proportion, and a position that resumes exactly."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from align.errors import DataError

if TYPE_CHECKING:
    from align.data.curriculum import Ease

T = TypeVar("T")
Place = tuple[int, int]  # the source, and how many items it had given before


class Cursor(Generic[T]):
    """An endless walk through one or several sources.

    Every source is walked in epochs: each item comes once, in a fresh order (in the given order without `shuffle`), before
    any comes again; across the border of two epochs a quarter of the source lies between an item and its return, so that a
    batch smaller than that never holds an item twice. The next draw goes to the source that is furthest behind its share,
    which keeps every source within one draw of its exact proportion where there are two, and close to it where there are more.

    With `ease` the order of an epoch is that of a curriculum, each source's own.

    What comes next depends on the seed and on how many items each source has given, so these few numbers are the state, and with
    them what was lent and not used. Several threads may draw.
    """

    def __init__(
        self,
        by_source: Sequence[Sequence[T]],
        weights: Sequence[float],
        *,
        seed: int,
        shuffle: bool = True,
        ease: Ease | None = None,
    ) -> None:
        if not by_source or any(len(items) == 0 for items in by_source):
            raise ValueError("a cursor needs sources, and every source needs items")
        if len(weights) != len(by_source) or any(weight <= 0 for weight in weights):
            raise ValueError(f"{len(by_source)} sources need as many positive weights, got {list(weights)}")
        self._by_source = [list(items) for items in by_source]
        self._shares = [weight / sum(weights) for weight in weights]
        self._seed, self._shuffle, self._ease = seed, shuffle, ease
        self._values = [[ease.of(item) for item in items] for items in self._by_source] if ease else []
        self._given = [0] * len(by_source)
        self._returned: deque[Place] = deque()  # drawn, and never used: to be given before anything else
        self._lent: dict[int, list[Place]] = {}
        self._lock = threading.Lock()
        self._orders: list[tuple[int, list[int]]] = [(-1, [])] * len(by_source)  # the order of each source's current epoch

    def draw(self, n: int, *, lent_to: int | None = None) -> list[T]:
        """The next `n` items. Those that are lent, under a number, count as used once that number is settled."""
        with self._lock:
            places = [self._returned.popleft() if self._returned else self._next() for _ in range(n)]
            if lent_to is not None:
                self._lent.setdefault(lent_to, []).extend(places)
            return [self._item(place) for place in places]

    def settle(self, lent_to: int) -> None:
        """What was lent under this number has been used."""
        with self._lock:
            self._lent.pop(lent_to, None)

    def ahead(self, n: int) -> list[T]:
        """The different items among the next `n`, in the order in which they will come; nothing is drawn."""
        given, returned = list(self._given), deque(self._returned)
        upcoming = {id(item): item for item in self.draw(n)}
        self._given, self._returned = given, returned
        return list(upcoming.values())

    def ease(self, items: Sequence[T]) -> dict[str, float]:
        """Under the name of a metric how easy these items are, the mean; nothing where there is no curriculum."""
        if self._ease is None or not items:
            return {}
        return {f"curriculum/{self._ease.by}": sum(map(self._ease.of, items)) / len(items)}

    @property
    def epoch(self) -> float:
        """Passes over the data: the items given so far over the number of items in all sources."""
        return sum(self._given) / sum(map(len, self._by_source))

    def state_dict(self) -> dict[str, Any]:
        """Of what is lent and not settled the state says that it was returned: who continues from it is given it again."""
        with self._lock:
            lent = [place for _, places in sorted(self._lent.items()) for place in places]
            returned = [list(place) for place in (*lent, *self._returned)]
        return {
            "seed": self._seed,
            "shuffle": self._shuffle,
            "sizes": [len(items) for items in self._by_source],
            "shares": list(self._shares),
            "contents": self._contents,
            "curriculum": self._ease.state(self._values) if self._ease else None,
            "given": list(self._given),
            "returned": returned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken. Raises DataError where the data, the weights or the seed are others."""
        own = self.state_dict()
        changed = [key for key in own if key not in ("given", "returned") and state.get(key) != own[key]]
        if changed:
            key = changed[0]
            raise DataError(
                f"the data changed since the checkpoint: {key} was {state.get(key)}, now it is {own[key]}",
                place="data.train",
                fix="continue with the data and the seed of the run, or start a new run",
            )
        self._given = list(state["given"])
        self._returned = deque((source, number) for source, number in state.get("returned", ()))
        self._lent = {}

    @cached_property
    def _contents(self) -> list[str]:
        """A hash of each source's items: rows that were edited between two starts of a run are noticed."""
        return [hashlib.sha256("".join(map(_content, items)).encode("utf-8", "replace")).hexdigest() for items in self._by_source]

    def _next(self) -> Place:
        drawn = sum(self._given) + 1
        behind = [share * drawn - given for share, given in zip(self._shares, self._given, strict=True)]
        source = behind.index(max(behind))
        self._given[source] += 1
        return source, self._given[source] - 1

    def _item(self, place: Place) -> T:
        source, number = place
        items = self._by_source[source]
        epoch, position = divmod(number, len(items))
        if self._orders[source][0] != epoch:
            self._orders[source] = (epoch, self._order(source, epoch))
        return items[self._orders[source][1][position]]

    def _order(self, source: int, epoch: int) -> list[int]:
        """The order of one epoch; its first quarter holds nothing of the last quarter of the epoch before."""
        size = len(self._by_source[source])
        if not self._shuffle:
            return list(range(size))
        order = self._permutation(source, epoch)
        window = size // 4
        if epoch == 0 or window == 0:
            return order
        # The last quarter stays as it was shuffled, so this needs no memory of the epochs before the last one.
        recent = set(self._permutation(source, epoch - 1)[-window:])
        others = (place for place in range(window, size - window) if order[place] not in recent)
        for place in range(window):
            if order[place] in recent:
                other = next(others)  # there are enough: 2 windows of places, at most 1 window of recent items
                order[place], order[other] = order[other], order[place]
        return order

    def _permutation(self, source: int, epoch: int) -> list[int]:
        random = Random(f"cursor/{self._seed}/{source}/{epoch}")
        if self._ease is not None:
            return self._ease.arranged(self._values[source], random)
        order = list(range(len(self._by_source[source])))
        random.shuffle(order)
        return order


def _content(item: Any) -> str:
    """What of an item a run depends on: of prompts and demonstrations their tokens and answer."""
    if hasattr(item, "token_ids"):
        shown = getattr(item, "demonstration", ())
        return repr((item.id, item.token_ids, getattr(item, "answer", None), *([shown] if shown else [])))
    return repr(item)
