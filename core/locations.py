"""Every path that Tunedeck owns. `TUNEDECK_HOME` moves them all together."""

from __future__ import annotations

import os
from pathlib import Path

APP = "tunedeck"


def _home() -> Path | None:
    value = os.environ.get("TUNEDECK_HOME")
    return Path(value).expanduser().absolute() if value else None


def config_dir() -> Path:
    """The user's settings and saved replays."""
    if home := _home():
        return home / "config"
    import platformdirs

    return Path(platformdirs.user_config_dir(APP))


def state_dir() -> Path:
    """The registry, run folders, logs and drafts: what must not be lost."""
    if home := _home():
        return home / "state"
    import platformdirs

    return Path(platformdirs.user_state_dir(APP))


def cache_dir() -> Path:
    """What can be made again: prepared datasets, bundles, digests."""
    if home := _home():
        return home / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir(APP))


def runs_dir() -> Path:
    """One folder a run."""
    return state_dir() / "runs"


def run_dir(run_id: str) -> Path:
    """The folder of one run: plan, resolved config, log, sentinel, checkpoints."""
    return runs_dir() / run_id


def registry_file() -> Path:
    """The SQLite database of all runs."""
    return state_dir() / "registry.sqlite3"


def replays_dir() -> Path:
    """The user's saved launches."""
    return config_dir() / "replays"


def drafts_dir() -> Path:
    """The wizard's unfinished launches."""
    return state_dir() / "drafts"


def package_dir() -> Path:
    """The folder of the installed `tunedeck` package."""
    return Path(__file__).parent.parent


def shipped_profiles_dir() -> Path:
    """Generator configs and example replays that ship with the package."""
    return package_dir() / "profiles"


def shipped_steps_dir() -> Path:
    """The catalog that ships with the package."""
    return package_dir() / "core" / "steps"


def assets_dir() -> Path:
    """The tiny model, tokenizer and dataset that ship with the package."""
    return package_dir() / "core" / "assets"
