"""Weights & Biases, through its official client."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ... import __version__
from ...core.code_digest import code_digest
from ...core.errors import UsageError
from ...core.schema import TrainConfig
from ...core.schema.output import WandbConfig
from ...core.secrets import MASK, is_secret_name, mask_text

if TYPE_CHECKING:
    import wandb


def check(config: WandbConfig) -> None:
    """Find out before training whether the run can be tracked as asked.

    Raises:
        UsageError: it is to be tracked online and there is no key.
    """
    if config.mode != "online" or os.environ.get("WANDB_API_KEY"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if not (file.is_file() and netrc.netrc(file).authenticators(str(host))):
        raise UsageError(
            "wandb.mode is online, and there is no API key.",
            fix="Set WANDB_API_KEY, run `wandb login`, or set wandb.mode=offline.",
        )


class Tracker:
    """Sends metrics to Weights & Biases, or nowhere.

    Args:
        config: the run's config; it goes along without `run.env`, which may name secrets, and
            with what looks like one masked.
        run_dir: offline files are put here.
        main: whether this rank speaks for all; the others send nothing.

    Raises:
        UsageError: the service refuses the run.
    """

    def __init__(self, config: TrainConfig, run_dir: Path, *, main: bool = True) -> None:
        self._run: wandb.Run | None = None
        settings = config.wandb
        if settings.mode == "disabled" or not main:
            return
        import wandb

        recorded = recorded_config(config)
        shown = recorded["wandb"]
        try:
            self._run = wandb.init(
                mode=settings.mode,
                project=settings.project,
                entity=settings.entity,
                name=shown["name"] or os.environ.get("TUNEDECK_RUN_NAME"),
                group=shown["group"],
                tags=shown["tags"],
                dir=run_dir,
                config={**recorded, "tunedeck": _provenance()},
            )
        except wandb.Error as error:
            raise UsageError(
                f"Weights & Biases refuses the run: {error}",
                fix="Check the key, wandb.project and wandb.entity, or set wandb.mode=offline.",
            ) from error

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record values of one step."""
        if self._run is not None:
            self._run.log({k: v for k, v in values.items() if k != "step"}, step=step)

    def finish(self, exit_code: int) -> None:
        """Close the record."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)


def recorded_config(config: TrainConfig) -> dict[str, Any]:
    """A config as it may be shown to others: values of secrets are masked, wherever they stand."""
    known = {value for name, value in os.environ.items() if is_secret_name(name)}
    masked = _masked(
        config.model_dump(mode="json", exclude={"run"}), frozenset(v for v in known if len(v) > 3)
    )
    assert isinstance(masked, dict)
    return masked


def _masked(value: Any, known: frozenset[str], name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(item, known, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, known, name) for item in value]
    if not isinstance(value, str):
        return value
    return MASK if is_secret_name(name) else mask_text(value, known)


def _provenance() -> dict[str, str]:
    """Which run of which code it is."""
    run = {
        "run_id": os.environ.get("TUNEDECK_RUN_ID"),
        "run_name": os.environ.get("TUNEDECK_RUN_NAME"),
    }
    named = {key: value for key, value in run.items() if value}
    return {"version": __version__, "code": code_digest(), **named}
