"""Which checker judges which family. Runs in a worker process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from align.rewards.answers import visible_part
from align.rewards.pooled import Judged, judged
from align.rewards.reasoning_gym import algebra, grids, moves, plain, puzzles
from align.rewards.reasoning_gym.reading import Meta, NoReferenceError, Outcome, UnreadableError, answer_of, words

Checker = Callable[[str, str, Meta], Outcome]

# Families with more than one right answer, or one that is rounded or arranged; all others have one value.
CHECKERS: dict[str, Checker] = {
    "advanced_geometry": plain.rounded,
    "coin_flip": plain.probability,
    "complex_arithmetic": plain.complex_number,
    "countdown": puzzles.arithmetic,
    "cryptarithm": grids.cryptarithm,
    "fraction_simplification": plain.lowest_terms,
    "futoshiki": grids.futoshiki,
    "graph_color": puzzles.graph_color,
    "group_anagrams": plain.unordered,
    "intermediate_integration": algebra.antiderivative,
    "jugs": moves.jugs,
    "kakurasu": grids.kakurasu,
    "knight_swap": moves.knight_swap,
    "knights_knaves": plain.roles,
    "mini_sudoku": grids.sudoku,
    "n_queens": grids.queens,
    "palindrome_generation": puzzles.palindrome,
    "palindrome_partitioning": plain.partitions,
    "polynomial_equations": plain.roots,
    "polynomial_multiplication": algebra.same_polynomial,
    "power_function": plain.significant,
    "prime_factorization": plain.factors,
    "propositional_logic": puzzles.conclusion,
    "puzzle24": puzzles.arithmetic,
    "quantum_lock": moves.quantum_lock,
    "rubiks_cube": moves.rubiks_cube,
    "rush_hour": moves.rush_hour,
    "shortest_path": moves.shortest_path,
    "simple_integration": algebra.antiderivative,
    "sokoban": moves.sokoban,
    "sudoku": grids.sudoku,
    "survo": grids.survo,
    "time_intervals": plain.duration,
    "tower_of_hanoi": moves.hanoi,
    "word_ladder": puzzles.word_ladder,
}


def check(text: str, family: str, gold: Any, metadata: Any, question: str) -> Judged:
    """The verdict on a completion for a row of `family`."""
    meta = json.loads(metadata) if isinstance(metadata, str) else metadata or {}
    visible = visible_part(text)
    if visible is None:
        return judged("unparsable", "the thinking part never ends")
    checker = CHECKERS.get(family)
    if gold is None and checker is None:
        return judged("error", f"{family}: the row has no reference answer, and there is no checker for this family")
    gold = gold if isinstance(gold, str) else "" if gold is None else json.dumps(gold)
    # the reference itself, which may hold what looks like a mark
    answer = visible.strip() if gold and words(visible) == words(gold) else answer_of(visible)
    if not answer.strip() and gold.strip():
        return judged("unparsable", "the answer is empty")
    try:
        if checker is None:
            right, why = plain.check_plain(answer, gold, meta, family)
        else:
            right, why = checker(answer, gold, {**meta, "question": question})
    except UnreadableError as error:
        return judged("unparsable", str(error))
    except NoReferenceError as error:
        return judged("error", f"{family}: {error}")
    except (ArithmeticError, RecursionError) as error:
        return judged("fail", f"{type(error).__name__}: {error}")
    return judged("pass") if right else judged("fail", why)
