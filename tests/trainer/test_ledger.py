from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.__main__ import main
from tunedeck.trainer.reporting.diff import Parting, compare
from tunedeck.trainer.reporting.ledger import LEDGER_FILE, Entry, Ledger, read_ledger


def entries(count: int, first: int = 1) -> list[Entry]:
    return [
        Entry(step, f"{step:016x}", 2.5 / step, 0.5, f"w{step}" if step % 2 == 0 else None)
        for step in range(first, first + count)
    ]


def write(folder: Path, steps: list[Entry], *, after: int = 0) -> Ledger:
    ledger = Ledger(folder, after)
    for entry in steps:
        ledger.add(entry)
    ledger.flush()
    return ledger


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ledger = write(tmp_path, entries(3))
    ledger.flush()
    for entry in entries(2, first=4):
        ledger.add(entry)
    ledger.flush()
    assert read_ledger(tmp_path) == entries(5) == read_ledger(tmp_path / LEDGER_FILE)


def test_a_run_that_goes_on_replaces_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, entries(6))
    again = [replace(entry, loss=1.0) for entry in entries(2, first=5)]
    write(tmp_path, again, after=4)
    assert read_ledger(tmp_path) == [*entries(4), *again]


def test_the_last_step_waits_for_its_weights(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 0)
    plain = [replace(entry, weights=None) for entry in entries(3)]
    for entry in plain:
        ledger.add(entry)
    ledger.flush(last=False)
    assert read_ledger(tmp_path) == plain[:2]
    ledger.weigh("bits")
    ledger.flush()
    assert read_ledger(tmp_path) == [*plain[:2], replace(plain[2], weights="bits")]


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, file = Ledger(tmp_path, 0), tmp_path / LEDGER_FILE
    file.unlink()
    file.mkdir()
    for entry in entries(2):
        ledger.add(entry)
        ledger.flush()
    assert capsys.readouterr().out.count(f"warning: {file} cannot be written") == 1
    file.rmdir()
    file.write_text('{"step": 1, "ba')
    ledger.add(entries(3)[2])
    ledger.flush()
    assert read_ledger(tmp_path) == entries(3)


def test_a_rank_that_does_not_write_writes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(None, 0)
    ledger.add(entries(1)[0])
    ledger.flush()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_starts_anew_starts_its_ledger_anew(tmp_path: Path) -> None:
    write(tmp_path, entries(6))
    write(tmp_path, entries(1))
    assert read_ledger(tmp_path) == entries(1)


@pytest.mark.parametrize("torn", ['{"step": 4, "ba', "\x00\x00\x00", '{"step": 4}\n', "[1]"])
def test_a_line_that_a_killed_process_left_is_no_step_and_is_gone_after_the_resume(
    torn: str, tmp_path: Path
) -> None:
    write(tmp_path, entries(3))
    with (tmp_path / LEDGER_FILE).open("a") as file:
        file.write(torn)
    assert read_ledger(tmp_path) == entries(3)
    write(tmp_path, entries(1, first=4), after=3)
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


def test_runs_that_come_to_no_number_in_the_same_step_agree() -> None:
    nan = float("nan")
    alike = [replace(entry, loss=nan, norm=nan) for entry in entries(2)]
    assert compare(alike, list(alike)).parting is None


def test_a_tolerance_lets_rounding_pass_and_nothing_more() -> None:
    a = entries(4)
    near = [replace(entry, loss=entry.loss * (1 + 1e-6), weights="other") for entry in a]
    assert compare(a, near).parting is not None
    assert compare(a, near, tolerance=1e-5).parting is None
    assert compare(a, near, tolerance=1e-7).parting is not None


def test_the_command_names_the_step_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a", entries(6))
    other = [replace(entry, norm=0.75) if entry.step >= 5 else entry for entry in entries(9)]
    write(tmp_path / "b", other)
    one, two = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["diff", one, two]) == 1
    assert "part at step 5, in the gradients" in capsys.readouterr().out
    assert main(["diff", one, two, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["parting"] == {"step": 5, "part": "norm", "a": 0.5, "b": 0.75}
    assert found["compared"] == 6
    assert main(["diff", one, one]) == 0
    assert "agree in all 6 common steps" in capsys.readouterr().out
    write(tmp_path / "late", entries(2, first=20))
    assert main(["diff", one, str(tmp_path / "late")]) == 1
    assert "no step in common" in capsys.readouterr().out


def test_a_run_without_a_ledger_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="There is no ledger"):
        read_ledger(tmp_path)
    assert main(["diff", str(tmp_path), str(tmp_path)]) == 2
    assert LEDGER_FILE in capsys.readouterr().err


def test_a_resumed_run_has_the_ledger_of_an_uninterrupted_one(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    steps = {"max_steps": 7, "ckpt_every_steps": 2}
    keep = {"keep_last": None}
    assert sft.main(configure(peft="lora", step_scheduler=steps, checkpoint=keep), whole) == 0
    shutil.copytree(whole, part, symlinks=True)
    with (part / LEDGER_FILE).open("a") as file:
        file.write('{"step": 8, "ba')
    restore = {**keep, "restore_from": str(part / "checkpoints/step_000004")}
    assert sft.main(configure(peft="lora", step_scheduler=steps, checkpoint=restore), part) == 0
    ledger = read_ledger(part)
    assert ledger == read_ledger(whole)
    assert [entry.step for entry in ledger] == list(range(1, 8))
    assert [entry.step for entry in ledger if entry.weights] == [2, 4, 6, 7]
    assert len({entry.weights for entry in ledger if entry.weights}) == 4


def test_micro_batches_leave_the_rows_of_a_step_what_they_are(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    sft.main(configure(step_scheduler={"local_batch_size": 1}), one)
    sft.main(configure(step_scheduler={"local_batch_size": 4}), two)
    found = compare(read_ledger(one), read_ledger(two), tolerance=1e-5)
    assert found.parting is None
    assert found.compared == 4


def test_runs_part_in_the_rows_where_one_of_them_was_changed(
    configure: Callable[..., TrainConfig], tmp_path: Path, chat_file: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    in_order = {"dataloader": {"shuffle": False}}
    sft.main(configure(**in_order), one)
    content = chat_file.read_text().splitlines()
    row = json.loads(content[9])
    row["messages"][0]["content"] = "changed"
    content[9] = json.dumps(row)
    chat_file.write_text("\n".join(content) + "\n")
    sft.main(configure(**in_order), two)
    parting = compare(read_ledger(one), read_ledger(two)).parting
    assert parting is not None
    assert (parting.step, parting.part) == (3, "batch")


def test_runs_part_in_the_weights_where_only_the_rate_differs(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    every = {"ckpt_every_steps": 1}
    sft.main(configure(step_scheduler=every), one)
    sft.main(configure(step_scheduler=every, optimizer={"lr": 2e-2}), two)
    parting = compare(read_ledger(one), read_ledger(two)).parting
    assert parting is not None
    assert (parting.step, parting.part) == (1, "weights")
