from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from tunedeck.core.backends.base import Handle
from tunedeck.core.errors import ExitCode, NotFoundError, TunedeckError
from tunedeck.core.plan import Plan
from tunedeck.core.runs.registry import Registry, RunRecord
from tunedeck.core.states import RunState, Status

MakePlan = Callable[..., Plan]


@pytest.fixture
def add(make_plan: MakePlan, registry: Registry) -> Callable[..., RunRecord]:
    def add(**changes: object) -> RunRecord:
        record = replace(RunRecord.of(make_plan(), forced=False), **changes)  # type: ignore[arg-type]
        registry.add(record)
        return record

    return add


Add = Callable[..., RunRecord]


class TestRecords:
    def test_a_record_is_read_back_as_it_was_saved(
        self, make_plan: MakePlan, registry: Registry
    ) -> None:
        record = RunRecord.of(make_plan(name="naïve 'name'"), forced=True)
        registry.add(record)
        assert registry.get(record.run_id) == record
        assert record.state is RunState.SUBMITTING

    def test_what_is_learnt_is_kept(self, add: Add, registry: Registry) -> None:
        record = add()
        handle = Handle(record.run_id, "17", {"host": "a"})
        registry.update(record.run_id, handle=handle)
        registry.update(record.run_id, Status(RunState.RUNNING, "R", started_at=5.0))
        after = registry.update(
            record.run_id, Status(RunState.FAILED, "F", "why", exit_code=7, ended_at=9.5)
        )
        assert after == registry.get(record.run_id)
        assert after.backend_handle == handle
        assert (after.state, after.word, after.reason) == (RunState.FAILED, "F", "why")
        assert (after.exit_code, after.started_at, after.ended_at) == (7, 5.0, 9.5)

    def test_times_are_printed_as_utc(self, add: Add) -> None:
        printed = add(created_at=1763688483.12, started_at=None).to_json()
        assert printed["created_at"] == "2025-11-21T01:28:03.120Z"
        assert printed["started_at"] is None

    def test_a_run_that_was_deleted_cannot_be_updated(self, add: Add, registry: Registry) -> None:
        record = add()
        registry.delete(record.run_id)
        with pytest.raises(NotFoundError):
            registry.update(record.run_id, Status(RunState.RUNNING))

    def test_nothing_is_made_by_looking(self, registry: Registry) -> None:
        assert registry.list() == []
        assert not registry.path.exists()


class TestStates:
    def test_an_end_is_final_save_for_a_lost_run_that_is_found(
        self, add: Add, registry: Registry
    ) -> None:
        for known, told in product(RunState, RunState):
            record = add(state=known)
            after = registry.update(record.run_id, Status(told)).state
            open_ended = not known.terminal or (known is RunState.LOST and told.terminal)
            assert after is (told if open_ended else known)


class TestFinding:
    def test_by_id_name_or_the_start_of_an_id(self, add: Add, registry: Registry) -> None:
        add(run_id="raaa1", name="alpha")
        add(run_id="rabb2", name="beta")
        add(run_id="rabb3", name="alpha")
        assert registry.find("raaa1").run_id == "raaa1"
        assert registry.find("raa").run_id == "raaa1"
        assert registry.find("alpha").run_id == "rabb3"

    def test_an_id_beats_a_name_and_a_name_beats_a_start(
        self, add: Add, registry: Registry
    ) -> None:
        add(run_id="rab", name="x")
        add(run_id="rabc", name="rab")
        add(run_id="rzz", name="rabc")
        assert registry.find("rab").run_id == "rab"
        assert registry.find("rabc").run_id == "rabc"

    def test_a_start_that_fits_several_names_them(self, add: Add, registry: Registry) -> None:
        add(run_id="rab1")
        add(run_id="rab2")
        with pytest.raises(NotFoundError, match="rab2, rab1") as caught:
            registry.find("rab")
        assert caught.value.exit_code is ExitCode.NOT_FOUND

    def test_what_is_not_there_gets_the_nearest(self, add: Add, registry: Registry) -> None:
        add(run_id="raaa1", name="nightly-tune")
        with pytest.raises(NotFoundError, match="Did you mean 'nightly-tune'"):
            registry.find("nightly-tun3")

    def test_a_query_is_no_pattern(self, add: Add, registry: Registry) -> None:
        add(run_id="rab1")
        for query in ("r%", "r_b1", "*", ""):
            with pytest.raises(NotFoundError):
                registry.find(query)


