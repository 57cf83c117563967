"""Checks of what a launch takes in: the step's inputs, secrets, data and model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import asks_for_bitsandbytes
from ..catalog import check_choices, check_min_gpus, check_required
from ..chat import check_dataset, data_findings
from ..data.look import tokenizer_of
from ..errors import TunedeckError
from ..findings import Finding, Fix
from ..keys import table_in
from ..models import architecture_of, local_model_dir, longest_row, looks_like_hub_id
from .where import is_elsewhere, place_of

if TYPE_CHECKING:
    from ..catalog import Step
    from ..plan import Plan


_FLASH = {
    "flash_attention_2": ("flash_attn", "kernels"),
    "flash_attention_3": ("flash_attn_interface", "kernels"),
}
"""The modules that transformers has each of these attention kernels from: any of them will do."""


def step_rules(plan: Plan, step: Step) -> Iterable[Finding]:
    """The step's choices, required inputs and minimum GPUs, and what its own script imports."""
    if reason := _lacking_here(plan, step):
        yield Finding("error", f"{step.id} cannot be run: {reason}")
    yield from check_required(step, plan.config)
    yield from check_choices(step, plan.config)
    model = table_in(plan.config, "model").get("pretrained_model_name_or_path")
    if model:
        gpus = plan.launch.gpus_per_node * plan.launch.nodes
        yield from check_min_gpus(step, model, gpus)


def _lacking_here(plan: Plan, step: Step) -> str | None:
    """What a foreign step misses on this machine, if its own interpreter is what will run it."""
    elsewhere = ("run_command", "venv", "setup_lines", "startup_commands")
    if plan.launch.is_ours or any(plan.profile_values.get(key) for key in elsewhere):
        return None
    return step.not_runnable(plan.executor)


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
    mode: str | None = table_in(plan.config, "wandb").get("mode")
    return mode


def dataset(plan: Plan, step: Step) -> Iterable[Finding]:
    """Local data exists, parses, and has something to train on."""
    if step.launch.schema != "sft":
        return
    tokenizer = tokenizer_of(plan.config)
    for table in ("dataset", "validation_dataset"):
        options = plan.config.get(table)
        if not options or not options.get("path_or_dataset_id"):
            continue
        spec = options["path_or_dataset_id"]
        if not isinstance(spec, str):  # of a blend, what is here is looked at
            spec = [part for part in spec if not is_elsewhere(plan, part["path"])]
        if not spec or is_elsewhere(plan, spec):
            continue
        report = check_dataset(
            spec,
            tokenizer,
            split=options["split"],
            seq_length=longest_row(plan.config, table),
            mask=options["mask"],
            truncation=options["truncation"],
        )
        for finding in data_findings(report, table):
            yield replace(finding, place=place_of(plan, finding.key or ""))


def model(plan: Plan, step: Step) -> Iterable[Finding]:
    """The model is a folder here, in the hub's cache, or at least shaped like a hub id."""
    if step.launch.schema != "sft":
        return
    key = "model.pretrained_model_name_or_path"
    name = plan.config["model"].get("pretrained_model_name_or_path")
    if not name or is_elsewhere(plan, name):
        return
    if folder := local_model_dir(name):
        if not (folder / "config.json").is_file():
            yield Finding(
                "error",
                f"{folder} holds no model: it has no config.json.",
                place_of(plan, key),
                key=key,
                fix=Fix("Give a folder that save_pretrained wrote, or a hub id."),
            )
    elif not looks_like_hub_id(name):
        yield Finding(
            "error",
            f"There is no model at {name}.",
            place_of(plan, key),
            key=key,
            fix=Fix("Give a folder saved by transformers, or a hub id such as Qwen/Qwen3-8B."),
        )
    elif plan.executor == "local":
        yield Finding(
            "warning",
            f"The model {name} is not in this machine's cache; it will be downloaded first.",
            place_of(plan, key),
            key=key,
        )


def packages(plan: Plan, step: Step) -> Iterable[Finding]:
    """What a run here needs beside the trainer's own packages; elsewhere its start installs it."""
    if step.launch.schema != "sft" or plan.executor != "local":
        return
    quantized = table_in(plan.config, "peft").get("quantization")
    attention = plan.config["model"].get("attn_implementation")
    needed: list[tuple[str, str, tuple[str, ...]]] = []
    if asks_for_bitsandbytes(plan.config):
        key = "peft.quantization" if quantized else "optimizer.name"
        needed.append((key, "bitsandbytes", ("bitsandbytes",)))
    if attention in _FLASH:
        needed.append(("model.attn_implementation", "flash-attn", _FLASH[attention]))
    for key, package, modules in needed:
        if not any(map(find_spec, modules)):
            yield Finding(
                "error",
                f"{key} needs the package {package}, which is not installed.",
                place_of(plan, key),
                key=key,
                fix=Fix(f"Run `pip install {package}`, or leave the key out."),
            )


def merged(plan: Plan, step: Step) -> Iterable[Finding]:
    """The adapter and the base of a merge are there, and nothing is where its model will go."""
    if step.launch.schema != "merge_lora":
        return
    for key, what in (("lora_checkpoint", "adapter"), ("base_hf_path", "base model")):
        name = plan.config.get(key)
        if not name or is_elsewhere(plan, name) or looks_like_hub_id(name) or Path(name).exists():
            continue
        yield Finding(
            "error",
            f"There is no {what} at {name}.",
            place_of(plan, key),
            key=key,
            fix=Fix("Give its folder or a hub id, or name the run that made it: --from RUN."),
        )
    output = plan.config.get("output_hf_path")
    if output and plan.executor == "local" and not _is_free(Path(output)):
        yield Finding(
            "error",
            f"output_hf_path: '{output}' exists and is not empty.",
            place_of(plan, "output_hf_path"),
            key="output_hf_path",
            fix=Fix("Choose a new folder, or move the old one away."),
        )


def _is_free(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def tokenizer(plan: Plan, step: Step) -> Iterable[Finding]:
    """The tokenizer is where the config says, and the model has an embedding for each token."""
    if step.launch.schema != "sft":
        return
    key = "tokenizer.name"
    name = plan.config["tokenizer"].get("name")
    if name is None and isinstance(plan.config["model"].get("config"), dict):
        yield Finding(
            "error",
            "model.config has no tokenizer of its own.",
            place_of(plan, key),
            key=key,
            fix=Fix("Set tokenizer.name to a folder or hub id."),
        )
    if name and not (is_elsewhere(plan, name) or local_model_dir(name) or looks_like_hub_id(name)):
        yield Finding(
            "error",
            f"There is no tokenizer at {name}.",
            place_of(plan, key),
            key=key,
            fix=Fix("Give a folder that save_pretrained wrote, or a hub id."),
        )
    values = architecture_of(plan.config)
    room = (values.get("text_config") or values).get("vocab_size")
    loaded = None
    # What is wrong with the tokenizer itself, the check of the data says.
    with suppress(TunedeckError):
        loaded = tokenizer_of(plan.config)
    if loaded is not None and isinstance(room, int) and loaded.size > room:
        yield Finding(
            "error",
            f"The tokenizer has {loaded.size} tokens, the model has embeddings for {room}.",
            place_of(plan, key),
            key=key,
            fix=Fix("Use the model's own tokenizer, or set model.config.vocab_size for a new one."),
        )
