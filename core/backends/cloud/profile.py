"""A profile by its types, and what a job of it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from ...env.models.base import BaseProfile
from ...errors import UsageError
from ...plan import Plan

P = TypeVar("P", bound=BaseProfile)


def profile_as(model: type[P], values: Mapping[str, Any]) -> P:
    """The profile's values by their types. What it may not hold was found by its check.

    Raises:
        UsageError: if a value cannot be what it should.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"'{key}' of the profile: {first['msg']}.", fix="See: tunedeck env check"
        ) from None


def required(profile: BaseProfile, key: str) -> str:
    """A value that a job cannot do without.

    Raises:
        UsageError: if the profile does not set it.
    """
    if value := getattr(profile, key):
        return str(value)
    raise UsageError(f"The profile sets no {key}.", fix=f'Add it to the profile: {key} = "…"')


def job_name(plan: Plan, longest: int) -> str:
    """A name that people know a run by and that says its id: letters, digits and hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", plan.name.lower()).strip("-").lstrip("0123456789-")
    words = words[: longest - len(plan.run_id) - 1].rstrip("-")
    return f"{words}-{plan.run_id}" if words else plan.run_id