class TestListing:
    def test_newest_first_with_filters(self, add: Add, registry: Registry) -> None:
        add(run_id="r1", state=RunState.FAILED)
        add(run_id="r2", state=RunState.RUNNING, step="convert/merge_lora")
        add(run_id="r3", state=RunState.SUCCEEDED)

        def ids(**filters: object) -> list[str]:
            return [record.run_id for record in registry.list(**filters)]  # type: ignore[arg-type]

        assert ids() == ["r3", "r2", "r1"]
        assert ids(limit=2) == ["r3", "r2"]
        assert ids(states=[RunState.FAILED, RunState.RUNNING]) == ["r2", "r1"]
        assert ids(step="merge_lora") == ids(step="convert/merge_lora") == ["r2"]
        assert ids(step="lora") == []


WRITER = """
import sys
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState, Status
registry = Registry()
for n in range(60):
    registry.update(sys.argv[1], Status(RunState.RUNNING, f"{sys.argv[2]}-{n}"))
"""


class TestSharing:
    def test_processes_write_at_once(self, add: Add, registry: Registry) -> None:
        record = add()
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, record.run_id, str(n)])
            for n in range(3)
        ]
        others = [add().run_id for _ in range(30)]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
        assert registry.get(record.run_id).word.endswith("-59")
        assert {r.run_id for r in registry.list()} == {record.run_id, *others}

    def test_the_first_ones_make_it_together(self, make_plan: MakePlan, home: Path) -> None:
        records = [RunRecord.of(make_plan(), forced=False) for _ in range(8)]
        barrier = threading.Barrier(len(records))
        failures: list[BaseException] = []

        def first(record: RunRecord) -> None:
            barrier.wait()
            try:
                Registry().add(record)
            except TunedeckError as error:
                failures.append(error)

        threads = [threading.Thread(target=first, args=(record,)) for record in records]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(Registry().list()) == len(records)

    def test_a_writer_killed_in_the_middle_leaves_it_whole(
        self, add: Add, registry: Registry
    ) -> None:
        record = add()
        for _ in range(5):
            with subprocess.Popen([sys.executable, "-c", WRITER, record.run_id, "x"]) as writer:
                while registry.get(record.run_id).word == "":
                    time.sleep(0.005)
                writer.kill()
            registry.update(record.run_id, Status(RunState.RUNNING, ""))
        with sqlite3.connect(registry.path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


class TestTrouble:
    def test_a_damaged_file_is_named_and_kept(self, registry: Registry) -> None:
        registry.path.parent.mkdir(parents=True)
        registry.path.write_bytes(b"no database at all" * 100)
        with pytest.raises(TunedeckError, match="damaged") as caught:
            registry.list()
        assert str(registry.path) in str(caught.value)
        assert f"mv {registry.path}" in caught.value.fix
        assert registry.path.read_bytes().startswith(b"no database")

    def test_a_later_version_is_left_alone(self, add: Add, registry: Registry) -> None:
        add()
        with sqlite3.connect(registry.path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        with pytest.raises(TunedeckError, match="newer tunedeck"):
            registry.list()

    def test_a_folder_that_cannot_be_made(
        self, make_plan: MakePlan, home: Path, registry: Registry
    ) -> None:
        home.write_text("a file where a folder should be")
        with pytest.raises(TunedeckError, match="cannot be used") as caught:
            registry.add(RunRecord.of(make_plan(), forced=False))
        assert "TUNEDECK_HOME" in caught.value.fix

    def test_a_lock_that_is_not_let_go_of(
        self, add: Add, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = add()
        monkeypatch.setattr("tunedeck.core.runs.registry_file._BUSY_S", 0.2)
        other = sqlite3.connect(registry.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TunedeckError, match="locked by another process"):
            registry.update(record.run_id, Status(RunState.RUNNING))
        assert registry.get(record.run_id) == record
        other.close()


def test_a_folder_that_cannot_be_written_is_read_and_left_alone(
    registry: Registry, add: Callable[..., RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = add()
    there = sorted(registry.path.parent.rglob("registry*"))
    # Root may write everywhere: what the kernel says to others is said here.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert [found.run_id for found in registry.list()] == [record.run_id]
    with pytest.raises(TunedeckError, match="readonly"):
        registry.update(record.run_id, Status(RunState.RUNNING, "running"))
    assert sorted(registry.path.parent.rglob("registry*")) == there
