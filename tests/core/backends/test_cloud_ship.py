"""Lepton and Run:ai: files come home from storage that only jobs can read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.backends.cloud_runs import lines_of, submit
from tests.core.backends.conftest import Cloud
from tunedeck.core.backends.base import Backend, TellsInventory
from tunedeck.core.backends.cloud import ship
from tunedeck.core.errors import NotFoundError, TunedeckError, UsageError
from tunedeck.core.runs.fetch import fetch
from tunedeck.core.runs.record import RunRecord

MAKES = (
    "cd $TUNEDECK_RUN_DIR; mkdir -p checkpoints/step_2 more; echo '{}' > result.json;"
    " head -c 70000 /dev/urandom > checkpoints/step_2/adapter.bin; echo x > checkpoints/step_2/.y;"
    " ln -s step_2 checkpoints/latest; echo 'with blank' > 'more/a file'; echo deep > more/note"
)


async def ended(cloud: Cloud, **changes: Any) -> tuple[Backend, RunRecord]:
    """A run that has left files, and its backend."""
    cloud.place.values |= changes
    plan = cloud.place.plan(MAKES)
    backend, handle = await submit(cloud.place, plan)
    await lines_of(backend, handle)
    record = RunRecord.of(plan, forced=False)
    return backend, replace(record, job_id=handle.job_id, handle=handle.data)


async def names(backend: Backend, record: RunRecord, pattern: str | None = None) -> list[str]:
    brought = await fetch(record, backend, pattern, lambda *_: None)
    return [path.relative_to(record.run_dir).as_posix() for path in brought]


def helpers(cloud: Cloud) -> list[dict[str, Any]]:
    """The bodies of the jobs that sent files."""
    return [body for body in cloud.sent() if "-ship-" in str(body)]


async def test_the_usual_files_come_home_by_a_job_that_is_then_removed(cloud: Cloud) -> None:
    backend, record = await ended(cloud)
    there = cloud.storage() / record.run_id
    assert await names(backend, record) == [
        "checkpoints/latest/adapter.bin", "config.yaml", "exit.json", "plan.json", "result.json",
        "resume.yaml",
    ]  # fmt: skip
    for name in ("checkpoints/latest/adapter.bin", "exit.json"):
        assert (record.run_dir / name).read_bytes() == (there / name).read_bytes()
    (helper,) = helpers(cloud)
    spec = helper["spec"]
    assert spec.get("compute", {}).get("gpuDevicesRequest", 0) == 0
    assert spec.get("resource_shape", "cpu.small") == "cpu.small"
    assert isinstance(backend, TellsInventory)
    listed = await backend.inventory(dict(record.plan["profile_values"]))
    assert [job for job in listed["jobs"] if "ship" in job["name"]] == []


@pytest.mark.slow
async def test_what_is_here_is_sent_again_only_where_it_has_changed(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, record = await ended(cloud)
    before = await names(backend, record)
    there = cloud.storage() / record.run_id
    (there / "result.json").write_text("{ }")
    sent: list[int] = []
    again = await fetch(record, backend, None, lambda _, came, __: sent.append(came))
    assert [path.relative_to(record.run_dir).as_posix() for path in again] == before
    assert (record.run_dir / "result.json").read_text() == "{ }"
    assert max(sent) < 20_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("more/*", ["more/a file", "more/note"]),
        ("more", ["more/a file", "more/note"]),
        ("more/a file", ["more/a file"]),
        ("checkpoints/step_2/*.bin", ["checkpoints/step_2/adapter.bin"]),
    ],
)
async def test_a_pattern_means_what_it_means_everywhere(
    cloud: Cloud, pattern: str, expected: list[str]
) -> None:
    backend, record = await ended(cloud)
    assert await names(backend, record, pattern) == expected


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["nothing*", "$(touch hacked)", "../*/config.yaml"])
async def test_what_fits_nothing_is_said_so(cloud: Cloud, pattern: str) -> None:
    backend, record = await ended(cloud)
    with pytest.raises(TunedeckError, match=r"no file that fits|outside its folder"):
        await names(backend, record, pattern)
    assert not (cloud.storage() / record.run_id / "hacked").exists()


@pytest.mark.slow
async def test_what_is_more_than_one_log_holds_comes_in_parts(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "PART_BYTES", 30_000)
    backend, record = await ended(cloud)
    assert await names(backend, record, "checkpoints/step_2") == [
        "checkpoints/step_2/.y",
        "checkpoints/step_2/adapter.bin",
    ]
    assert len(helpers(cloud)) == 3
    there = cloud.storage() / record.run_id / "checkpoints/step_2/adapter.bin"
    assert (record.run_dir / "checkpoints/step_2/adapter.bin").read_bytes() == there.read_bytes()


@pytest.mark.slow
async def test_too_much_names_the_largest_and_the_way_out(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "LIMIT_BYTES", 50_000)
    backend, record = await ended(cloud)
    with pytest.raises(UsageError, match=r"latest/adapter\.bin") as refused:
        await names(backend, record)
    assert f"/tunedeck/{record.run_id}" in refused.value.fix
    assert not (record.run_dir / "config.yaml").exists()


@pytest.mark.slow
async def test_a_folder_that_is_gone_is_said_so(cloud: Cloud) -> None:
    backend, record = await ended(cloud)
    (cloud.storage() / record.run_id).rename(cloud.storage() / "elsewhere")
    with pytest.raises(TunedeckError, match="there is no folder"):
        await names(backend, record)


@pytest.mark.slow
async def test_without_the_job_nothing_tells_the_mounts(cloud: Cloud) -> None:
    backend, record = await ended(cloud)
    assert record.backend_handle is not None
    await backend.forget(record.backend_handle)  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match="no job") as refused:
        await names(backend, record)
    assert f"/tunedeck/{record.run_id}" in refused.value.fix


@pytest.mark.slow
async def test_seen_from_here_the_files_are_copied(cloud: Cloud, tmp_path: Path) -> None:
    folder = cloud.storage()
    mount = str(folder.parent)
    place: dict[str, Any] = {"launched_from_cluster": True}
    if cloud.envs == "envs":
        mounts = [{"path": "/users/ada", "mount_path": mount, "from": "node-nfs:lustre"}]
        place |= {"remote_job_dir": str(folder), "mounts": mounts}
    else:
        place |= {
            "pvc_nemo_run_dir": str(folder),
            "pvcs": [{"path": mount, "existingPvc": True, "claimName": "nlp-workspace"}],
        }
    backend, record = await ended(cloud, **place)
    assert "checkpoints/latest/adapter.bin" in await names(backend, record)
    assert helpers(cloud) == []


class Lines:
    """A service whose one job says what it is told to."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = lines
        self.dropped: list[str] = []

    async def start_carrier(self, name: str, env: Any, script: str) -> None:
        """Start nothing."""

    async def carrier_lines(self, name: str) -> AsyncGenerator[bytes]:
        for line in self.lines:
            yield line

    async def drop_carrier(self, name: str) -> None:
        self.dropped.append(name)


