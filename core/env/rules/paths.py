"""Paths that another machine is to understand."""

from __future__ import annotations

from collections.abc import Iterable

from ...findings import Finding
from .subject import Subject

_ALSO_ABSOLUTE = ("venv",)


def absolute_paths(subject: Subject) -> Iterable[Finding]:
    """Folders over there, and both sides of a mount, must be absolute: nothing expands them."""
    if subject.model is None or subject.executor == "local":
        return
    for key in (*subject.model.remote_paths, *_ALSO_ABSOLUTE):
        value = subject.values.get(key)
        if isinstance(value, str) and value and not value.startswith("/"):
            yield _relative(subject, key, value)
    image = subject.values.get(subject.written("container_image"))
    if isinstance(image, str) and image.endswith((".sqsh", ".sif")) and not image.startswith("/"):
        yield _relative(subject, subject.written("container_image"), image)
    if subject.settings is None:
        return
    for mount in subject.settings.mounted():
        on_host = mount.source if subject.executor == "slurm" else mount.source.rpartition(":")[2]
        if subject.executor in ("slurm", "lepton") and not on_host.startswith("/"):
            yield _relative(subject, mount.key, on_host)
        if not mount.target.startswith("/"):
            yield _relative(subject, mount.key, mount.target)


def _relative(subject: Subject, key: str, value: str) -> Finding:
    how = (
        "'~' and '$' are not expanded there" if value[:1] in ("~", "$") else "the path is relative"
    )
    return subject.finding(
        "error",
        key,
        f"'{key}' must be an absolute path for {subject.executor}; '{value}' is not: {how}.",
        "Write the whole path, beginning with a slash.",
    )
