"""The map of the trainer, which is the docstring of its package, tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

from tunedeck import trainer

ROOT = Path(str(trainer.__file__)).parent
assert trainer.__doc__ is not None
WAY, OTHERS = trainer.__doc__.split("The other files")


def named(text: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", text)


def test_the_way_of_a_run_is_as_long_as_it_says() -> None:
    lines = sum(
        len((ROOT / f"{name.replace('.', '/')}.py").read_text().splitlines()) for name in named(WAY)
    )
    (said,) = re.findall(r"about ([\d,]+) lines", WAY)
    assert abs(lines - int(said.replace(",", ""))) < 150


def test_every_file_is_on_it() -> None:
    there = {
        path.stem
        for path in ROOT.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.stem != "__init__"
    }
    assert {name.partition(".")[0] for name in named(WAY + OTHERS)} == there
