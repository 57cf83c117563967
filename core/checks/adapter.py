"""Checks of the names by which an adapter's config means the model's layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..findings import Edit, Finding, Fix
from ..layer_names import LayerNames, layer_names
from ..models import architecture_of, model_folder
from ..schema.adapter import LoraConfig, matching
from ..text import did_you_mean
from .where import place_of

if TYPE_CHECKING:
    from ..catalog import Step
    from ..plan import Plan


def adapter(plan: Plan, step: Step) -> Iterable[Finding]:
    """There is an adapter where one is the point, and the layers that it names are in the model.

    The model's layers are known where its files or its kind tell them.
    """
    if step.launch.schema != "sft":
        return
    if not plan.config.get("peft"):
        if {made.type for made in step.manifest.produces} == {"checkpoint_lora"}:
            yield Finding(
                "warning",
                f"{step.id} is for adapters, and 'peft' is not set: every weight is trained.",
                place_of(plan, "peft"),
                key="peft",
                fix=Fix("Set peft=lora, or run sft/automodel.", Edit("set", "peft", "lora")),
            )
        return
    known = layer_names(architecture_of(plan.config), model_folder(plan.config))
    if known is None:
        return
    peft = LoraConfig.model_validate(plan.config["peft"])
    for key, name, certain, there in _missing(peft, known):
        what = "module" if key == "modules_to_save" else "linear layer"
        yield Finding(
            "error" if certain else "warning",
            f"No {what} of the model is called '{name}'.",
            place_of(plan, f"peft.{key}"),
            key=f"peft.{key}",
            fix=Fix(f"{did_you_mean(name, there)} It has {', '.join(there)}.".strip()),
        )


def _missing(peft: LoraConfig, known: LayerNames) -> Iterator[tuple[str, str, bool, list[str]]]:
    """Key, name, whether a run would fail of it, and the names that there are."""
    linear = sorted({name.rpartition(".")[2] for name in known.linear})
    for key, certain in (("target_modules", known.certain), ("exclude_modules", False)):
        for pattern in getattr(peft, key):
            if not matching(known.linear, pattern):
                yield key, pattern, certain, linear
    for name in peft.modules_to_save:
        if name.rpartition(".")[2] not in known.modules:
            named = sorted(part for part in known.modules if not part.isdigit())
            yield "modules_to_save", name, known.certain, named
