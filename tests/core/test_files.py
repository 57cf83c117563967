from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tunedeck.core.files import on_network, write_atomic, write_together

MOUNTS = """\
/dev/vda / ext4 rw 0 0
filer:/home /home nfs4 rw 0 0
tmpfs /home/me/scratch tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/srv/x", False), ("/home", True), ("/home/me/a/b", True), ("/home/me/scratch/a", False)],
)
def test_the_nearest_mount_tells_what_a_path_lies_on(
    path: str, expected: bool, tmp_path: Path
) -> None:
    table = tmp_path / "mounts"
    table.write_text(MOUNTS)
    assert on_network(Path(path), table) is expected


def test_where_mounts_are_not_told_a_path_is_taken_for_local(tmp_path: Path) -> None:
    assert on_network(Path("/home"), tmp_path / "none") is False


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "one", mode=0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one", 0o600)
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\udc80")
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file_that_is_then_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.write_text("one")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_atomic(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_of_several_files_none_is_replaced_before_all_are_written(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("one")
    with pytest.raises(UnicodeEncodeError):
        write_together([(first, "two", 0o644), (second, "\udc80", 0o644)])
    assert first.read_text() == "one"
    assert list(tmp_path.iterdir()) == [first]
    write_together([(first, "two", 0o644), (second, b"three", 0o600)])
    assert (first.read_text(), second.read_text()) == ("two", "three")
