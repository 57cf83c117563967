"""Everything that can be known to be wrong before a run is registered.

Checks run side by side, each with a time limit; one that fails or hangs becomes a finding of its
own and hides none of the others.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import NOWHERE, Place, TunedeckError
from .findings import Edit, Finding, Fix
from .memory import GIB

if TYPE_CHECKING:
    from .backends.base import Backend
    from .catalog import Step
    from .plan import Plan

_LIMIT = 60.0

Check = Callable[["Plan", "Step"], Iterable[Finding]]


async def preflight(plan: Plan, step: Step, backend: Backend, *, online: bool) -> list[Finding]:
    """All findings for a plan, errors first.

    Args:
        plan: the plan to check.
        step: the step it runs, for its choices, required inputs and minimum GPUs.
        backend: asked for its own findings where it is this machine or `online` is set.
        online: whether the network may be used.
    """
    from .backends.base import Remarks

    tasks = [
        _guarded(check.__name__, asyncio.to_thread(_run, check, plan, step)) for check in CHECKS
    ]
    if isinstance(backend, Remarks):
        tasks.append(_guarded(f"{backend.name} plan", asyncio.to_thread(backend.remarks, plan)))
    if online or not backend.capabilities.remote:
        tasks.append(_guarded(f"{backend.name} backend", backend.preflight(plan)))
    found = [*plan.remarks, *(f for found in await asyncio.gather(*tasks) for f in found)]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda finding: order[finding.severity])


def _run(check: Check, plan: Plan, step: Step) -> list[Finding]:
    return list(check(plan, step))


async def _guarded(name: str, work: Any) -> list[Finding]:
    words = name.strip("_").replace("_", " ")
    try:
        return list(await asyncio.wait_for(work, _LIMIT))
    except TimeoutError:
        return [Finding("warning", f"The check '{words}' did not finish in {_LIMIT:.0f} s.")]
    except TunedeckError as error:
        fix = Fix(error.fix) if error.fix else None
        return [Finding("error", error.message, error.place or NOWHERE, fix=fix)]


def _place(plan: Plan, key: str) -> Place:
    sourced = plan.config_origins.get(key)
    return sourced.origin.place if sourced else NOWHERE


def step_rules(plan: Plan, step: Step) -> Iterable[Finding]:
    """The step's declared choices, required inputs and minimum GPUs."""
    from .catalog import check_choices, check_min_gpus, check_required

    yield from check_required(step, plan.config)
    yield from check_choices(step, plan.config)
    model = (plan.config.get("model") or {}).get("pretrained_model_name_or_path")
    if model:
        gpus = plan.launch.gpus_per_node * plan.launch.nodes
        yield from check_min_gpus(step, model, gpus)


def secrets_present(plan: Plan, _step: Step) -> Iterable[Finding]:
    """Every secret that this machine has to hand over is in its environment."""
    for secret in plan.secrets:
        if secret.remote or os.environ.get(secret.source):
            continue
        needed = secret.name == "WANDB_API_KEY" and _wandb_mode(plan) == "online"
        yield Finding(
            "error" if needed else "warning",
            f"The secret {secret.name} is not in the environment (looked for {secret.source}).",
            profile=plan.profile,
            key=f"secrets.{secret.name}",
            fix=Fix(
                f"export {secret.source}=… in the shell you launch from"
                + (", or set wandb.mode=offline." if needed else ".")
            ),
        )


def _wandb_mode(plan: Plan) -> str | None:
    mode: str | None = (plan.config.get("wandb") or {}).get("mode")
    return mode


def dataset(plan: Plan, step: Step) -> Iterable[Finding]:
    """Local data exists, parses, and has something to train on."""
    if step.launch.schema != "sft":
        return
    from .chat.check import check_dataset
    from .chat.verdict import data_findings
    from .data_look import tokenizer_of

    tokenizer = tokenizer_of(plan.config)
    for table in ("dataset", "validation_dataset"):
        options = plan.config.get(table)
        if not options or not options.get("path_or_dataset_id"):
            continue
        if _is_elsewhere(plan, options["path_or_dataset_id"]):
            continue
        report = check_dataset(
            options["path_or_dataset_id"],
            tokenizer,
            split=options["split"],
            seq_length=options["seq_length"],
            mask=options["mask"],
            truncation=options["truncation"],
        )
        for finding in data_findings(report, table):
            yield replace(finding, place=_place(plan, finding.key or ""))


def _is_elsewhere(plan: Plan, path: Any) -> bool:
    """Whether a path that is not on this machine may be on the one that the run goes to."""
    return (
        plan.executor != "local"
        and isinstance(path, str)
        and path.startswith("/")
        and not Path(path).exists()
    )


