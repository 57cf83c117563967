"""Bringing files of a run home, from a backend that is cut off, changes its mind, or is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.files import RemoteFile
from tunedeck.core.errors import ReachError, TunedeckError, UsageError
from tunedeck.core.runs.fetch import fetch
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry

CHUNK = 10


class Storage:
    """Files by name. `cut_at` cuts the connection once so many bytes of a file were sent."""

    def __init__(self, files: dict[str, bytes], *, marked: bool = True) -> None:
        self.contents = files
        self.marked = marked
        self.cut_at: int | None = None
        self.asked: list[tuple[str, int]] = []

    async def files(self, handle: Handle) -> Sequence[RemoteFile]:
        return [
            RemoteFile(name, len(data), str(hash(data)) if self.marked else "")
            for name, data in self.contents.items()
        ]

    async def fetch(
        self, handle: Handle, name: str, target: Path, offset: int, on_bytes: Callable[[int], None]
    ) -> None:
        self.asked.append((name, offset))
        data = self.contents[name]
        with target.open("ab") as out:
            for at in range(offset, len(data), CHUNK):
                if self.cut_at is not None and at >= self.cut_at:
                    self.cut_at = None
                    raise ReachError("The connection was cut.")
                out.write(data[at : at + CHUNK])
                on_bytes(out.tell())
                await asyncio.sleep(0)


@pytest.fixture
def record(make_plan: PlanMaker, home: Path) -> RunRecord:
    plan = make_plan()
    registry = Registry()
    registry.add(RunRecord.of(plan, forced=False))
    return registry.update(plan.run_id, handle=Handle(plan.run_id, "1", {}))


async def bring(record: RunRecord, storage: Storage, pattern: str | None = None) -> list[int]:
    """Fetch; what was told of the bytes."""
    told: list[int] = []
    await fetch(record, storage, pattern, lambda _name, here, _whole: told.append(here))
    return told


async def test_a_fetch_that_was_cut_goes_on_where_it_was(record: RunRecord) -> None:
    data = bytes(range(256))
    storage = Storage({"result.json": data})
    storage.cut_at = 120
    with pytest.raises(ReachError):
        await bring(record, storage)
    assert not (record.run_dir / "result.json").exists()
    told = await bring(record, storage)
    assert storage.asked == [("result.json", 0), ("result.json", 120)]
    assert (told[0], told[-1]) == (130, 256)
    assert (record.run_dir / "result.json").read_bytes() == data
    assert not list(record.run_dir.glob("*.part"))


async def test_what_is_home_is_not_asked_for_again(record: RunRecord) -> None:
    storage = Storage({"result.json": b"{}", "metrics.jsonl": b"x" * 30})
    await bring(record, storage)
    storage.asked.clear()
    assert await bring(record, storage) == []
    assert storage.asked == []


async def test_what_has_changed_since_comes_anew_also_in_the_same_size(record: RunRecord) -> None:
    storage = Storage({"checkpoints/latest/adapter": b"step two"})
    await bring(record, storage)
    storage.contents["checkpoints/latest/adapter"] = b"step six"
    await bring(record, storage)
    assert (record.run_dir / "checkpoints/latest/adapter").read_bytes() == b"step six"


async def test_a_part_of_what_has_changed_since_is_no_beginning(record: RunRecord) -> None:
    storage = Storage({"result.json": b"a" * 100})
    storage.cut_at = 50
    with pytest.raises(ReachError):
        await bring(record, storage)
    storage.contents["result.json"] = b"b" * 100
    await bring(record, storage)
    assert (record.run_dir / "result.json").read_bytes() == b"b" * 100
    assert not list(record.run_dir.glob("*.part"))


async def test_less_than_there_should_be_is_an_error_and_leaves_nothing(record: RunRecord) -> None:
    class Short(Storage):
        async def files(self, handle: Handle) -> Sequence[RemoteFile]:
            return [RemoteFile("result.json", 40)]

    storage = Short({"result.json": b"x" * 30})
    with pytest.raises(TunedeckError, match="30 bytes in place of 40"):
        await bring(record, storage)
    assert not list(record.run_dir.glob("result.json*"))


async def test_two_at_once_bring_each_file_once(record: RunRecord) -> None:
    storage = Storage({"result.json": b"x" * 300, "metrics.jsonl": b"y" * 300})
    await asyncio.gather(bring(record, storage), bring(record, storage))
    assert sorted(name for name, _ in storage.asked) == ["metrics.jsonl", "result.json"]
    assert (record.run_dir / "result.json").read_bytes() == b"x" * 300


async def test_a_name_that_leads_out_of_the_folder_is_refused(record: RunRecord) -> None:
    for name in ("../elsewhere", "/etc/elsewhere", "checkpoints/../../elsewhere"):
        with pytest.raises(TunedeckError, match="outside its folder"):
            await bring(record, Storage({name: b"x"}), name)


async def test_a_pattern_that_nothing_fits_is_told(record: RunRecord) -> None:
    with pytest.raises(UsageError, match=r"no file that fits '\*\.bin'"):
        await bring(record, Storage({"result.json": b"{}"}), "*.bin")
