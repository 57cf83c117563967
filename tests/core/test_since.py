from __future__ import annotations

import json
from dataclasses import replace

from tests.conftest import Command
from tunedeck.core.replays.lock import Change
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.core.since import since_last

TINY = Selection("peft/automodel", config="tiny")


def _record(selection: Selection) -> str:
    """A run as the registry has it before anything is sent."""
    plan = resolve(selection)
    Registry().add(RunRecord.of(plan, forced=False))
    return plan.run_id


def test_the_first_launch_has_nothing_to_be_held_against() -> None:
    assert since_last(resolve(TINY).to_json(), Registry()) is None


def test_what_is_another_value_now_is_told_against_the_newest_run(tunedeck: Command) -> None:
    _record(replace(TINY, overrides=("optimizer.lr=9e-4",)))
    newest = _record(TINY)
    again = since_last(resolve(TINY).to_json(), Registry())
    assert again is not None
    assert (again.record.run_id, again.changes) == (newest, ())
    plan = resolve(replace(TINY, overrides=("optimizer.lr=5e-4",)))
    changed = since_last(plan.to_json(), Registry())
    assert changed is not None
    (change,) = changed.changes
    assert change == Change("config.optimizer.lr", change.locked, 5e-4)
    assert change.locked != 5e-4
    done = tunedeck(
        "steps", "run", "peft/automodel", "-c", "tiny", "optimizer.lr=5e-4", "-d", "--json"
    )
    assert json.loads(done.stdout)["since"]["run_id"] == newest
    (told,) = json.loads(done.stdout)["since"]["changes"]
    assert told["key"] == "config.optimizer.lr"
    words = tunedeck("steps", "run", "peft/automodel", "-c", "tiny", "optimizer.lr=5e-4", "-d")
    assert f"Since {newest}" in words.stdout
    assert "config.optimizer.lr: " in words.stdout


def test_a_run_that_goes_on_is_held_against_the_one_it_goes_on_from() -> None:
    first = _record(TINY)
    _record(replace(TINY, overrides=("optimizer.lr=9e-4",)))
    record = Registry().get(first)
    record.run_dir.mkdir(parents=True)
    config = record.run_dir / "planned.yaml"
    config.write_text(json.dumps(record.plan["config_values"]))
    further = resolve(replace(TINY, config=str(config), overrides=("step_scheduler.max_steps=9",)))
    since = since_last(further.to_json(), Registry())
    assert since is not None
    assert since.record.run_id == first
    assert "config.step_scheduler.max_steps" in [change.key for change in since.changes]
