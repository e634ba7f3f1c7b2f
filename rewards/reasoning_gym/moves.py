"""Puzzles solved by moves: every move is made, and must be allowed."""

from __future__ import annotations

import re
from typing import Any

from align.rewards.reasoning_gym.reading import Meta, Outcome, UnreadableError, field, items

_MOST_MOVES = 10_000
_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
_DISK = re.compile(r"move disk (\d{1,3}) from peg (\d{1,3}) to peg (\d{1,3})\.?", re.IGNORECASE)


def hanoi(answer: str, _gold: str, meta: Meta) -> Outcome:
    disks, pegs = field(meta, "num_disks"), field(meta, "num_pegs")
    stacks: dict[int, list[int]] = {peg: [] for peg in range(1, pegs + 1)}
    stacks[field(meta, "start_peg")] = list(range(disks, 0, -1))
    for line in _bounded([line.strip() for line in answer.splitlines() if line.strip()]):
        found = _DISK.fullmatch(line)
        if found is None:
            raise UnreadableError(f"{line[:60]!r} is no move")
        disk, start, end = map(int, found.groups())
        if start not in stacks or end not in stacks or stacks[start][-1:] != [disk]:
            return False, f"{line}: the disk is not on top there"
        if stacks[end] and stacks[end][-1] < disk:
            return False, f"{line}: on a smaller disk"
        stacks[end].append(stacks[start].pop())
    return len(stacks[field(meta, "target_peg")]) == disks, "not all disks are on the target"


def jugs(answer: str, _gold: str, meta: Meta) -> Outcome:
    puzzle = field(meta, "puzzle")
    sizes = dict(zip("ABCDEFGHIJ", puzzle["jug_capacities"], strict=False))
    water = dict.fromkeys(sizes, 0)
    for move in _bounded(_texts(answer)):
        parts = re.fullmatch(r"(fill|empty) ([A-J])|(pour) ([A-J])\s*->\s*([A-J])", move.strip())
        if parts is None:
            raise UnreadableError(f"{move[:40]!r} is no move")
        named = [jug for jug in (parts[2], parts[4], parts[5]) if jug]
        if any(jug not in sizes for jug in named):
            return False, f"{move}: there is no such jug"
        if parts[1]:
            water[named[0]] = sizes[named[0]] if parts[1] == "fill" else 0
        else:
            poured = min(water[named[0]], sizes[named[1]] - water[named[1]]) if named[0] != named[1] else 0
            water[named[0]] -= poured
            water[named[1]] += poured
    return puzzle["target"] in water.values(), f"the jugs hold {water}"


def knight_swap(answer: str, _gold: str, meta: Meta) -> Outcome:
    """Swap all knights: alternating, along the board's edges, to empty squares."""
    if answer.strip().strip('".').casefold() == "no":
        return not field(meta, "is_possible"), "it is possible"
    if not field(meta, "is_possible"):
        return False, "it is not possible"
    board, start = field(meta, "board"), dict(field(meta, "pieces"))
    pieces, turn = dict(start), meta.get("start_turn", "w")
    for move in _bounded(_texts(answer)):
        parts = [part.strip() for part in move.split(",")]
        if len(parts) != 3:
            raise UnreadableError(f"{move[:40]!r} is no move")
        colour, begin, end = parts
        if colour != turn or pieces.get(begin) != colour or end not in board.get(begin, ()) or pieces.get(end) is not None:
            return False, f"{move}: not allowed"
        pieces[begin], pieces[end], turn = None, colour, "B" if turn == "w" else "w"
    other = {"w": "B", "B": "w", None: None}
    return all(pieces[square] == other[piece] for square, piece in start.items()), "the knights are not swapped"