def model(plan: Plan, step: Step) -> Iterable[Finding]:
    """The model is a folder here, in the hub's cache, or at least shaped like a hub id."""
    if step.launch.schema != "sft":
        return
    from .models import local_model_dir, looks_like_hub_id

    key = "model.pretrained_model_name_or_path"
    name = plan.config["model"].get("pretrained_model_name_or_path")
    if not name or _is_elsewhere(plan, name):
        return
    if folder := local_model_dir(name):
        if not (folder / "config.json").is_file():
            yield Finding(
                "error",
                f"{folder} holds no model: it has no config.json.",
                _place(plan, key),
                key=key,
                fix=Fix("Give a folder that save_pretrained wrote, or a hub id."),
            )
    elif not looks_like_hub_id(name):
        yield Finding(
            "error",
            f"There is no model at {name}.",
            _place(plan, key),
            key=key,
            fix=Fix("Give a folder saved by transformers, or a hub id such as Qwen/Qwen3-8B."),
        )
    elif plan.executor == "local":
        yield Finding(
            "warning",
            f"The model {name} is not in this machine's cache; it will be downloaded first.",
            _place(plan, key),
            key=key,
        )


def output_room(plan: Plan, step: Step) -> Iterable[Finding]:
    """The output folder can be written and has room for the checkpoints."""
    if plan.executor != "local":
        return
    configured = (plan.config.get("checkpoint") or {}).get("checkpoint_dir")
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
            f"{folder} has {free / GIB:.1f} GiB free; the checkpoints take about "
            f"{need / GIB:.1f} GiB.",
            key="checkpoint.checkpoint_dir",
            fix=Fix("Free some room, lower checkpoint.keep_last, or choose another folder."),
        )


def _checkpoint_bytes(plan: Plan) -> int:
    from .models import model_shape

    shape = model_shape(plan.config)
    if shape is None or "checkpoint" not in plan.config:
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
    from .models import architecture_of
    from .schema.mesh import architecture_misfits, mesh_misfits
    from .schema.optimization import StepSchedulerConfig
    from .schema.parallel import DistributedConfig

    parallel = DistributedConfig.model_validate(plan.config["distributed"])
    schedule = StepSchedulerConfig.model_validate(plan.config["step_scheduler"])
    misfits = (
        *mesh_misfits(parallel, schedule, plan.launch.world_size),
        *architecture_misfits(parallel, architecture_of(plan.config)),
    )
    for misfit in misfits:
        edit = None if misfit.value is None else Edit("set", misfit.key, misfit.value)
        yield Finding(
            "error",
            misfit.message,
            _place(plan, misfit.key),
            key=misfit.key,
            fix=Fix(misfit.fix, edit),
        )


def setup(plan: Plan, step: Step) -> Iterable[Finding]:
    """What the trainer's setup would refuse of the config and its model."""
    if step.launch.schema != "sft":
        return
    from .models import facts_of
    from .schema import TrainConfig
    from .schema.conditions import conditions_of

    config = TrainConfig.model_validate(plan.config)
    for found in conditions_of(config, facts_of(plan.config), recipe="sft"):
        yield Finding(
            found.severity,
            found.message,
            _place(plan, found.key),
            key=found.key,
            fix=Fix(found.fix),
        )


def memory(plan: Plan, step: Step) -> Iterable[Finding]:
    """The estimate fits the GPUs of the profile, where both are known."""
    if step.launch.schema != "sft":
        return
    from .memory import estimate, what_would_fit
    from .models import gpu_memory, model_shape

    shape = model_shape(plan.config)
    if shape is None:
        return
    needed = estimate(plan.config, shape, plan.launch.world_size)
    limit = gpu_memory(plan)
    if limit is None:
        yield Finding("info", f"Estimated memory: {needed}. The GPU's size is not known.")
    elif needed.total > limit:
        yield Finding(
            "warning",
            f"Estimated memory is {needed}; there are {limit / GIB:.0f} GiB for it.",
            key="model.pretrained_model_name_or_path",
            fix=Fix(what_would_fit(plan.config, shape, plan.launch.world_size, limit)),
        )
    else:
        yield Finding("info", f"Estimated memory: {needed} of {limit / GIB:.0f} GiB.")


def profile_file(plan: Plan, _step: Step) -> Iterable[Finding]:
    """What `env check` says of the profile, as it is resolved for this plan."""
    from .env.check import check_profile

    yield from check_profile(plan.profile, plan.executor, plan.profile_values, plan.profile_origins)


CHECKS: tuple[Check, ...] = (
    step_rules,
    secrets_present,
    profile_file,
    dataset,
    model,
    output_room,
    batch_and_mesh,
    setup,
    memory,
)
"""The checks that need no network, in no particular order."""
