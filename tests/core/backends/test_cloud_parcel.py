"""What travels in a job's environment: split, packed, and put in place by real shells."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest

from tunedeck.core.backends.cloud import parcel, parcel_scripts
from tunedeck.core.backends.layout import Upload
from tunedeck.core.errors import UsageError
from tunedeck.core.inputs import content_digest

LIMIT_S = 60.0


@pytest.fixture
def shared(tmp_path: Path) -> str:
    """The folder on the storage that everything lies below; its name needs quoting."""
    return f"{tmp_path}/my storage/.tunedeck"


def upload_of(source: Path, shared: str) -> Upload:
    digest, size = content_digest(source)
    return Upload(
        "input", str(source), f"{shared}/inputs/{digest[7:15]}/{source.name}", digest, size
    )


def file_of(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={"PATH": os.environ["PATH"], **env},
    )


def test_the_smallest_go_along_and_the_rest_ahead(tmp_path: Path, shared: str) -> None:
    sizes = {"a": 100, "b": parcel.ALONG_LIMIT - 100, "c": 200, "d": 10}
    uploads = [upload_of(file_of(tmp_path, name, size), shared) for name, size in sizes.items()]
    split = parcel.split(uploads)
    assert [Path(one.source).name for one in split.along] == ["d", "a", "c"]
    assert [Path(one.source).name for one in split.ahead] == ["b"]


def test_an_archive_has_the_same_bytes_each_time_and_nothing_hidden(
    tmp_path: Path, shared: str
) -> None:
    folder = tmp_path / "model"
    for name in ("config.json", "sub/weights.bin", ".git/config", "__pycache__/x.pyc"):
        file_of(folder, name, 10)
    upload = upload_of(folder, shared)
    packed = parcel.pack([upload], shared)
    os.utime(folder / "config.json", (1, 1))
    assert parcel.pack([upload], shared) == packed
    below = upload.target.removeprefix(f"{shared}/")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
    assert names == [f"{below}/config.json", f"{below}/sub/weights.bin"]


def test_of_a_glob_what_it_matches_is_packed_and_no_more(tmp_path: Path, shared: str) -> None:
    for name in ("data/a/1.jsonl", "data/b/1.jsonl", "data/a/notes.txt"):
        file_of(tmp_path, name, 10)
    upload = upload_of(tmp_path / "data" / "*" / "1.jsonl", shared)
    with tarfile.open(fileobj=io.BytesIO(parcel.pack([upload], shared))) as archive:
        names = archive.getnames()
    below = upload.target.removeprefix(f"{shared}/")
    assert names == [f"{below}/a/1.jsonl", f"{below}/b/1.jsonl"]


def test_an_input_that_has_changed_is_refused(tmp_path: Path, shared: str) -> None:
    path = file_of(tmp_path, "data", 10)
    upload = upload_of(path, shared)
    path.write_bytes(b"other")
    with pytest.raises(UsageError, match="has changed"):
        parcel.pack([upload], shared)


def test_no_variable_is_longer_than_a_process_takes(tmp_path: Path) -> None:
    found = parcel.variables(os.urandom(500_000))
    assert max(map(len, found.values())) < 128 << 10
    assert list(found) == sorted(found)
    with pytest.raises(UsageError, match="KiB"):
        parcel.variables(os.urandom(2_000_000))


def received(rank: int, run_id: str, shared: str, split: parcel.Split) -> str:
    return "\n".join(
        ["set -e", f"rank={rank}", *parcel_scripts.receive(run_id, shared, split), "echo on"]
    )


def test_the_first_node_puts_in_place_and_the_others_wait_for_its_word(
    tmp_path: Path, shared: str
) -> None:
    source = file_of(tmp_path, "data's.jsonl", 5000)
    split = parcel.split([upload_of(source, shared)])
    env = parcel.variables(parcel.pack(split.along, shared))
    other = subprocess.Popen(
        ["bash", "-c", received(1, "r1", shared, split)], stdout=subprocess.PIPE, text=True,
        env={"PATH": os.environ["PATH"], **env},
    )  # fmt: skip
    first = run(received(0, "r1", shared, split) + "\nenv", **env)
    assert first.returncode == 0, first.stderr
    assert "TUNEDECK_PARCEL" not in first.stdout  # the step does not see it
    assert other.communicate(timeout=LIMIT_S)[0] == "on\n"
    target = Path(split.along[0].target)
    assert target.read_bytes() == source.read_bytes()
    again = run(received(0, "r2", shared, split), **env)
    assert again.returncode == 0


def test_what_cannot_be_put_in_place_ends_all_nodes(tmp_path: Path, shared: str) -> None:
    split = parcel.split([upload_of(file_of(tmp_path, "data", 5000), shared)])
    env = parcel.variables(parcel.pack(split.along, shared)[:-50])  # the end is missing
    for rank in (0, 1):
        done = run(received(rank, "r1", shared, split), **env)
        assert done.returncode == 2
        assert "could not be put into" in done.stdout
    assert not Path(split.along[0].target).exists()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_become_a_whole_in_any_order(
    tmp_path: Path, shared: str, order: tuple[int, ...]
) -> None:
    source = file_of(tmp_path, "base model/weights.bin", parcel.PART_BYTES * 5 // 2).parent
    upload = upload_of(source, shared)
    pieces = parcel.parts_of(parcel.pack([upload], shared))
    assert len(pieces) == 3
    names = parcel.carrier_names(upload, "place", 3)
    assert len({*names, *parcel.carrier_names(upload, "elsewhere", 3)}) == 6
    split = parcel.Split((), (upload,))
    for number in order:
        assert not Path(upload.target).exists()
        script = parcel_scripts.carrier_script(upload, shared, number, 3)
        done = run(script, **parcel.variables(pieces[number]))
        assert done.returncode == 0, done.stderr
    assert (Path(upload.target) / "weights.bin").read_bytes() == (
        source / "weights.bin"
    ).read_bytes()
    assert run(received(0, "r1", shared, split)).stdout == "on\n"
    again = run(parcel_scripts.carrier_script(upload, shared, 0, 3), **parcel.variables(pieces[0]))
    assert again.returncode == 0


def test_parts_that_make_no_whole_say_so_to_the_run(tmp_path: Path, shared: str) -> None:
    upload = upload_of(file_of(tmp_path, "data", 3000), shared)
    done = run(
        parcel_scripts.carrier_script(upload, shared, 0, 1), **parcel.variables(b"no archive")
    )
    assert done.returncode == 1
    assert "make no whole" in done.stdout
    waits = run(received(0, "r1", shared, parcel.Split((), (upload,))))
    assert waits.returncode == 2
    assert shlex.quote(upload.target).strip("'") in waits.stdout


def test_storage_that_is_seen_from_here_is_written_from_here(tmp_path: Path, shared: str) -> None:
    folder = file_of(tmp_path, "model/sub/weights.bin", 3000).parent.parent
    upload = upload_of(folder, shared)
    for _ in range(2):
        parcel.put([upload])
        assert (Path(upload.target) / "sub" / "weights.bin").stat().st_size == 3000
    assert [path.name for path in Path(upload.target).parent.iterdir()] == ["model"]
