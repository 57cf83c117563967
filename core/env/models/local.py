"""A profile that runs on this machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import EXECUTOR, BaseProfile


class LocalProfile(BaseProfile):
    """Keys of the executor `local`: the run is a process of this machine, without a container."""

    executor: Literal["local"] = Field("local", description=EXECUTOR)
    venv: str | None = Field(
        None, description="Virtual environment whose Python runs the step, instead of this one."
    )
    grace_period: float | None = Field(
        None, ge=0, description="Seconds between SIGTERM and SIGKILL when a run is cancelled; 30."
    )

    @property
    def containerized(self) -> bool:
        """Never: the image of a profile that runs elsewhere means nothing here."""
        return False
