"""Files that travel in a job's environment, for storage that only jobs can write to.

A Linux process takes no environment variable over 128 KiB, and Kubernetes no object over 1.5 MiB.
So the code and small inputs go along with the run itself, in variables of 96 KiB; what is larger
goes ahead of it, in jobs that do nothing but write their part to the mounted storage (`carriers`).
Either way it ends up under its digest, and is complete wherever it is there.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import secrets
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...bundle import bundle
from ...errors import UsageError
from ...inputs import content_digest, files_of
from ..layout import Upload

VARIABLE = "TUNEDECK_PARCEL_"
"""What the names of the variables begin with; a number of three digits follows."""

ALONG, AHEAD, HERE = "the job's environment", "jobs that go ahead", "this machine"
"""The ways of an upload, as the preview names them."""

ALONG_LIMIT = 256 << 10
"""Bytes of inputs that travel with the run itself, beside the code."""

CARRIED_LIMIT = 32 << 20
"""Bytes of one input that travel at all."""

PART_BYTES = 576 << 10
"""Bytes of an archive in one carrier."""

_VARIABLE_SIZE = 96 << 10
_ENVIRONMENT_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Split:
    """How each upload travels.

    Attributes:
        along: in the environment of the run itself.
        ahead: by carriers, before the run.
    """

    along: tuple[Upload, ...]
    ahead: tuple[Upload, ...]


def split(uploads: Sequence[Upload]) -> Split:
    """The code and the smallest inputs go along, as many as fit; the rest goes ahead.

    Raises:
        UsageError: if an input is too large to travel in this way.
    """
    along, ahead, room = [], [], ALONG_LIMIT
    for upload in sorted(uploads, key=lambda one: one.size or 0):
        size = upload.size or 0
        if size > CARRIED_LIMIT:
            raise UsageError(
                f"{upload.source} has {size / (1 << 20):.0f} MiB; what travels with a run may have "
                f"{CARRIED_LIMIT >> 20}.",
                fix="Put it on the storage that the profile mounts, and name its path there. Or "
                "launch where that storage is mounted too, with launched_from_cluster = true.",
            )
        if size <= room:
            room -= size
            along.append(upload)
        else:
            ahead.append(upload)
    return Split(tuple(along), tuple(ahead))


def pack(uploads: Iterable[Upload], shared: str) -> bytes:
    """An archive (tar, gzip) of uploads by their paths below a folder; the same bytes each time.

    Raises:
        UsageError: if an input has changed since it was planned.
    """
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for upload in uploads:
            name = str(PurePosixPath(upload.target).relative_to(shared))
            for inner, data in _contents(upload):
                entry = tarfile.TarInfo(f"{name}/{inner}" if inner else name)
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def parts_of(archive: bytes) -> list[bytes]:
    """An archive in pieces, one for each carrier."""
    return [archive[at : at + PART_BYTES] for at in range(0, len(archive), PART_BYTES)]


def variables(data: bytes) -> dict[str, str]:
    """Bytes as environment variables.

    Raises:
        UsageError: if they are too many for one job.
    """
    text = base64.b64encode(data).decode()
    if len(text) > _ENVIRONMENT_LIMIT:
        raise UsageError(
            f"What travels in the job's environment has {len(text) >> 10} KiB; "
            f"{_ENVIRONMENT_LIMIT >> 10} are the most that a job can take.",
            fix="Put the inputs on the mounted storage, and name their paths there.",
        )
    pieces = range(0, len(text), _VARIABLE_SIZE)
    return {
        f"{VARIABLE}{number:03d}": text[at : at + _VARIABLE_SIZE]
        for number, at in enumerate(pieces)
    }


def described(values: Mapping[str, str]) -> list[dict[str, str]]:
    """The variables as a preview shows them: instead of each value its size and digest."""
    return [{"name": name, "value": _description(value)} for name, value in values.items()]


def filled(envs: Sequence[Mapping[str, Any]], values: Mapping[str, str]) -> list[dict[str, Any]]:
    """A job's variables with the values that were described in their places.

    Raises:
        UsageError: if the values are not those that were described.
    """
    shown = {env["name"]: env.get("value") for env in envs if env["name"].startswith(VARIABLE)}
    if shown != {name: _description(value) for name, value in values.items()}:
        raise UsageError(
            "What travels in the job's environment has changed since it was planned.",
            fix="Start it again.",
        )
    return [{**env, "value": values[env["name"]]} if env["name"] in values else dict(env)
            for env in envs]  # fmt: skip


def _description(value: str) -> str:
    digest = hashlib.sha256(value.encode()).hexdigest()
    return f"<{len(value)} characters, sha256:{digest}>"


def carrier_names(upload: Upload, place: str, count: int) -> list[str]:
    """The names of an upload's carriers: the same for the same content at the same place."""
    known = hashlib.sha256(f"{upload.digest}\0{upload.target}\0{place}".encode()).hexdigest()[:12]
    return [f"tunedeck-{known}-{number:03d}" for number in range(count)]


def put(uploads: Iterable[Upload]) -> None:
    """Copy uploads onto storage that this machine sees at the same paths as the jobs do.

    Raises:
        UsageError: if an input has changed since it was planned, or the storage cannot be written.
    """
    for upload in uploads:
        target = Path(upload.target)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            if target.exists():
                continue
            draft.parent.mkdir(parents=True, exist_ok=True)
            for inner, path in _files(upload):
                place = draft / inner if inner else draft
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
            draft.rename(target)
        except OSError as error:
            raise UsageError(
                f"{target} cannot be written from this machine: {error.strerror or error}",
                fix="Set launched_from_cluster = false where the storage is not mounted here.",
            ) from error


def summary(parcels: Split) -> list[Mapping[str, object]]:
    """What the preview says of the uploads."""
    ways = ((parcels.along, ALONG), (parcels.ahead, AHEAD))
    return [{**one.to_json(), "by": way} for uploads, way in ways for one in uploads]


def _contents(upload: Upload) -> Iterable[tuple[str, bytes]]:
    if upload.kind == "code":
        yield "", bundle().packed
        return
    for inner, path in _files(upload):
        yield inner, path.read_bytes()


def _files(upload: Upload) -> Iterable[tuple[str, Path]]:
    source = bundle().archive() if upload.kind == "code" else Path(upload.source)
    if upload.kind != "code" and content_digest(source)[0] != upload.digest:
        raise UsageError(f"{source} has changed since the run was planned.", fix="Start it again.")
    yield from files_of(source)
