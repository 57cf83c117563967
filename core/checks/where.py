"""Where what a check looks at was set, and on which machine it lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NOWHERE, Place
from ..inputs import is_here

if TYPE_CHECKING:
    from ..plan import Plan


def place_of(plan: Plan, key: str) -> Place:
    """Where a key of the config was set."""
    sourced = plan.config_origins.get(key)
    return sourced.origin.place if sourced else NOWHERE


def is_elsewhere(plan: Plan, path: Any) -> bool:
    """Whether a path that is not on this machine may be on the one that the run goes to."""
    return (
        plan.executor != "local"
        and isinstance(path, str)
        and path.startswith("/")
        and not is_here(Path(path))
    )
