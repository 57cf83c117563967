"""A model's safetensors, read and written one tensor at a time.

The format is eight bytes of header length, a JSON header (name → dtype, shape, byte range), then
the data, row-major and little-endian: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...core.errors import UsageError

INDEX = "model.safetensors.index.json"
"""Which file holds which tensor, where there are several."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor that is not loaded.

    Attributes:
        name: its name in the model.
        dtype, shape: its format.
        file: name of the file in the model's folder.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


def list_tensors(folder: Path) -> dict[str, Entry]:
    """Every tensor of a model's folder by name, in the order of the files.

    Raises:
        UsageError: the folder holds no safetensors, a damaged file, or weights in a format that
            cannot be computed with.
    """
    entries: dict[str, Entry] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - the handle itself cannot be iterated
                    view = opened.get_slice(name)
                    dtype = _DTYPES.get(view.get_dtype())
                    if dtype is None:
                        raise UsageError(
                            f"'{name}' in {file} is stored as {view.get_dtype()}.",
                            fix="Give a base in float32, bfloat16 or float16.",
                        )
                    entries[name] = Entry(name, dtype, tuple(view.get_shape()), file.name)
        except SafetensorError as error:
            raise UsageError(
                f"{file} is damaged: {error}", fix="Copy or download that file again."
            ) from error
    return entries


def load_tensor(folder: Path, entry: Entry) -> Tensor:
    """The tensor, on the CPU, as it is stored."""
    with safe_open(folder / entry.file, framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(entry.name)
        return tensor


def write_model(folder: Path, entries: Iterable[Entry], produce: Callable[[Entry], Tensor]) -> None:
    """Write a model's weights, holding one tensor at a time.

    Args:
        folder: takes the files and, where there are several, their index.
        entries: what to write and in which file.
        produce: makes the tensor of an entry, with the entry's dtype and shape.

    Raises:
        OSError: the disk is full or the folder not writable.
    """
    entries = list(entries)
    for name, held in by_file(entries).items():
        write_file(folder / name, held, produce)
    write_index(folder, entries)


def by_file(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """What each file holds, in order."""
    files: dict[str, list[Entry]] = {}
    for entry in entries:
        files.setdefault(entry.file, []).append(entry)
    return files


def write_index(folder: Path, entries: Iterable[Entry]) -> Path | None:
    """Tell readers which file holds which tensor; None, and nothing, where there is one file."""
    files = by_file(entries)
    if len(files) < 2:
        return None
    total = sum(entry.size for held in files.values() for entry in held)
    where = {entry.name: name for name, held in files.items() for entry in held}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder / INDEX


def write_file(path: Path, entries: Iterable[Entry], produce: Callable[[Entry], Tensor]) -> None:
    """Write one safetensors file, holding one tensor at a time; see `write_model`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    # Readers expect each tensor to start at a multiple of its item size: wide formats come first.
    ordered = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    for entry in ordered:
        span = [offset, offset + entry.size]
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": span,
        }
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for entry in ordered:
                tensor = produce(entry)
                assert (tensor.dtype, tuple(tensor.shape)) == (entry.dtype, entry.shape), entry
                file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
                del tensor  # before the next one is made
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in named]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise UsageError(
                f"{missing[0]} is missing, though {INDEX} names it.",
                fix="Copy or download the model again.",
            )
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UsageError(
            f"'{folder}' holds no safetensors weights.",
            fix="Load the model with transformers once and save it with save_pretrained().",
        )
    return files
