from __future__ import annotations

import errno
import itertools
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tunedeck.core.errors import TunedeckError, UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.checkpoints import saving
from tunedeck.trainer.checkpoints import writer as checkpoint_writer
from tunedeck.trainer.checkpoints.checksums import SUMS_FILE, damage, read_sums
from tunedeck.trainer.checkpoints.published import STATE_FILE

from .helpers import digests, losses, metric_lines, saved

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8, "dropout": 0.1}
EVERY_STEP = {"ckpt_every_steps": 1}


def published(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").glob("step_*"))


def test_no_memory_is_registered_with_a_gpu_for_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    state = {"weight": torch.ones(3, 5)}
    copied = saving._copied(state)
    state["weight"].zero_()
    assert torch.equal(copied["weight"], torch.ones(3, 5))


@pytest.mark.parametrize("peft", [None, LORA])
def test_training_goes_on_while_a_checkpoint_of_its_step_is_written(
    peft: Any, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, later = tmp_path / "now", tmp_path / "later"
    for folder in (now, later):
        folder.mkdir()
    config = configure(peft=peft, step_scheduler=EVERY_STEP, checkpoint={"keep_last": None})
    assert sft.main(config, now) == 0

    went_on = threading.Event()
    write = checkpoint_writer.CheckpointWriter.write

    def held_up(self: Any, checkpoints: Any, moment: Any, state: Any) -> Path:
        if moment.step == 1:
            assert went_on.wait(60)
        return write(self, checkpoints, moment, state)

    save = saving.Saver.save

    def watched(self: Any, moment: Any, **options: Any) -> None:
        if moment.step == 2:
            assert published(later) == []
            went_on.set()
        save(self, moment, **options)

    monkeypatch.setattr(checkpoint_writer.CheckpointWriter, "write", held_up)
    monkeypatch.setattr(saving.Saver, "save", watched)
    settings = {"keep_last": None, "is_async": True}
    assert (
        sft.main(configure(peft=peft, step_scheduler=EVERY_STEP, checkpoint=settings), later) == 0
    )
    assert published(later) == published(now)
    for step in range(1, 5):
        assert digests(saved(later, step)) == digests(saved(now, step))
        assert damage(saved(later, step), read_sums(saved(later, step))) is None


def test_what_fails_in_the_background_ends_the_run_with_its_reason(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "a-disk")

    monkeypatch.setattr(checkpoint_writer, "save_shards", broken)
    config = configure(step_scheduler=EVERY_STEP, checkpoint={"async_save": True})
    with pytest.raises(TunedeckError, match=r"step 1 cannot be saved.*Input/output error: a-disk"):
        sft.main(config, tmp_path)
    assert published(tmp_path) == []
    assert not list((tmp_path / "checkpoints").glob("*.in_progress"))


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_was_full_at_the_last_step_is_tried_once_more(
    background: bool, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tries = checkpoint_writer.save_shards, itertools.count(1)

    def full_once(*arguments: Any, **options: Any) -> Any:
        if next(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments, **options)

    monkeypatch.setattr(checkpoint_writer, "save_shards", full_once)
    plan = {"max_steps": 2, "ckpt_every_steps": 2}
    config = configure(step_scheduler=plan, checkpoint={"async_save": background})
    assert sft.main(config, tmp_path) == 0
    assert published(tmp_path) == ["step_000002"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_full_twice_ends_the_run_and_loses_no_checkpoint(
    background: bool,
    configure: Configure,
    tmp_path: Path,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"checkpoint_dir": str(small_disk), "keep_last": None, "async_save": background}
    config = configure(step_scheduler={**EVERY_STEP, "max_steps": 40}, checkpoint=settings)
    with pytest.raises(TunedeckError, match="No space left on device") as caught:
        sft.main(config, tmp_path)
    assert "Make room" in caught.value.fix
    printed = capsys.readouterr().out
    whole = [path for path in small_disk.glob("step_*") if path.suffix == ""]
    assert whole
    assert all(damage(path, read_sums(path)) is None for path in whole)
    latest = (small_disk / "latest").resolve()
    assert latest == max(whole)
    assert printed.count("tunedeck: saved") == len(whole)
    assert f"The checkpoint of step {len(whole) + 1} cannot be saved" in printed
    assert "training goes on, and ends if the next save fails" in printed
    assert f"The checkpoint of step {len(whole) + 2} cannot be saved" in caught.value.message
    assert not list(small_disk.glob("*.in_progress"))


def test_room_that_is_made_in_time_saves_the_run(
    configure: Configure,
    tmp_path: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 1_800_000)
    said = saving.say

    def make_room(words: str) -> None:
        said(words)
        if "goes on" in words:
            filler.unlink()

    monkeypatch.setattr(saving, "say", make_room)
    settings = {"checkpoint_dir": str(small_disk), "keep_last": 1}
    assert sft.main(configure(step_scheduler=EVERY_STEP, checkpoint=settings), tmp_path) == 0
    assert "cannot be saved" in capsys.readouterr().out
    assert (small_disk / "latest").resolve().name == "step_000004"


def test_a_last_checkpoint_that_finds_no_room_fails_the_run(
    configure: Configure, tmp_path: Path, small_disk: Path
) -> None:
    (small_disk / "filler").write_bytes(b"x" * 1_800_000)
    settings = {"checkpoint_dir": str(small_disk)}
    with pytest.raises(TunedeckError, match="step 4 cannot be saved"):
        sft.main(configure(checkpoint=settings), tmp_path)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        *itertools.product(["state/__0_0.distcp"], ["changed", "cut", "gone"]),
        ("state/.metadata", "changed"),
        (STATE_FILE, "changed"),
        (STATE_FILE, "gone"),
        (SUMS_FILE, "cut"),
        (SUMS_FILE, "gone"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_offered(
    file: str,
    how: str,
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = {"max_steps": 3, "ckpt_every_steps": 1}
    keep = {"keep_last": None}
    assert sft.main(configure(step_scheduler=steps, checkpoint=keep), tmp_path) == 0
    expected = losses(capsys.readouterr().out)
    for step in (3, 2):
        harm(saved(tmp_path, step) / file, how)
    if file == STATE_FILE and how == "gone":
        # Without it there is no checkpoint to speak of.
        with pytest.raises(UsageError, match="no complete checkpoint"):
            sft.main(configure(checkpoint={"restore_from": str(tmp_path)}), tmp_path)
        return
    with pytest.raises(UsageError) as caught:
        sft.main(configure(checkpoint={"restore_from": str(tmp_path)}), tmp_path)
    assert str(saved(tmp_path, 3) / file) in caught.value.message
    offered = f"checkpoint.restore_from={saved(tmp_path, 1)}"
    assert offered in caught.value.fix
    rest = configure(step_scheduler=steps, checkpoint={"restore_from": offered.partition("=")[2]})
    assert sft.main(rest, tmp_path) == 0
    assert losses(capsys.readouterr().out) == expected[1:]


def harm(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)


def test_where_no_checkpoint_is_whole_that_is_said(configure: Configure, tmp_path: Path) -> None:
    assert sft.main(configure(), tmp_path) == 0
    harm(saved(tmp_path, 4) / "state/__0_0.distcp", "changed")
    with pytest.raises(UsageError, match="is damaged") as caught:
        sft.main(configure(checkpoint={"restore_from": str(tmp_path)}), tmp_path)
    assert "none before it that is whole" in caught.value.fix


def test_the_digests_are_those_that_sha256sum_reads(configure: Configure, tmp_path: Path) -> None:
    assert sft.main(configure(), tmp_path) == 0
    folder = saved(tmp_path, 4)
    check = ["sha256sum", "--strict", "-c", SUMS_FILE]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == read_sums(folder).keys() | {SUMS_FILE}


def test_a_checkpoint_can_be_read_by_whom_the_umask_lets(
    configure: Configure, tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        assert sft.main(configure(), tmp_path) == 0
    finally:
        os.umask(before)
    for path in saved(tmp_path, 4).rglob("*"):
        if path.name != SUMS_FILE:
            assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path


def test_a_checkpoint_of_another_adapter_is_refused(configure: Configure, tmp_path: Path) -> None:
    assert sft.main(configure(peft=LORA), tmp_path) == 0
    restored = {"restore_from": str(tmp_path)}
    for table, said in [
        ({**LORA, "dim": 8}, r"lora_A.* in the shape \[4, .*which here is \[8"),
        ({**LORA, "target_modules": ["q_proj"]}, "has the weight model.layers.0.mlp"),
        (None, "lacks the weight|has the weight"),
    ]:
        with pytest.raises(UsageError, match=said):
            sft.main(configure(peft=table, checkpoint=restored), tmp_path)


def test_a_step_that_was_stopped_before_it_ended_is_taken_from_its_beginning(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing of the micro-batches before the stop is left, neither gradients nor draws."""
    import signal

    from tunedeck.trainer import loop

    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    steps = {"global_batch_size": 4, "local_batch_size": 1}
    assert sft.main(configure(peft=LORA, step_scheduler=steps), whole) == 0
    expected = losses(capsys.readouterr().out)
    original, calls = loop.SupervisedLoss.__call__, 0

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 * 4 + 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop.SupervisedLoss, "__call__", counted)
        assert sft.main(configure(peft=LORA, step_scheduler=steps), part) == 75
    first = capsys.readouterr().out
    assert calls == 2 * 4 + 3
    assert len(metric_lines(first)) == 2
    restored = {"restore_from": str(part)}
    assert sft.main(configure(peft=LORA, step_scheduler=steps, checkpoint=restored), part) == 0
    assert losses(first) + losses(capsys.readouterr().out) == expected
    assert digests(saved(part, 4)) == digests(saved(whole, 4))


def test_a_folder_that_cannot_be_written_to_is_found_before_the_model_is_loaded(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "setup_model_and_optimizer", pytest.fail)
    (tmp_path / "file").touch()
    config = configure(checkpoint={"checkpoint_dir": str(tmp_path / "file/checkpoints")})
    with pytest.raises(UsageError, match=r"nothing can be written to .*: Not a directory"):
        sft.main(config, tmp_path)
