from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunedeck.core.errors import UsageError
from tunedeck.trainer.checkpoints.published import STATE_FILE, Checkpoints, find_checkpoint


def save(checkpoints: Checkpoints, step: int, *, best: bool = False) -> Path:
    (checkpoints.begin(step) / STATE_FILE).write_text("state")
    return checkpoints.publish(step, best=best)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_old_checkpoints_go_and_those_a_link_points_to_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep_last=2)
    for step in range(1, 6):
        save(checkpoints, step, best=step == 2)
    assert names(tmp_path / "c") == {
        *("step_000002", "step_000004", "step_000005"),
        *("latest", "best"),
    }
    assert checkpoints.target("best") == tmp_path / "c/step_000002"
    assert find_checkpoint(str(tmp_path / "c")) == (tmp_path / "c/step_000005").resolve()


def test_a_step_that_is_taken_anew_is_not_the_best_for_what_it_was_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    save(checkpoints, 1)
    save(checkpoints, 2, best=True)
    save(checkpoints, 2)  # of a run that went on from the first one, with another rate
    assert checkpoints.target("best") is None
    assert names(tmp_path) == {"latest", "step_000001", "step_000002"}


def test_all_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=None)
    for step in range(1, 6):
        save(checkpoints, step)
    assert len(list(tmp_path.glob("step_*"))) == 5


def test_a_checkpoint_is_found_by_itself_its_folder_or_its_run(tmp_path: Path) -> None:
    saved = save(Checkpoints(tmp_path / "checkpoints", keep_last=2), 3, best=True)
    for path in (saved, tmp_path / "checkpoints", tmp_path, tmp_path / "checkpoints/best"):
        assert find_checkpoint(str(path)) == saved.resolve()


def test_resuming_from_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is nothing at"):
        find_checkpoint(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="no complete checkpoint"):
        find_checkpoint(str(tmp_path))


MOMENTS = [
    ("writing", 2),
    ("publishing", 2),
    ("deleting", 2),
    ("writing", 1),
    ("replacing", 1),
    ("publishing", 1),
]
KILLED = """
import os, signal, sys
from pathlib import Path
from tunedeck.trainer.checkpoints import published

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def save(folder, moment, step):
    checkpoints = published.Checkpoints(folder, keep_last=1)
    if moment == "publishing":
        published.flush = lambda path: die() if path == folder else None
    if moment == "replacing":
        original = Path.replace
        def replace(self, target):
            return die() if self.suffix == ".in_progress" else original(self, target)
        Path.replace = replace
    if moment == "deleting":
        published.shutil.rmtree = lambda path, **_: die() if path.suffix == ".removed" else None
    (checkpoints.begin(step) / published.STATE_FILE).write_text("new")
    if moment == "writing":
        die()
    checkpoints.publish(step, best=False)

for folder in map(Path, sys.argv[1:]):
    moment, _, step = folder.name.partition("-")
    child = os.fork()
    if child == 0:
        try:
            save(folder, moment, int(step))
        finally:
            os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(folder.name, "killed" if ended == -signal.SIGKILL else "went on")
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints for each moment, in which one was saved and the next was cut off.

    Importing torch is what takes long, so each save is a child of one process.
    """
    root = tmp_path_factory.mktemp("killed")
    folders = [root / f"{moment}-{step}" for moment, step in MOMENTS]
    for folder in folders:
        save(Checkpoints(folder, keep_last=1), 1)
    command = [sys.executable, "-c", KILLED, *map(str, folders)]
    done = subprocess.run(command, timeout=100, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{folder.name} killed" for folder in folders]
    return root


@pytest.mark.parametrize(("moment", "step"), MOMENTS)
def test_a_kill_in_the_middle_of_a_save_loses_no_published_checkpoint(
    moment: str, step: int, killed: Path
) -> None:
    folder = killed / f"{moment}-{step}"
    found = find_checkpoint(str(folder))
    assert (found / STATE_FILE).read_text() in ("state", "new")
    save(Checkpoints(folder, keep_last=1), 3)
    assert names(folder) == {"step_000003", "latest"}