async def sent_by(*lines: bytes) -> tuple[bytes, Lines]:
    service = Lines(*lines)
    return await ship.ship(service, "/run", ["*"], {}, lambda *_: None), service


WHOLE = (
    b"tunedeck: file 3 a",
    b"noise of an image's own",
    b"tunedeck: whole 3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
)


async def test_lines_that_come_twice_or_out_of_order_count_once() -> None:
    two, one = b"tunedeck: data 2 Yw==", b"tunedeck: data 1 YWI="
    data, service = await sent_by(*WHOLE, two, one, two, b"tunedeck: exit=0")
    assert data == b"abc"
    assert len(service.dropped) == 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((*WHOLE, b"tunedeck: data 1 YWI=", b"tunedeck: exit=0"), "lost lines"),
        ((*WHOLE, b"tunedeck: data 1 YWJj"), "without its last word"),
        ((b"tunedeck: error: no room", b"tunedeck: exit=1"), "no room"),
        ((), "without its last word"),
    ],
)
async def test_what_did_not_come_whole_is_not_taken(lines: tuple[bytes, ...], words: str) -> None:
    service = Lines(*lines)
    with pytest.raises(TunedeckError, match=words):
        await ship.ship(service, "/run", ["*"], {}, lambda *_: None)
    assert len(service.dropped) == 1