def shortest_path(answer: str, gold: str, meta: Meta) -> Outcome:
    wanted = gold.split()
    steps = [step.casefold() for step in re.split(r"[\s,]+", answer.strip()) if step]
    if wanted == ["infeasible"] or steps == ["infeasible"]:
        return steps == wanted, f"right is {gold}"
    matrix = field(meta, "matrix")
    at = next((r, c) for r, row in enumerate(matrix) for c, cell in enumerate(row) if cell == "*")
    for step in _bounded(steps):
        if step not in _STEPS:
            raise UnreadableError(f"{step[:20]!r} is no step")
        at = (at[0] + _STEPS[step][0], at[1] + _STEPS[step][1])
        if not (0 <= at[0] < len(matrix) and 0 <= at[1] < len(matrix[0])) or matrix[at[0]][at[1]] == "X":
            return False, "the path leaves the free cells"
    if matrix[at[0]][at[1]] != "#":
        return False, "the path does not end at the goal"
    return len(steps) == len(wanted), f"{len(steps)} steps, the shortest has {len(wanted)}"


def quantum_lock(answer: str, gold: str, meta: Meta) -> Outcome:
    """As short as can be, and no button pressed while it is off."""
    buttons = {button["name"]: button for button in field(meta, "buttons")}
    value, light = field(meta, "initial_value"), field(meta, "initial_state")
    pressed = re.split(r"\s*(?:→|->|,|\s)\s*", answer.strip().upper())
    if not set(pressed) <= set(buttons):
        raise UnreadableError("no sequence of buttons")
    for name in _bounded(pressed):
        button = buttons[name]
        if button["active_state"] not in (light, "any"):
            return False, f"{name} does nothing while the light is {light}"
        amount, kind = button["value"], button["type"]
        value = value + amount if kind == "add" else value - amount if kind == "subtract" else value * amount
        if abs(value) > 10**30:
            return False, "far beyond the target"
        light = "green" if light == "red" else "red"
    right = value == field(meta, "target_value")
    shortest = len(pressed) == len(re.findall(r"[A-Z]", gold))
    return right and shortest, f"comes to {value}" if not right else "there is a shorter sequence"


def sokoban(answer: str, _gold: str, meta: Meta) -> Outcome:
    """Every box ends on a goal; a step against a wall does nothing, as in the game."""
    rows = [line.replace(" ", "") for line in field(meta, "gamestr").splitlines() if line.strip()]
    cells = {(r, c): mark for r, row in enumerate(rows) for c, mark in enumerate(row)}
    boxes = {place for place, mark in cells.items() if mark in "@$"}
    goals = {place for place, mark in cells.items() if mark in "X$%"}
    at = next(place for place, mark in cells.items() if mark in "*%")
    text = "".join(answer.split()).casefold()
    if not re.fullmatch(r"[udlr]{1,10000}", text):
        raise UnreadableError("no string of U, D, L, R")
    for step in text:
        down, right = _STEPS[step]
        ahead, beyond = (at[0] + down, at[1] + right), (at[0] + 2 * down, at[1] + 2 * right)
        if cells.get(ahead, "+") == "+" or (ahead in boxes and (cells.get(beyond, "+") == "+" or beyond in boxes)):
            continue
        if ahead in boxes:
            boxes = (boxes - {ahead}) | {beyond}
        at = ahead
    return boxes <= goals, "a box is not on a goal"


def rush_hour(answer: str, _gold: str, meta: Meta) -> Outcome:
    """Moves on the board of the question; solved when the car AA stands at the right edge."""
    board = field(meta, "question").partition("Board:")[2].split()
    cars: dict[str, list[tuple[int, int]]] = {}
    for row, line in enumerate(board):
        for column, mark in enumerate(line):
            if mark.isupper():
                cars.setdefault(mark, []).append((row, column))
    walls = {(r, c) for r, line in enumerate(board) for c, mark in enumerate(line) if mark == "x"}
    moves = answer.split()
    if not moves or not all(re.fullmatch(r"[A-Z][-+]\d{1,2}", move) for move in moves):
        raise UnreadableError("no moves such as F+1")
    taken = {place for car in cars.values() for place in car} | walls
    for move in _bounded(moves):
        car = cars.get(move[0])
        if car is None:
            return False, f"there is no car {move[0]}"
        flat, sign = car[0][0] == car[-1][0], 1 if move[1] == "+" else -1
        for _ in range(int(move[2:])):
            moved = [(r, c + sign) if flat else (r + sign, c) for r, c in car]
            free = all(0 <= r < len(board) and 0 <= c < len(board[0]) for r, c in moved) and not (set(moved) - set(car)) & taken
            if not free:
                return False, f"{move}: the way is blocked"
            taken = (taken - set(car)) | set(moved)
            car = cars[move[0]] = moved
    return max(c for _, c in cars["A"]) == len(board[0]) - 1, "the red car is not at the exit"


