"""`read_samples`: whatever an evaluation has left behind, as one table of samples."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from align.data.files import missing_file, read_file
from align.errors import DataError
from align.evaluate.formats import evalplus, evaluation_folder, human_eval, lm_eval
from align.evaluate.formats.choice import ReadChoice
from align.evaluate.samples import SampleTable

_KNOWN = (
    "an evaluation folder of align (samples.jsonl.gz, samples*.parquet), samples of human-eval (task_id, completion), "
    "eval_results.json of evalplus, or samples_*.jsonl of lm-eval"
)


def read_samples(path: Path, choice: ReadChoice | None = None, *, name: str | None = None) -> SampleTable:
    """The samples of an evaluation folder or file of align, human-eval, evalplus or lm-eval; content tells which.

    `name` (default: the path) is what tables call it. Raises DataError where nothing fits, a line cannot be read, or `choice` has
    to say more.
    """
    choice, name = choice or ReadChoice(), name or str(path)
    if path.is_dir():
        return _read_folder(path, name, choice)
    if not path.is_file():
        raise missing_file(path)
    if path.suffix.lower() == ".parquet":
        return evaluation_folder.read([path], name, choice)
    if path.name.lower().endswith((".json", ".json.gz")):
        return _read_document(path, name, choice)
    first = next(iter(read_file(path)), None)
    columns = (first.columns if first is not None else None) or {}
    if "prompt_id" in columns:
        return evaluation_folder.read([path], name, choice)
    if lm_eval.is_samples(columns):
        return lm_eval.read([path], name, choice)
    if "task_id" in columns:
        return human_eval.read(path, name, choice)
    why = "is empty" if first is None else first.why or f"has the columns {', '.join(columns)}, which are of no known format"
    raise DataError(why, place=str(path), fix=f"name {_KNOWN}")


def evaluations_in(path: Path) -> list[Path]:
    """The evaluations of several models in one folder, in order of their names; else the path alone."""
    if not path.is_dir() or evaluation_folder.sample_files(path):
        return [path]
    return sorted(one for one in path.iterdir() if one.is_dir() and evaluation_folder.sample_files(one)) or [path]


def _read_folder(folder: Path, name: str, choice: ReadChoice) -> SampleTable:
    if files := evaluation_folder.sample_files(folder):
        return evaluation_folder.read(files, name, choice)
    if (results := folder / evalplus.FILE).is_file():
        return _read_document(results, name, choice)
    if files := lm_eval.sample_files(folder):
        return lm_eval.read(files, name, choice)
    fix = f"name {_KNOWN}"
    if (folder / "result.json").is_file():
        fix = "its evaluation has written figures and no samples: evaluate again with --out"
    elif (folder / "eval").is_dir():
        fix = f"evaluate the model of this run first: align evaluate RECIPE --model {folder} --out FOLDER"
    raise DataError("holds no samples of an evaluation", place=str(folder), fix=fix)


def _read_document(path: Path, name: str, choice: ReadChoice) -> SampleTable:
    content = _json(path)
    if evalplus.is_results(content):
        return evalplus.read(content, path, name, choice)
    if lm_eval.is_results(content):
        return lm_eval.read(lm_eval.samples_of_results(path), name, choice)
    raise DataError("is a JSON document of no known format", place=str(path), fix=f"name {_KNOWN}")


def _json(path: Path) -> Any:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return json.loads(data)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", place=str(path), fix=f"name {_KNOWN}") from error
