"""What goes to a bucket before a job and comes home after it, cut in the middle on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.hf import FakeHub
from tests.system.places import HFPlace, plan_for
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.hf import download, upload
from tunedeck.core.backends.hf.backend import HFJobsBackend
from tunedeck.core.errors import ExitCode, TunedeckError, UsageError
from tunedeck.core.inputs import content_digest
from tunedeck.core.plan import LocalInput, Plan
from tunedeck.core.runs.fetch import fetch
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry

pytestmark = pytest.mark.slow

PIECE = 500_000
WEIGHTS = "checkpoints/step_000002/adapter_model.safetensors"


def with_folder(place: HFPlace, folder: Path) -> Plan:
    """A plan whose dataset is a local folder."""
    digest, size = content_digest(folder)
    item = LocalInput(key="dataset.path_or_dataset_id", path=str(folder), digest=digest, size=size)
    config = {
        "checkpoint": {"restore_from": None},
        "dataset": {"path_or_dataset_id": str(folder)},
    }
    return plan_for(place.values, "ls -R $(sed -n 's/ *path_or_dataset_id: //p' {config})",
                    inputs=(item,), config=config)  # fmt: skip


def backend_of(plan: Plan) -> HFJobsBackend:
    return HFJobsBackend(dict(plan.profile_values))


def data_folder(folder: Path, files: int) -> Path:
    folder.mkdir()
    for number in range(files):
        (folder / f"part_{number}.jsonl").write_bytes(os.urandom(50_000))
    for hidden in (".git/config", "__pycache__/x.pyc", ".env"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_text("stays at home")
    return folder


async def test_a_folder_goes_there_without_what_is_hidden_and_what_links_point_to(
    hub: FakeHub, place: HFPlace, tmp_path: Path
) -> None:
    folder = data_folder(tmp_path / "data", 2)
    (tmp_path / "elsewhere.jsonl").write_text("linked")
    (folder / "linked.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    plan = with_folder(place, folder)
    await backend_of(plan).submit(backend_of(plan).render(plan))
    inputs = next(hub.bucket("ada/tunedeck").glob(".tunedeck/inputs/*/data"))
    assert {path.name for path in inputs.rglob("*")} == {
        "part_0.jsonl", "part_1.jsonl", "linked.jsonl",
    }  # fmt: skip
    assert (inputs / "linked.jsonl").read_text() == "linked"
    assert not [p for p in hub.bucket("ada/tunedeck").rglob("*") if p.name in (".env", ".git")]


async def test_an_upload_that_was_cut_sends_only_the_rest_and_tells_how_far_it_is(
    hub: FakeHub, place: HFPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_PART_BYTES", 100_000)
    plan = with_folder(place, data_folder(tmp_path / "data", 8))
    backend = backend_of(plan)
    told: list[tuple[str, int, int]] = []
    backend.tell_uploads(lambda *seen: told.append(seen))
    cut = hub.fault("POST", "/batch$", status=403, skip=3)
    with pytest.raises(TunedeckError, match="403"):
        await backend.submit(backend.render(plan))
    assert not cut.times
    assert not hub.jobs
    before = [here for _, here, _ in told]
    assert before == sorted(before)
    assert 100_000 < before[-1] < told[-1][2]

    there = {p.name for p in hub.bucket("ada/tunedeck").rglob("*.jsonl")}
    assert 0 < len(there) < 8
    sent = len(hub.sent("POST", "/batch$"))
    told.clear()
    await backend.submit(backend.render(plan))
    later = b"".join(request.body for request in hub.sent("POST", "/batch$")[sent:])
    assert not [name for name in there if name.encode() in later]
    assert len(hub.jobs) == 1
    assert told[-1][1] == told[-1][2] == (8 - len(there)) * 50_000


async def test_an_input_that_has_changed_since_it_was_planned_is_not_sent(
    hub: FakeHub, place: HFPlace, tmp_path: Path
) -> None:
    folder = data_folder(tmp_path / "data", 2)
    plan = with_folder(place, folder)
    (folder / "part_0.jsonl").write_text("other")
    with pytest.raises(UsageError, match="has changed since"):
        await backend_of(plan).submit(backend_of(plan).render(plan))
    assert not hub.jobs


@pytest.fixture
def left(hub: FakeHub, place: HFPlace, home: Path) -> tuple[RunRecord, HFJobsBackend, bytes]:
    """A run that has left 20 MB of weights in its bucket."""
    plan = place.plan("true")
    data = os.urandom(20_000_000)
    path = hub.bucket("ada/tunedeck") / plan.run_id / WEIGHTS
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    facts = {"namespace": "ada", "bucket": "ada/tunedeck", "prefix": plan.run_id}
    registry = Registry()
    registry.add(RunRecord.of(plan, forced=False))
    record = registry.update(plan.run_id, handle=Handle(plan.run_id, "1", facts))
    return record, backend_of(plan), data


def cut(monkeypatch: pytest.MonkeyPatch, *limits: int) -> list[int]:
    """Cut the storage's next streams, each after so many bytes; the offsets that they begin at."""
    real, offsets = download._streams, list[int]()

    def streams(*facts: Any) -> Callable[[int], Iterator[bytes]] | None:
        open_stream = real(*facts)
        assert open_stream is not None

        def opened(offset: int) -> Iterator[bytes]:
            limit = limits[len(offsets)] if len(offsets) < len(limits) else None
            offsets.append(offset)
            come = 0
            for chunk in open_stream(offset):
                for at in range(0, len(chunk), PIECE):
                    if limit is not None and come >= limit:
                        raise ConnectionError("Network error: connection reset by peer")
                    come += len(piece := chunk[at : at + PIECE])
                    yield piece

        return opened

    monkeypatch.setattr(download, "_streams", streams)
    return offsets