def rubiks_cube(answer: str, _gold: str, meta: Meta) -> Outcome:
    """The scramble, then the answer: solved where every side shows one colour."""
    size = field(meta, "cube_size")
    edge = size - 1
    stickers: dict[tuple[int, ...], int] = {}  # place (doubled, around the centre) and the way it looks: its side
    for axis in range(3):
        for sign in (1, -1):
            for a in range(-edge, edge + 1, 2):
                for b in range(-edge, edge + 1, 2):
                    place, normal = [a, b], [0, 0, 0]
                    place.insert(axis, sign * edge)
                    normal[axis] = sign
                    stickers[*place, *normal] = 2 * axis + (sign > 0)
    for move in _bounded([*field(meta, "scramble_moves").split(), *answer.split()]):
        stickers = _turned(stickers, move, edge)
    sides: dict[tuple[int, ...], set[int]] = {}
    for sticker, colour in stickers.items():
        sides.setdefault(sticker[3:], set()).add(colour)
    return all(len(colours) == 1 for colours in sides.values()), "the cube is not solved"


_FACES = {"R": (0, 1), "L": (0, -1), "U": (1, 1), "D": (1, -1), "F": (2, 1), "B": (2, -1)}
_MIDDLE = {"M": "L", "E": "D", "S": "F"}
_WHOLE = {"X": "R", "Y": "U", "Z": "F"}


def _turned(stickers: dict[tuple[int, ...], int], move: str, edge: int) -> dict[tuple[int, ...], int]:
    parts = re.fullmatch(r"(\d?)([RLUDFBMESXYZxyz])(w?)(2?)('?)", move)
    if parts is None:
        raise UnreadableError(f"{move[:10]!r} is no move")
    layer, face, wide, twice, back = parts.groups()
    face = face.upper()
    axis, sign = _FACES[_MIDDLE.get(face, _WHOLE.get(face, face))]
    depth = int(layer or (2 if wide else 1))
    chosen = {sign * (edge - 2 * (depth - 1))} if not wide else {sign * (edge - 2 * one) for one in range(depth)}
    if face in _WHOLE:
        chosen = set(range(-edge, edge + 1, 2))
    elif face in _MIDDLE:
        chosen = set(range(-edge + 2, edge - 1, 2))
    quarter = -sign if not back else sign
    for _ in range(2 if twice else 1):
        stickers = {_rotated(place, axis, quarter) if place[axis] in chosen else place: c for place, c in stickers.items()}
    return stickers


def _rotated(place: tuple[int, ...], axis: int, quarter: int) -> tuple[int, ...]:
    """A quarter turn, right-handed around the axis for quarter = 1, of the place and of the way it looks."""
    turned: list[int] = []
    for at in (0, 3):
        vector: list[Any] = list(place[at : at + 3])
        one, other = (axis + 1) % 3, (axis + 2) % 3
        vector[one], vector[other] = -quarter * vector[other], quarter * vector[one]
        turned += vector
    return tuple(turned)


def _texts(answer: str) -> list[str]:
    moves = items(answer)
    if not isinstance(moves, list) or not all(isinstance(move, str) for move in moves):
        raise UnreadableError("no list of moves")
    return moves


def _bounded(moves: list[str]) -> list[str]:
    if len(moves) > _MOST_MOVES:
        raise UnreadableError(f"more than {_MOST_MOVES} moves")
    return moves
