"""Checks of a checkpoint that a launch continues from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..findings import Edit, Finding, Fix
from ..keys import table_in
from ..schema import TrainConfig
from ..schema.continuing import STATE_FILE, candidates, changes, data_order
from .where import place_of

if TYPE_CHECKING:
    from ..catalog import Step
    from ..plan import Plan


def continuing(plan: Plan, step: Step) -> Iterable[Finding]:
    """The checkpoint is there, and its place in the data is one in the data that the run has."""
    key = "checkpoint.restore_from"
    path = table_in(plan.config, "checkpoint").get("restore_from")
    if step.launch.schema != "sft" or not path:
        return
    found = next((c for c in candidates(path) if (c / STATE_FILE).is_file()), None)
    if found is None:
        # A run that goes elsewhere may find there what is not here.
        if plan.executor == "local":
            yield Finding(
                "error",
                f"There is no complete checkpoint at '{path}'.",
                place_of(plan, key),
                key=key,
                fix=Fix("Name a folder like checkpoints/step_000020, or the folder that holds it."),
            )
        return
    try:
        before = json.loads((found / STATE_FILE).read_text(encoding="utf-8")).get("data", {})
    except (OSError, ValueError, AttributeError):
        yield Finding(
            "error",
            f"{found / STATE_FILE} is damaged.",
            place_of(plan, key),
            key=key,
            fix=Fix("Name the checkpoint before it."),
        )
        return
    for change in changes(before, data_order(TrainConfig.model_validate(plan.config))):
        edit = None if change.value is None else Edit("set", change.key, change.value)
        yield Finding(
            "error" if change.refused else "warning",
            change.message,
            place_of(plan, change.key),
            key=change.key,
            fix=Fix(change.fix, edit),
        )
