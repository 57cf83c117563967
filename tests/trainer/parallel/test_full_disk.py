"""A disk without room, on several ranks: none hangs, and no published checkpoint is lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import TunedeckError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.checkpoints.checksums import damage, read_sums

from ..test_saving import small_disk
from .runs import train_here
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
__all__ = ["small_disk"]

STEPS = {"global_batch_size": 4, "local_batch_size": 2, "ckpt_every_steps": 1, "max_steps": 40}


def ends_with(config: TrainConfig, folder: Path) -> str:
    """Train, and return the words that it ends with."""
    try:
        train_here(config, folder)
    except TunedeckError as error:
        return f"{error.message} {error.fix}"
    return ""


def ends_where_files_are_short(config: TrainConfig, folder: Path) -> str:
    """The same, with a limit on the size of files on the second rank alone."""
    if os.environ["RANK"] != "1":
        return ends_with(config, folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        return ends_with(config, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def whole_checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step_*") if path.suffix == ""]
    assert all(damage(path, read_sums(path)) is None for path in found)
    assert not list(folder.glob("*.in_progress"))
    return sorted(found)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_full_twice_ends_all_ranks(
    background: bool,
    workers: Workers,
    configure: Callable[..., TrainConfig],
    tmp_path: Path,
    small_disk: Path,
) -> None:
    settings = {"checkpoint_dir": str(small_disk), "keep_last": None, "async_save": background}
    workers.send(2, ends_with, configure(step_scheduler=STEPS, checkpoint=settings), tmp_path)
    answers = workers.take(2)
    published = whole_checkpoints(small_disk)
    assert published and (small_disk / "latest").resolve() == published[-1]
    for said, _ in answers:
        assert f"step {len(published) + 2} cannot be saved" in said
        assert "No space left on device" in said and "Make room" in said
    printed = answers[0][1]
    assert printed.count("tunedeck: saved") == len(published)
    assert f"The checkpoint of step {len(published) + 1} cannot be saved" in printed


@pytest.mark.parametrize("background", [False, True])
def test_one_rank_that_cannot_write_its_shard_is_named_by_all(
    background: bool, workers: Workers, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    tables: dict[str, Any] = {"step_scheduler": {**STEPS, "max_steps": 3}}
    config = configure(**tables, checkpoint={"async_save": background})
    said = workers.run(2, ends_where_files_are_short, config, tmp_path)
    assert all("step 1 cannot be saved" in words for words in said)
    assert all("rank 1: File too large" in words for words in said), said
    assert whole_checkpoints(tmp_path / "checkpoints") == []
