"""Which files a data set is: a file, a glob, a folder, or a list of them with weights."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import UsageError
from .splits import WHOLE

DataSpec: TypeAlias = str | Path | Sequence["str | Path | Mapping[str, Any]"]
"""`dataset.path_or_dataset_id`: one path, glob or hub id, or a list of {path, weight}."""

SUFFIXES = (".jsonl", ".ndjson", ".json")
"""Files that are read; a `.json` file may hold an array or one row a line."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
_WANTED = "Chat rows are read from .jsonl, .ndjson and .json files."


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of a data set.

    Attributes:
        spec: the path, glob, folder or hub id as it was written.
        files: the local files in reading order; empty for a hub id.
        weight: its share in a blend, relative to the other sources.
        hub_id: the data set's name on the hub, where it is no local path.
    """

    spec: str
    files: tuple[Path, ...]
    weight: float = 1.0
    hub_id: str | None = None


def find_sources(spec: DataSpec, *, split: str = WHOLE.name) -> list[Source]:
    """Resolve a data set to local files, or to a hub id.

    In a folder, files that carry another split's name (`validation.jsonl` when `train` is wanted)
    are left out.

    Args:
        spec: what `dataset.path_or_dataset_id` holds; relative paths are those of the process.
        split: the name of the wanted split, without its slice.

    Raises:
        UsageError: nothing is there, a file is of a kind that is not read (packed Parquet, by
            name), or a weight is not a positive number.
    """
    if isinstance(spec, str | Path):
        return [_find(str(spec), split, 1.0)]
    if isinstance(spec, Mapping) or not spec:
        raise UsageError(
            "The data set is neither a path nor a list of {path, weight}.",
            fix="Set path_or_dataset_id to a file, a glob, a folder, a hub id, or a list of them.",
        )
    return [_find_entry(entry, split) for entry in spec]


def _find_entry(entry: Any, split: str) -> Source:
    if isinstance(entry, str | Path):
        return _find(str(entry), split, 1.0)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str | Path):
        raise UsageError(
            f"The data set's entry {entry!r} has no path.",
            fix="Write each entry as {path: FILE, weight: 1.0}.",
        )
    if unknown := [str(key) for key in entry if key not in ("path", "weight")]:
        raise UsageError(
            f"A data set's entry has no key '{unknown[0]}': see the one of '{entry['path']}'.",
            fix="Write each entry as {path: FILE, weight: 1.0}.",
        )
    weight = entry.get("weight", 1.0)
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight <= 0:
        raise UsageError(
            f"The weight of '{entry['path']}' is {weight!r}, not a positive number.",
            fix="Write a number above 0: 1.0 takes the data as it is, 2.0 takes it twice.",
        )
    return _find(str(entry["path"]), split, float(weight))


def _find(spec: str, split: str, weight: float) -> Source:
    path = Path(spec).expanduser()
    if not spec.strip():
        raise UsageError(
            "The data set's path is empty.",
            fix="Set path_or_dataset_id to a file, a glob, a folder, or a hub id (owner/name).",
        )
    if path.is_dir():
        files = _in_folder(path, split)
    elif path.exists():
        files = [path]
    else:
        files = _matching(path)
        if not files and is_hub_id(spec):
            return Source(spec, (), weight, hub_id=spec)
    if not files:
        magic = glob.has_magic(spec)
        raise UsageError(
            f"No file matches '{spec}'." if magic else f"There is no file '{spec}'.",
            fix="Give a .jsonl file, a glob, a folder, or a hub id (owner/name).",
        )
    for file in files:
        _refuse_other_kinds(file)
    return Source(spec, tuple(files), weight)


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    try:
        found = sorted(root.glob(str(pattern.relative_to(root))))
    except ValueError:
        return []
    return [file for file in found if file.is_file()]


def is_hub_id(spec: str) -> bool:
    """Whether a text that names no local path can be a data set on the hub."""
    known = spec.lower().endswith((*SUFFIXES, ".parquet", ".csv", ".txt", ".gz", ".arrow"))
    return bool(_HUB_ID.fullmatch(spec)) and not known


def _in_folder(folder: Path, split: str) -> list[Path]:
    inside = sorted(file for file in folder.iterdir() if file.is_file())
    for suffixes in ((".jsonl", ".ndjson"), (".json",)):
        files = [file for file in inside if file.suffix.lower() in suffixes]
        if files:
            return _of_split(files, split, folder)
    for file in inside:
        if file.suffix.lower() == ".parquet":
            _refuse_other_kinds(file)
    raise UsageError(f"The folder '{folder}' holds no .jsonl or .json file.", fix=_WANTED)


def _of_split(files: list[Path], split: str, folder: Path) -> list[Path]:
    named = {file: _split_of(file) for file in files}
    wanted = next((name for name, words in _SPLIT_WORDS.items() if split in words), split)
    chosen = [file for file in files if named[file] == wanted]
    if not chosen and wanted not in ("validation", "test"):
        chosen = [file for file in files if named[file] is None]
    if not chosen:
        raise UsageError(
            f"The folder '{folder}' holds no file of the split '{split}'.",
            fix=f"It holds {', '.join(file.name for file in files[:5])}: name one of them.",
        )
    return chosen


def _split_of(file: Path) -> str | None:
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next(
        (name for name, known in _SPLIT_WORDS.items() if any(word in known for word in words)), None
    )


def _refuse_other_kinds(file: Path) -> None:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        raise UsageError(
            f"'{file}' is packed Parquet; chat JSONL is wanted here.",
            fix="Point at the chat JSONL that it was packed from; packing is done while training, "
            "by packed_sequence.packed_sequence_size.",
        )
    if suffix not in SUFFIXES:
        raise UsageError(f"'{file}' is not a kind of file that is read.", fix=_WANTED)
