"""One model an executor: the keys of its profiles, their types and what they are for.

The one source for the check, the comments in generated files, the wizard's form and the
documentation.
"""

from __future__ import annotations

from typing import get_args

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from ...errors import UsageError
from ...text import did_you_mean
from .base import BaseProfile, Item
from .dgxcloud import DGXCloudProfile
from .hf_jobs import HFJobsProfile
from .lepton import LeptonProfile
from .local import LocalProfile
from .slurm import SlurmProfile

MODELS: dict[str, type[BaseProfile]] = {
    "local": LocalProfile,
    "slurm": SlurmProfile,
    "lepton": LeptonProfile,
    "dgxcloud": DGXCloudProfile,
    "hf_jobs": HFJobsProfile,
}
"""Executor → model of its profiles."""

__all__ = ["MODELS", "BaseProfile", "describe", "item_keys", "keys_of", "profile_model"]


def profile_model(executor: str) -> type[BaseProfile]:
    """The model of an executor's profiles.

    Raises:
        UsageError: if there is no such executor; with the nearest name.
    """
    if executor in MODELS:
        return MODELS[executor]
    raise UsageError(
        f"There is no executor '{executor}'. {did_you_mean(executor, MODELS)}".rstrip(),
        fix=f"Set 'executor' to one of: {', '.join(MODELS)}.",
    )


def keys_of(executor: str) -> dict[str, FieldInfo]:
    """All keys of an executor's profiles in the model's order, a key's other spellings after it."""
    fields = profile_model(executor).model_fields
    return {name: info for field, info in fields.items() for name in _names(field, info)}


def describe(executor: str, key: str) -> str:
    """What a key is for, in a sentence or two; empty for one that the executor does not have."""
    info = keys_of(executor).get(key)
    return (info.description or "") if info else ""


def item_keys(executor: str, key: str) -> list[str]:
    """The keys of the tables in a list such as `mounts`; none where the items are no tables."""
    info = keys_of(executor).get(key)
    for item in get_args(info.annotation) if info else ():
        if isinstance(item, type) and issubclass(item, Item):
            return [field.alias or name for name, field in item.model_fields.items()]
    return []


def _names(field: str, info: FieldInfo) -> list[str]:
    if isinstance(info.validation_alias, AliasChoices):
        return [str(choice) for choice in info.validation_alias.choices]
    return [field]
