"""What can be checked without a plan: the installation, the folders, tokens, a profile's reach."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from . import locations
from .errors import DeadlineError, TunedeckError
from .findings import Finding, Fix
from .memory import GIB

_LOW_ROOM = 2 * GIB
_TRAIN = ("torch", "transformers", "peft", "safetensors", "datasets", "wandb")
_REACH_LIMIT = 30.0


def examine(profile: str | None, env_file: Path | None) -> list[Finding]:
    """Every finding, good news (severity `info`) among them. Uses the network for a profile only.

    Args:
        profile: also check this env profile and whether its backend can be reached.
        env_file: use this env file instead of the ones that are found.
    """
    found = [*_installation(), *_folders(), *_tokens()]
    if profile is not None:
        found += asyncio.run(_profile(profile, env_file))
    return found


def _installation() -> Iterable[Finding]:
    version = importlib.metadata.version("tunedeck")
    yield Finding("info", f"tunedeck {version}, Python {sys.version.split()[0]}")
    missing = [name for name in _TRAIN if not _version(name)]
    if missing:
        yield Finding(
            "warning",
            f"Training on this machine is not installed (missing: {', '.join(missing)}).",
            fix=Fix("pip install 'tunedeck[train]'. Submitting elsewhere needs nothing more."),
        )
    else:
        from .hardware import local_gpus

        gpus = ", ".join(gpu.name for gpu in local_gpus()) or "no GPU, training runs on the CPU"
        yield Finding("info", f"trainer installed: torch {_version('torch')}; {gpus}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _folders() -> Iterable[Finding]:
    for name, folder in (
        ("configuration", locations.config_dir()),
        ("state", locations.state_dir()),
        ("cache", locations.cache_dir()),
    ):
        there = folder
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding(
                "error",
                f"The {name} folder {folder} cannot be written.",
                fix=Fix("Change its permissions, or set TUNEDECK_HOME to another folder."),
            )
            continue
        free = shutil.disk_usage(there).free
        text = f"{name}: {folder} ({free / GIB:.0f} GiB free)"
        if free < _LOW_ROOM:
            yield Finding("warning", text, fix=Fix("Free some room, or set TUNEDECK_HOME."))
        else:
            yield Finding("info", text)


def _tokens() -> Iterable[Finding]:
    signed_in = os.environ.get("HF_TOKEN") or _hub_token_file().is_file()
    yield Finding("info", f"Hugging Face token: {'present' if signed_in else 'none'}")
    wandb = os.environ.get("WANDB_API_KEY") or _in_netrc("api.wandb.ai")
    yield Finding("info", f"W&B key: {'present' if wandb else 'none'}")


def _hub_token_file() -> Path:
    if path := os.environ.get("HF_TOKEN_PATH"):
        return Path(path)
    from .models import hub_cache

    return hub_cache().parent / "token"


def _in_netrc(host: str) -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host in path.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False


async def _profile(name: str, env_file: Path | None) -> list[Finding]:
    from .backends.base import TellsInventory, load_backend
    from .env.check import check_profile
    from .env.find import find_env_files
    from .env.load import load_env_files
    from .env.resolve import resolve_profile

    files = load_env_files(find_env_files(Path.cwd(), env_file))
    profile = resolve_profile(files, name)
    found = list(check_profile(profile.name, profile.executor, profile.values, profile.origins))
    if any(finding.severity == "error" for finding in found):
        return found
    backend = load_backend(profile.executor, dict(profile.values))
    if not isinstance(backend, TellsInventory):
        return [*found, Finding("info", f"profile {name}: executor {profile.executor}")]
    try:
        await asyncio.wait_for(backend.inventory(dict(profile.values)), _REACH_LIMIT)
    except TimeoutError:
        text = f"{profile.executor} did not answer in {_REACH_LIMIT:.0f} s."
        advice = "Check the host and the network, then try again."
        return [*found, replace(Finding.of(DeadlineError(text, fix=advice)), profile=name)]
    except TunedeckError as error:
        return [*found, replace(Finding.of(error), profile=name)]
    return [*found, Finding("info", f"profile {name}: {profile.executor} answers")]
