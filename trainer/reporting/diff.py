"""`python -m tunedeck.trainer diff A B`: the first step at which two runs part, and in what."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ...core.errors import ExitCode
from .ledger import Entry, read_ledger

Part: TypeAlias = Literal["batch", "loss", "norm", "weights"]


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two runs part.

    Attributes:
        step: the first step at which they differ.
        part: in what: the rows of the step, the loss on them, the gradients' norm, or the weights
            after the step. The first of these, in that order, is the cause of the others.
        a, b: what each of them has there.
    """

    step: int
    part: Part
    a: str | float
    b: str | float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ledgers side by side.

    Attributes:
        parting: None where they agree in all steps that both have.
        compared: how many steps both have.
        a, b: the first and the last step of each.
    """

    parting: Parting | None
    compared: int
    a: tuple[int, int]
    b: tuple[int, int]


def compare(a: Sequence[Entry], b: Sequence[Entry], *, tolerance: float = 0.0) -> Comparison:
    """Compare two ledgers step by step.

    Args:
        a: the steps of one in order, at least one.
        b: those of the other.
        tolerance: loss and norm may differ by this share; above 0 weights are not compared, whose
            digests differ with any bit.
    """
    others = {entry.step: entry for entry in b}
    both = [(entry, others[entry.step]) for entry in a if entry.step in others]
    found = (_parting(one, other, tolerance) for one, other in both)
    return Comparison(
        next((parting for parting in found if parting is not None), None),
        len(both),
        (a[0].step, a[-1].step),
        (b[0].step, b[-1].step),
    )


def _parting(a: Entry, b: Entry, tolerance: float) -> Parting | None:
    if a.batch != b.batch:
        return Parting(a.step, "batch", a.batch, b.batch)
    if not _close(a.loss, b.loss, tolerance):
        return Parting(a.step, "loss", a.loss, b.loss)
    if not _close(a.norm, b.norm, tolerance):
        return Parting(a.step, "norm", a.norm, b.norm)
    if tolerance == 0 and a.weights and b.weights and a.weights != b.weights:
        return Parting(a.step, "weights", a.weights, b.weights)
    return None


def _close(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) or (math.isnan(a) and math.isnan(b))


def main(arguments: list[str]) -> int:
    """Compare two runs; 0 if they agree, 1 if they part.

    Raises:
        UsageError: one of them has no ledger.
    """
    parser = argparse.ArgumentParser(prog="python -m tunedeck.trainer diff", description=__doc__)
    parser.add_argument("a", type=Path, metavar="A", help="a run's folder, or its ledger.jsonl")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="loss and norm may differ by this share, e.g. 1e-5 for other world sizes; 0 is to "
        "the bit",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    a, b = read_ledger(options.a), read_ledger(options.b)
    found = compare(a, b, tolerance=options.tolerance)
    if options.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _words(found)))
    return int(ExitCode.FAILURE if found.parting or not found.compared else ExitCode.OK)


def _words(found: Comparison) -> list[str]:
    spans = [f"{name} has steps {first} to {last}" for name, (first, last) in _spans(found)]
    if not found.compared:
        return [f"The runs have no step in common: {' and '.join(spans)}."]
    parting = found.parting
    if parting is None:
        return [f"The runs agree in all {found.compared} common steps ({', '.join(spans)})."]
    lines = [f"The runs part at step {parting.step}, in the {_MEANING[parting.part]}:"]
    lines += [f"  A  {parting.a}", f"  B  {parting.b}"]
    if isinstance(parting.a, float) and isinstance(parting.b, float):
        lines.append(f"  apart by {abs(parting.a - parting.b):.3g}")
    return lines


def _spans(found: Comparison) -> list[tuple[str, tuple[int, int]]]:
    return [("A", found.a), ("B", found.b)]


_MEANING: dict[Part, str] = {
    "batch": "rows (data, their order, or the tokenizer)",
    "loss": "loss on the same rows (weights before the step, dropout, or arithmetic)",
    "norm": "gradients at the same loss (the backward pass)",
    "weights": "weights after the same gradients (optimizer or learning rate)",
}
