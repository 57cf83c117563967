"""What a run left decides what comes next: an adapter can be merged, a whole model cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tunedeck.core.catalog import load_catalog
from tunedeck.core.choices import form_of, selection_after
from tunedeck.core.errors import NotFoundError, UsageError
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.outcome import loss_change, next_commands
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection


def _ended(
    registry: Registry, make_plan: Any, *, step: str = "sft/automodel", **result: Any
) -> RunRecord:
    plan = replace(make_plan(), step=step)
    record = RunRecord.of(plan, forced=False)
    registry.add(record)
    plan.run_dir.mkdir(parents=True)
    if result:
        (plan.run_dir / "result.json").write_text(json.dumps(result))
    return registry.get(plan.run_id)


def _merge(record: RunRecord) -> dict[str, Any]:
    return dict(resolve(Selection("convert/merge_lora", "tiny", from_run=record.run_id)).config)


def test_an_adapter_is_handed_to_the_merge(registry: Registry, make_plan: Any) -> None:
    record = _ended(registry, make_plan, kind="adapter", best_checkpoint="/runs/a/step_9", base="b")
    assert _merge(record)["lora_checkpoint"] == "/runs/a/step_9"
    assert f"tunedeck steps run convert/merge_lora --from {record.run_id}" in next_commands(record)


@pytest.mark.parametrize("step", ["sft/automodel", "peft/automodel"])
def test_a_whole_model_is_not_offered_to_the_merge(
    registry: Registry, make_plan: Any, step: str
) -> None:
    left = {"kind": "model", "checkpoint": "/runs/a/step_9", "base": "b"}
    record = _ended(registry, make_plan, step=step, **left)
    assert not any("merge_lora" in command for command in next_commands(record))
    with pytest.raises(UsageError, match="lora_checkpoint must be set"):
        _merge(record)


def test_the_form_shows_what_a_run_hands_over(registry: Registry, make_plan: Any) -> None:
    record = _ended(registry, make_plan, kind="adapter", best_checkpoint="/runs/a/step_9", base="b")
    chosen = Selection("convert/merge_lora", from_run=record.run_id)
    row = form_of(chosen, load_catalog()).row("lora_checkpoint")
    assert row is not None
    assert (row.value, row.changed, row.finding) == ("/runs/a/step_9", False, None)
    missing = form_of(replace(chosen, from_run="r0"), load_catalog())
    assert any("r0" in finding.message for finding in missing.findings)


def test_what_is_not_here_goes_on_where_it_is(registry: Registry, make_plan: Any) -> None:
    left = {"kind": "adapter", "artifact": "/far/run/checkpoints/step_9", "base": "b"}
    here = _ended(registry, make_plan, **left)
    assert selection_after(here) == Selection("", from_run=here.run_id)
    there = _ended(registry, make_plan, **left)
    plan = {**there.plan, "selection": {"cwd": "/work", "env_file": None}}
    at = {"run_dir": "/far/run"}
    there = replace(there, plan=plan, backend="slurm", profile="far", handle=at)
    assert selection_after(there).profile == "far"
    brought = there.run_dir / "checkpoints" / "step_9"
    brought.mkdir(parents=True)
    assert selection_after(there).profile == "local"


def test_a_run_that_left_nothing_has_nothing_to_hand_on(registry: Registry, make_plan: Any) -> None:
    assert next_commands(_ended(registry, make_plan, kind="adapter", base="b")) == []
    with pytest.raises((NotFoundError, UsageError), match="no result"):
        _merge(_ended(registry, make_plan))


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((2.0, 0.5, 0.5), "validation loss 2 → 0.5 (-75%)"),
        ((2.0, 1.0, 0.5), "validation loss 2 → 1 (-50%), 0.5 at its best"),
        ((2.0, None, None), None),
    ],
)
def test_a_best_loss_before_the_end_is_told(
    losses: tuple[float | None, ...], said: str | None
) -> None:
    names = ("first_val_loss", "val_loss", "best_val_loss")
    assert loss_change(dict(zip(names, losses, strict=True))) == said
