"""Why a job that waits does so, by the events that Kubernetes tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .errors import said_by


def newest_of(events: Iterable[Mapping[str, Any]], moment: str) -> str:
    """What the newest event says, such as `FailedScheduling: 0/4 nodes are available`.

    Args:
        events: each with `reason`, and with `message` where the service passes it on.
        moment: the field of its time, as text (ISO 8601).
    """
    newest = max(events, key=lambda event: str(event.get(moment) or ""), default={})
    words = (str(newest.get(name) or "") for name in ("reason", "message"))
    return said_by(": ".join(word for word in words if word))
