"""Keys that may be written in more than one way, because the files of others do."""

from __future__ import annotations

SPELLINGS = {
    "nproc_per_node": ("nproc_per_node", "nprocs_per_node"),
    "container_image": ("container_image", "container"),
    "client_id": ("client_id", "app_id"),
    "client_secret": ("client_secret", "app_secret"),
    "timeout": ("timeout", "time"),
}
"""A key's own name → all the names it loads under, its own first."""


def other_spellings(name: str) -> tuple[str, ...]:
    """The other names of the same key. A later layer's spelling replaces an earlier one's."""
    for names in SPELLINGS.values():
        if name in names:
            return tuple(other for other in names if other != name)
    return ()
