"""Paths that another machine is to understand."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...findings import Finding
from .subject import Subject

_ALSO_ABSOLUTE = ("venv",)
_VARIABLE = re.compile(r"\$\w")


def absolute_paths(subject: Subject) -> Iterable[Finding]:
    """Folders over there, and both sides of a mount, must be absolute: nothing expands them."""
    if subject.model is None or subject.executor == "local":
        return
    for key in (*subject.model.remote_paths, *_ALSO_ABSOLUTE):
        value = subject.values.get(key)
        if isinstance(value, str) and value and not _is_whole(value):
            yield _relative(subject, key, value)
    image = subject.values.get(subject.written("container_image"))
    if isinstance(image, str) and image.endswith((".sqsh", ".sif")) and not _is_whole(image):
        yield _relative(subject, subject.written("container_image"), image)
    if subject.settings is None:
        return
    for mount in subject.settings.mounted():
        on_host = mount.source if subject.executor == "slurm" else mount.source.rpartition(":")[2]
        if subject.executor in ("slurm", "lepton") and not _is_whole(on_host):
            yield _relative(subject, mount.key, on_host)
        if not _is_whole(mount.target):
            yield _relative(subject, mount.key, mount.target)


def _is_whole(path: str) -> bool:
    """Whether a path says all by itself: absolute, and with no variable of a shell in it."""
    return path.startswith("/") and not _VARIABLE.search(path)


def _relative(subject: Subject, key: str, value: str) -> Finding:
    expands = value[:1] in ("~", "$") or _VARIABLE.search(value)
    how = "'~' and '$' are not expanded there" if expands else "the path is relative"
    return subject.finding(
        "error",
        key,
        f"'{key}' must be an absolute path for {subject.executor}; '{value}' is not: {how}.",
        "Write the whole path, beginning with a slash."
        + (" A variable of this machine's is ${oc.env:NAME}." if "$" in value else ""),
    )
