"""Languages other than Python, as commands that compile and run a program."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from align.errors import RecipeError

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/alternatives")


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """`file` is what the program is called; `compile` must make `program`. Empty `run`: Python, in the warm interpreter.

    `fences` are the names that a code fence may have, `paths` what the commands may read of this machine.
    """

    file: str = "program.py"
    compile: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    fences: tuple[str, ...] = ("python", "py", "python3")
    paths: tuple[str, ...] = _SYSTEM
    processes: int = 16


LANGUAGES: Mapping[str, Language] = {
    "python": Language(),
    "cpp": Language(
        file="program.cpp",
        compile=("g++", "-O2", "-std=c++17", "-o", "program", "program.cpp"),
        run=("./program",),
        fences=("cpp", "c++", "cc", "cxx"),
    ),
    "c": Language(
        file="program.c", compile=("gcc", "-O2", "-o", "program", "program.c", "-lm"), run=("./program",), fences=("c",)
    ),
    "javascript": Language(file="program.js", run=("node", "program.js"), fences=("javascript", "js"), processes=64),
    "bash": Language(file="program.sh", run=("bash", "program.sh"), fences=("bash", "sh", "shell")),
}


def language_of(name: str, command: Mapping[str, str | list[str]] | None) -> Language:
    """A language by name, or one of the recipe's own: {file, compile, run}, commands as text or lists.

    Raises RecipeError where it is not known, or its command is not installed.
    """
    if command:
        base = Language(
            file=str(command.get("file", "program")),
            compile=_words(command.get("compile", ())),
            run=_words(command["run"]),
            fences=(name,),
            paths=(*_SYSTEM, "/opt"),
            processes=64,
        )
    elif name in LANGUAGES:
        base = LANGUAGES[name]
    else:
        fix = f"there are {', '.join(LANGUAGES)}; or give command: {{file: program.rb, run: ruby program.rb}}"
        raise RecipeError(f"there is no language {name!r}", place="rewards: code: params.language", fix=fix)
    found = {word: shutil.which(word) for word in (base.compile[:1] + base.run[:1]) if not word.startswith("./")}
    if missing := [word for word, path in found.items() if path is None]:
        fix = f"install {' and '.join(missing)}, or judge another language"
        raise RecipeError(f"{missing[0]} is not installed, which {name} needs", place="rewards: code: params.language", fix=fix)
    return base


def _words(command: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(command.split()) if isinstance(command, str) else tuple(command)
