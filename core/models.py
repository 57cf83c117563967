"""Models by name: where their files lie on this machine, and what their config says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .keys import table_in
from .memory import GIB, ModelShape
from .schema.model_facts import ModelFacts, model_facts, own_code_file

if TYPE_CHECKING:
    from .plan import Plan

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

# Memory as the makers name it; a shape or flavor often carries it itself (`8xh100-80gb`).
_GPU_GIB = {
    "b300": 288,
    "b200": 180,
    "gh200": 96,
    "h200": 141,
    "h100": 80,
    "a100": 80,
    "l40s": 48,
    "rtx-pro-6000": 96,
    "a10g": 24,
    "a10": 24,
    "l4": 24,
    "t4": 16,
    "v100": 32,
}


def looks_like_hub_id(name: str) -> bool:
    """Whether a name has the form `model` or `owner/model`."""
    return bool(_HUB_ID.fullmatch(name))


def hub_cache() -> Path:
    """The hub's cache folder, by the environment variables that huggingface_hub reads."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    base = (
        Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    )
    return base.expanduser() / "hub"


def local_model_dir(name: str) -> Path | None:
    """The folder of a model or tokenizer: a path, or the newest snapshot in the hub's cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    repository = hub_cache() / f"models--{name.replace('/', '--')}"
    reference = repository / "refs" / "main"
    if reference.is_file():
        snapshot = repository / "snapshots" / reference.read_text().strip()
        if snapshot.is_dir():
            return snapshot
    return None


def cached_models() -> list[str]:
    """The hub ids of the models that are in the hub's cache."""
    if not hub_cache().is_dir():
        return []
    folders = sorted(hub_cache().glob("models--*"))
    names = (folder.name.removeprefix("models--").replace("--", "/") for folder in folders)
    return [name for name in names if local_model_dir(name)]


def local_models(folder: Path) -> list[str]:
    """Folders of models in or just below a folder, as one would type them from there."""
    found = [folder] if (folder / "config.json").is_file() else []
    for pattern in ("*/config.json", "*/*/config.json"):
        found += sorted(path.parent for path in folder.glob(pattern))
    return [
        f"./{path.relative_to(folder)}" if path != folder else "."
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def model_folder(config: Mapping[str, Any]) -> Path | None:
    """Where the weights of a training config's model lie on this machine, if they do."""
    name = table_in(config, "model").get("pretrained_model_name_or_path")
    return local_model_dir(name) if name else None


def architecture_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of a training config's model; empty where it is not on this machine."""
    given = table_in(config, "model").get("config")
    if isinstance(given, Mapping):
        return dict(given)
    folder = local_model_dir(given) if given else model_folder(config)
    if folder is None:
        return {}
    try:
        values = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def model_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """The sizes of a training config's model, where its `config.json` is on this machine."""
    return ModelShape.from_config(architecture_of(config))


def longest_row(config: Mapping[str, Any], table: str) -> int | None:
    """The tokens that are kept of a row: `seq_length`, within the model's positions and a pack.

    Args:
        config: a resolved training config.
        table: `dataset` or `validation_dataset`, whose rows are not packed.
    """
    architecture = architecture_of(config)
    text = architecture.get("text_config") or architecture
    limits = [config[table]["seq_length"], text.get("max_position_embeddings")]
    if table == "dataset":
        limits.append(table_in(config, "packed_sequence").get("packed_sequence_size") or None)
    return min((limit for limit in limits if limit is not None), default=None)


def facts_of(config: Mapping[str, Any]) -> ModelFacts:
    """What a training config's model says of itself, as far as its files are on this machine."""
    architecture, folder = architecture_of(config), model_folder(config)
    file = own_code_file(architecture) if folder is not None else None
    code = None
    if folder is not None and file is not None and (folder / file).is_file():
        code = (folder / file).read_text("utf-8", errors="replace")
    return model_facts(architecture, code)


def gpu_memory(plan: Plan) -> float | None:
    """Bytes of one GPU of the plan's profile (of this machine's memory, without one), or None."""
    if plan.executor == "local":
        from .hardware import local_gpus, memory_bytes

        gpus = local_gpus()
        return min(gpu.memory for gpu in gpus) if gpus else memory_bytes() / plan.launch.world_size
    words = " ".join(
        str(plan.profile_values.get(key) or "")
        for key in ("resource_shape", "flavor", "gres", "constraint", "node_group", "partition")
    ).lower()
    if match := re.search(r"(\d+)\s*gi?b", words):
        return float(match.group(1)) * GIB
    return next((size * GIB for gpu, size in _GPU_GIB.items() if gpu in words), None)
