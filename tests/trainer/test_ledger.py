from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import UsageError
from tunedeck.trainer.__main__ import main
from tunedeck.trainer.diff import Parting, compare
from tunedeck.trainer.ledger import LEDGER_FILE, Entry, Ledger, read_ledger


def entries(count: int, first: int = 1) -> list[Entry]:
    return [
        Entry(step, f"{step:016x}", 2.5 / step, 0.5, f"w{step}" if step % 2 == 0 else None)
        for step in range(first, first + count)
    ]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 0)
    ledger.write(entries(3))
    ledger.write([])
    ledger.write(entries(2, first=4))
    assert read_ledger(tmp_path) == entries(5) == read_ledger(tmp_path / LEDGER_FILE)


def test_a_run_that_goes_on_replaces_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    Ledger(tmp_path, 0).write(entries(6))
    again = [replace(entry, loss=1.0) for entry in entries(2, first=5)]
    Ledger(tmp_path, 4).write(again)
    assert read_ledger(tmp_path) == [*entries(4), *again]


def test_a_run_that_starts_anew_starts_its_ledger_anew(tmp_path: Path) -> None:
    Ledger(tmp_path, 0).write(entries(6))
    Ledger(tmp_path, 0).write(entries(1))
    assert read_ledger(tmp_path) == entries(1)


@pytest.mark.parametrize("torn", ['{"step": 4, "ba', "\x00\x00\x00", '{"step": 4}\n', "[1]"])
def test_a_line_that_a_killed_process_left_is_no_step_and_is_gone_after_the_resume(
    torn: str, tmp_path: Path
) -> None:
    Ledger(tmp_path, 0).write(entries(3))
    with (tmp_path / LEDGER_FILE).open("a") as file:
        file.write(torn)
    assert read_ledger(tmp_path) == entries(3)
    Ledger(tmp_path, 3).write(entries(1, first=4))
    assert read_ledger(tmp_path) == entries(4)
    lines = (tmp_path / LEDGER_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, None),
        ({"batch": "other"}, "batch"),
        ({"batch": "other", "loss": 9.0}, "batch"),
        ({"loss": 0.6250001, "norm": 9.0}, "loss"),
        ({"loss": float("nan")}, "loss"),
        ({"norm": 0.50001}, "norm"),
        ({"weights": "other"}, "weights"),
        ({"weights": None}, None),
    ],
)
def test_the_first_step_at_which_runs_part_is_named_with_the_first_thing_in_which_they_do(
    changes: dict[str, Any], part: str | None
) -> None:
    a = entries(8)
    b = [replace(a[3], **changes) if entry.step == 4 else entry for entry in a]
    b[6] = replace(b[6], batch="later")
    parting = compare(a[:6], b).parting if part is None else compare(a, b).parting
    if part is None:
        assert parting is None
        assert compare(a, b).parting == Parting(7, "batch", a[6].batch, "later")
    else:
        assert parting is not None
        assert (parting.step, parting.part) == (4, part)


def test_a_tolerance_lets_rounding_pass_and_nothing_more() -> None:
    a = entries(4)
    near = [replace(entry, loss=entry.loss * (1 + 1e-6), weights="other") for entry in a]
    assert compare(a, near).parting is not None
    assert compare(a, near, tolerance=1e-5).parting is None
    assert compare(a, near, tolerance=1e-7).parting is not None


def test_the_command_names_the_step_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger(tmp_path / "a", 0).write(entries(6))
    other = [replace(entry, norm=0.75) if entry.step >= 5 else entry for entry in entries(9)]
    Ledger(tmp_path / "b", 0).write(other)
    one, two = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["diff", one, two]) == 1
    assert "part at step 5, in the gradients" in capsys.readouterr().out
    assert main(["diff", one, two, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["parting"] == {"step": 5, "part": "norm", "a": 0.5, "b": 0.75}
    assert found["compared"] == 6
    assert main(["diff", one, one]) == 0
    assert "agree in all 6 common steps" in capsys.readouterr().out
    Ledger(tmp_path / "late", 0).write(entries(2, first=20))
    assert main(["diff", one, str(tmp_path / "late")]) == 1
    assert "no step in common" in capsys.readouterr().out


def test_a_run_without_a_ledger_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="There is no ledger"):
        read_ledger(tmp_path)
    assert main(["diff", str(tmp_path), str(tmp_path)]) == 2
    assert LEDGER_FILE in capsys.readouterr().err
