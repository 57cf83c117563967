"""Checks of whether a launch fits where it goes: the disk, the mesh, the memory, the profile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.paths import local_path_fields
from ..env.check import check_profile
from ..findings import Edit, Finding, Fix
from ..hardware import local_gpus
from ..keys import table_in
from ..memory import GIB, estimate, size_words, what_would_fit
from ..models import architecture_of, facts_of, gpu_memory, model_shape
from ..schema import TrainConfig, schema_for
from ..schema.conditions import conditions_of
from ..schema.mesh import architecture_misfits, mesh_misfits, optimizer_misfits
from ..schema.optimization import OptimizerConfig, StepSchedulerConfig
from ..schema.parallel import DistributedConfig
from .where import place_of

if TYPE_CHECKING:
    from ..catalog import Step
    from ..plan import Plan


def output_room(plan: Plan, step: Step) -> Iterable[Finding]:
    """The output folder can be written and has room for the checkpoints."""
    if plan.executor != "local":
        yield from _outputs_of_this_machine(plan, step)
        return
    configured = table_in(plan.config, "checkpoint").get("checkpoint_dir")
    folder = Path(configured) if configured else plan.run_dir
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding(
            "error",
            f"{folder} cannot be written.",
            key="checkpoint.checkpoint_dir",
            fix=Fix("Choose another checkpoint.checkpoint_dir, or set TUNEDECK_HOME."),
        )
    free = shutil.disk_usage(folder).free
    need = _checkpoint_bytes(plan)
    if free < need:
        yield Finding(
            "error",
            f"{folder} has {size_words(free)} free; the checkpoints take about {size_words(need)}.",
            key="checkpoint.checkpoint_dir",
            fix=Fix("Free some room, lower checkpoint.keep_last, or choose another folder."),
        )


def _outputs_of_this_machine(plan: Plan, step: Step) -> Iterable[Finding]:
    """Relative outputs start from a folder here, which a machine elsewhere may not have."""
    values = plan.profile_values
    shared = not values.get("host") if plan.executor == "slurm" else False
    if shared or values.get("tunnel") == "local" or values.get("launched_from_cluster"):
        return
    for key, path, direction in local_path_fields(schema_for(step.launch.schema), plan.config):
        given = plan.config_origins.get(key)
        if direction == "output" and given and not str(given.value).startswith("/"):
            yield Finding(
                "error",
                f"{key} = '{given.value}' would be {path} over there, a folder of this machine.",
                place_of(plan, key),
                profile=plan.profile,
                key=key,
                fix=Fix("Leave it out, and the run's own folder is taken; or give a whole path."),
            )


def _checkpoint_bytes(plan: Plan) -> int:
    shape = model_shape(plan.config)
    if shape is None or not table_in(plan.config, "checkpoint"):
        return 64 << 20
    peft = plan.config.get("peft")
    trained = shape.adapter_parameters(int(peft["dim"])) if peft else shape.parameters
    keep = int(plan.config["checkpoint"].get("keep_last") or 2) + 1
    # Weights to resume from and two Adam moments, four bytes each; the weights again, for use.
    usable = peft or plan.config["checkpoint"].get("save_consolidated") is not False
    return keep * trained * (16 if usable else 12)


def batch_and_mesh(plan: Plan, step: Step) -> Iterable[Finding]:
    """Batch and parallel sizes divide the world size, with numbers that would work."""
    if step.launch.schema != "sft":
        return
    parallel = DistributedConfig.model_validate(plan.config["distributed"])
    schedule = StepSchedulerConfig.model_validate(plan.config["step_scheduler"])
    optimizer = OptimizerConfig.model_validate(plan.config["optimizer"])
    misfits = (
        *mesh_misfits(parallel, schedule, plan.launch.world_size),
        *architecture_misfits(parallel, architecture_of(plan.config)),
        *optimizer_misfits(optimizer, plan.launch.world_size),
    )
    for misfit in misfits:
        edit = None if misfit.value is None else Edit("set", misfit.key, misfit.value)
        yield Finding(
            "error",
            misfit.message,
            place_of(plan, misfit.key),
            key=misfit.key,
            fix=Fix(misfit.fix, edit),
        )


def setup(plan: Plan, step: Step) -> Iterable[Finding]:
    """What the trainer's setup would refuse of the config and its model."""
    if step.launch.schema != "sft":
        return
    config = TrainConfig.model_validate(plan.config)
    for found in conditions_of(config, facts_of(plan.config), recipe="sft"):
        yield Finding(
            found.severity,
            found.message,
            place_of(plan, found.key),
            key=found.key,
            fix=Fix(found.fix),
        )


def memory(plan: Plan, step: Step) -> Iterable[Finding]:
    """The estimate fits the GPUs of the profile, where both are known."""
    if step.launch.schema != "sft":
        return
    config, world = dict(plan.config), plan.launch.world_size
    shape = model_shape(config)
    if shape is None:
        return
    if config["model"]["torch_dtype"] == "auto" and plan.executor == "local" and not local_gpus():
        config["model"] = {**config["model"], "torch_dtype": "float32"}
    needed = estimate(config, shape, world)
    limit = gpu_memory(plan)
    if limit is None:
        yield Finding("info", f"Estimated memory: {needed}. The GPU's size is not known.")
    elif needed.total > limit:
        yield Finding(
            "warning",
            f"Estimated memory is {needed}; there are {limit / GIB:.0f} GiB for it.",
            key="model.pretrained_model_name_or_path",
            fix=Fix(what_would_fit(config, shape, world, limit)),
        )
    else:
        yield Finding("info", f"Estimated memory: {needed} of {limit / GIB:.0f} GiB.")


def profile_file(plan: Plan, _step: Step) -> Iterable[Finding]:
    """What `env check` says of the profile, as it is resolved for this plan."""
    yield from check_profile(plan.profile, plan.executor, plan.profile_values, plan.profile_origins)
