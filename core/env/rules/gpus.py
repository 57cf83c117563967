"""GPU counts, and what the shape or flavor says of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ...findings import Edit, Finding
from ...text import counted
from ..models.base import BaseProfile
from .subject import Subject

_SHAPE = re.compile(r"gpu\.(?:(?P<before>\d+)x\S+|[a-z]\S*?\.(?P<after>\d+)|\S+)", re.IGNORECASE)
_FLAVOR = re.compile(r"[a-z]\w*?-?\w*?x(?P<count>\d+)", re.IGNORECASE)
_NO_GPU_FLAVOR = re.compile(r"cpu\b|inf\d|v\d", re.IGNORECASE)  # CPUs, Inferentia, TPUs
_GRES = re.compile(r"(?:^|,)gpu(?::[\w.-]+?)??(?::(?P<count>\d+))?(?=,|$|\()")


def gpus_of_shape(shape: str) -> int | None:
    """The GPUs of a Lepton shape (`gpu.8xh100-80gb`, `gpu.h100`, `cpu.large`), None if untold."""
    if shape.startswith("cpu."):
        return 0
    match = _SHAPE.fullmatch(shape)
    return int(match["before"] or match["after"] or 1) if match else None


def gpus_of_flavor(flavor: str) -> int | None:
    """The GPUs of a Hugging Face flavor (`h200x8`, `a10g-largex2`, `t4-small`, `cpu-basic`)."""
    if _NO_GPU_FLAVOR.match(flavor):
        return 0
    match = _FLAVOR.fullmatch(flavor)
    return int(match["count"]) if match else 1


def gpus_of_gres(gres: str) -> int | None:
    """The GPUs that Slurm's `gres` asks for on each node, None if it asks for none."""
    counts = [int(match["count"] or 1) for match in _GRES.finditer(gres)]
    return sum(counts) if counts else None


def gpu_counts(subject: Subject) -> Iterable[Finding]:
    """GPUs against the shape, flavor or gres; processes against GPUs; nodes against the machine."""
    settings = subject.settings
    if settings is None:
        return
    gpus = settings.gpus_per_node
    for key, said in _said_elsewhere(subject):
        if gpus is None:
            gpus = said
        if said is not None and said != gpus:
            yield subject.finding(
                "error",
                "gpus_per_node",
                f"gpus_per_node is {gpus}, and {key} '{subject.values[key]}' has {said}.",
                f"Set gpus_per_node to {said}, or choose another {key}.",
            )
    key, per_node = _processes(subject, settings)
    if gpus and per_node and per_node > gpus:
        yield subject.finding(
            "error",
            key,
            f"{key} is {per_node}, and a node has {counted(gpus, 'GPU')}: "
            "processes would share one.",
            f"Set {key} to {gpus} or less.",
        )
    elif gpus and per_node is None and (settings.ntasks_per_node or 0) > gpus:
        yield subject.finding(
            "warning",
            "ntasks_per_node",
            f"ntasks_per_node is {settings.ntasks_per_node}, and a node has "
            f"{counted(gpus, 'GPU')}: processes would share one.",
            f"Set ntasks_per_node to {gpus} or less.",
        )
    if subject.executor == "local" and settings.nodes > 1:
        yield subject.finding(
            "error",
            "nodes",
            f"nodes is {settings.nodes}, and the local executor has this machine alone.",
            "Set nodes to 1, or use a profile of a cluster.",
            Edit("set", "nodes", 1),
        )


def _processes(subject: Subject, settings: BaseProfile) -> tuple[str, int | None]:
    """The key that sets the processes of a node, and their number where it is known."""
    if settings.nproc_per_node is None and subject.executor == "hf_jobs":
        text = str(settings.env_vars.get("NPROC_PER_NODE") or "")  # as scripts for Jobs have it
        if text.isdigit():
            return "env_vars.NPROC_PER_NODE", int(text)
    return subject.written("nproc_per_node"), settings.nproc_per_node


def _said_elsewhere(subject: Subject) -> Iterator[tuple[str, int | None]]:
    for key, count in (
        ("resource_shape", gpus_of_shape),
        ("flavor", gpus_of_flavor),
        ("gres", gpus_of_gres),
    ):
        value = subject.values.get(key)
        if isinstance(value, str) and value:
            yield key, count(value)
