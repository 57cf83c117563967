"""Mounts: what is where in the job's container."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from ...findings import Edit, Finding
from ..models.base import Mounted
from ..models.slurm import SlurmProfile
from .subject import Subject

_RESERVED = {"lepton": ("/", "/opt", "/usr", "/var")}
"""Mount points that a service keeps for itself."""

_STORAGE_VARIABLE = re.compile(r"\w*_(?:DIR|PATH|HOME|ROOT|CACHE)")
_OF_THE_IMAGE = (
    *("/bin", "/dev", "/etc", "/lib", "/nemo_run", "/opt", "/proc", "/run", "/sys", "/usr", "/var"),
    "/tmp",  # noqa: S108 (nothing is written there; it is recognized)
)
"""Folders that a container has of itself: a path below one need not be mounted."""


def collisions(subject: Subject) -> Iterable[Finding]:
    """Two mounts at one place, a mount that has no place, and places that are not to be had."""
    if subject.settings is None:
        return
    if isinstance(subject.settings, SlurmProfile):
        yield from _malformed(subject, subject.settings)
    seen: dict[str, Mounted] = {}
    for mount in subject.settings.mounted():
        target = posixpath.normpath(mount.target)
        if target in _RESERVED.get(subject.executor, ()):
            yield subject.finding(
                "error",
                mount.key,
                f"{subject.executor} keeps '{target}' for itself; nothing can be mounted there.",
                "Mount it at a folder of its own, for example /mnt/shared.",
            )
        first = seen.setdefault(target, mount)
        if first is mount:
            continue
        if first.source == mount.source:
            yield subject.finding(
                "warning",
                mount.key,
                f"'{mount.source}' is mounted at '{target}' twice.",
                "Take one of the two out.",
                Edit("remove", mount.key),
            )
        else:
            yield subject.finding(
                "error",
                mount.key,
                f"'{mount.source}' and '{first.source}' are both mounted at '{target}'.",
                "Give one of them another place in the container.",
            )


def outside_mounts(subject: Subject) -> Iterable[Finding]:
    """Data and results at a path that no mount covers are gone when the container ends."""
    if subject.settings is None or not subject.settings.containerized:
        return
    targets = [posixpath.normpath(mount.target) for mount in subject.settings.mounted()]
    said: list[str] = []
    for key, path in _storage_paths(subject):
        if not any(_is_below(path, known) for known in (*targets, *said)):
            said.append(path)
            where = ", ".join(targets) or "there is none"
            yield subject.finding(
                "warning",
                key,
                f"'{key}' is '{path}', and no mount covers that (mounts: {where}).",
                "Mount the storage that it is on, or choose a folder below a mount; what is "
                "written elsewhere is lost with the container.",
            )


def _malformed(subject: Subject, settings: SlurmProfile) -> Iterator[Finding]:
    listed = [(f"mounts.{n}", text) for n, text in enumerate(settings.mounts)]
    for key, text in [*listed, ("lustre_mount", settings.lustre_mount or ":")]:
        if ":" not in text:
            yield subject.finding(
                "error",
                key,
                f"'{text}' does not say where it is mounted in the container.",
                f"Write HOST:CONTAINER, for example {text}:{text}",
                Edit("set", key, f"{text}:{text}") if text.startswith("/") else None,
            )


def _storage_paths(subject: Subject) -> Iterator[tuple[str, str]]:
    assert subject.settings is not None
    for key in subject.settings.remote_paths:
        yield from _if_path(key, subject.values.get(key))
    for name, value in subject.settings.env_vars.items():
        if _STORAGE_VARIABLE.fullmatch(name):
            yield from _if_path(f"env_vars.{name}", value)


def _if_path(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value.startswith("/") and ":" not in value:
        path = posixpath.normpath(value)
        if not any(_is_below(path, known) for known in _OF_THE_IMAGE):
            yield key, path


def _is_below(path: str, folder: str) -> bool:
    return folder in ("/", path) or path.startswith(f"{folder}/")