async def test_a_download_that_is_cut_goes_on_and_tells_how_far_it_is(
    left: tuple[RunRecord, HFJobsBackend, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, backend, data = left
    offsets = cut(monkeypatch, 2_000_000, 2_000_000, 2_000_000)
    told: list[int] = []
    (path,) = await fetch(record, backend, WEIGHTS, lambda _n, here, _w: told.append(here))
    assert path.read_bytes() == data
    assert len(offsets) == 4
    assert offsets == sorted({*offsets})
    assert offsets[1] >= 2_000_000
    assert told == sorted(told)
    assert len(told) > 3
    assert told[-1] == len(data)


async def test_a_fetch_that_is_started_again_asks_only_for_the_rest(
    left: tuple[RunRecord, HFJobsBackend, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, backend, data = left
    offsets = cut(monkeypatch, 2_000_000, 0, 0, 0, 0)
    with pytest.raises(TunedeckError, match="reset by peer") as raised:
        await fetch(record, backend, WEIGHTS, lambda *_: None)
    assert raised.value.exit_code is ExitCode.CONNECTION
    assert "what has been sent or fetched stays" in raised.value.fix
    assert not (record.run_dir / WEIGHTS).exists()
    came = offsets[-1]
    assert came >= 2_000_000
    (path,) = await fetch(record, backend, WEIGHTS, lambda *_: None)
    assert offsets[-1] == came
    assert path.read_bytes() == data


async def test_what_comes_home_damaged_is_found_out_and_removed(
    left: tuple[RunRecord, HFJobsBackend, bytes],
) -> None:
    record, backend, data = left
    (file,) = [f for f in await backend.files(handle_of(record)) if f.name == WEIGHTS]
    assert file.mark
    target = record.run_dir / "damaged"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"\0" * 1000)
    with pytest.raises(TunedeckError, match="came home damaged"):
        await backend.fetch(handle_of(record), WEIGHTS, target, 1000, lambda _: None)
    assert not target.exists()
    (path,) = await fetch(record, backend, WEIGHTS, lambda *_: None)
    assert path.read_bytes() == data


def handle_of(record: RunRecord) -> Handle:
    assert record.backend_handle is not None
    return record.backend_handle
