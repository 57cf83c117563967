"""What each step of a run was made of and came to, to find where two runs part.

`ledger.jsonl` in the run's folder holds a line a step:
`{"step": 12, "batch": "9f…", "loss": 2.31, "norm": 0.94}`, some with `"weights": "3c…"`, the digest
of the trained weights after that step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.files import write_atomic
from ..lines import say

LEDGER_FILE = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """A step.

    Attributes:
        step: its number, from 1.
        batch: stands for the content of its rows, in whatever order and micro-batches.
        loss: mean over its supervised tokens, before the update.
        norm: of the gradients, before clipping.
        weights: stands for the bits of the trained weights after it, where they were taken.
    """

    step: int
    batch: str
    loss: float
    norm: float
    weights: str | None = None

    def line(self) -> str:
        """As it stands in the file, with the line's end."""
        values: dict[str, Any] = {"step": self.step, "batch": self.batch}
        values |= {"loss": self.loss, "norm": self.norm}
        if self.weights is not None:
            values["weights"] = self.weights
        return json.dumps(values) + "\n"


class Ledger:
    """Writes a run's ledger.

    A run that goes on in the same folder continues the file: steps that are taken once more, after
    the checkpoint it goes on from, replace what stood there, and so does a line that a killed
    process left half written. What a full disk does not take waits for room.

    Args:
        folder: the run's folder; None on the ranks that do not write.
        step: the step that the run goes on from; 0 starts the file anew.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._file = None if folder is None else folder / LEDGER_FILE
        self._waiting: list[Entry] = []
        self._begins = ""
        if self._file is not None:
            before = [entry for entry in _read(self._file) if entry.step <= step]
            write_atomic(self._file, "".join(entry.line() for entry in before))

    def add(self, entry: Entry) -> None:
        """Note a step, to be written with the next `flush`."""
        self._waiting.append(entry)

    def weigh(self, digest: str) -> None:
        """Note the digest of the weights after the last step, unless that is written already."""
        if self._waiting:
            self._waiting[-1] = replace(self._waiting[-1], weights=digest)

    def flush(self, *, last: bool = True) -> None:
        """Append the steps that were noted, whole lines at once.

        Args:
            last: also the last of them, whose weights may still be asked for.
        """
        kept = [] if last else self._waiting[-1:]
        lines = "".join(entry.line() for entry in self._waiting[: len(self._waiting) - len(kept)])
        if lines and self._file is not None:
            try:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(self._begins + lines)
            except OSError as error:
                if not self._begins:
                    say(f"tunedeck: warning: {self._file} cannot be written: {error.strerror}")
                # What was written of them may end in half a line.
                self._begins = "\n"
                return
        self._waiting, self._begins = kept, ""


def read_ledger(path: Path) -> list[Entry]:
    """The steps of a ledger, in order; a line that is not whole is left out.

    Args:
        path: the file, or the run's folder.

    Raises:
        UsageError: there is no ledger, or no step in it.
    """
    file = path / LEDGER_FILE if path.is_dir() else path
    entries = list(_read(file))
    if not entries:
        there = "The ledger holds no step" if file.is_file() else "There is no ledger"
        raise UsageError(
            f"{there}: '{file}'.",
            fix=f"Name a run's folder or its {LEDGER_FILE}. A run writes it as it trains.",
        )
    return entries


def _read(file: Path) -> Iterator[Entry]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            values = json.loads(line)
            yield Entry(
                int(values["step"]),
                str(values["batch"]),
                float(values["loss"]),
                float(values["norm"]),
                values.get("weights"),
            )
        except (ValueError, KeyError, TypeError):
            continue
