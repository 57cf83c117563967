"""The bucket of a job: sending what it needs, and reading what it left."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...bundle import bundle
from ...errors import NotFoundError, UsageError
from ...fetch import RemoteFile
from ...inputs import content_digest
from ..slurm.layout import Upload
from .client import Hub
from .place import Storage

_EXCLUDED = [".*", "*/.*", "__pycache__/*", "*/__pycache__/*"]
"""What is no part of an input folder, as its digest has it too."""

_LINKS = ("latest", "best")


async def upload(hub: Hub, storage: Storage, uploads: Sequence[Upload]) -> None:
    """Put into the bucket what is not there yet; make the bucket, private, if there is none.

    Everything lies under its digest, so what is there is right.

    Raises:
        UsageError: if an input has changed since it was planned.
        TunedeckError: if the service refuses.
    """
    bucket = storage.bucket
    await hub.call("create_bucket", bucket, private=True, exist_ok=True)
    files = {u: storage.inside(u.target) for u in uploads if not Path(u.source).is_dir()}
    files |= {u: storage.inside(u.target) for u in uploads if u.kind == "code"}
    known = await hub.call("get_bucket_paths_info", bucket, list(files.values()))
    there = {file.path for file in known}
    missing = {u: name for u, name in files.items() if name not in there}
    for one in uploads:
        if one.kind != "code" and (one not in files or one in missing):
            await asyncio.to_thread(_check, one)
    if missing:
        add = [(str(_source(one)), name) for one, name in missing.items()]
        await hub.call("batch_bucket_files", bucket, add=add)
    for one in uploads:
        if one not in files:
            target = f"hf://buckets/{bucket}/{storage.inside(one.target)}"
            options: dict[str, Any] = {"ignore_times": True, "exclude": _EXCLUDED, "quiet": True}
            await hub.call("sync_bucket", one.source, target, **options)


async def put(hub: Hub, storage: Storage, path: str, content: bytes) -> None:
    """Write one small file into the bucket; `path` is the job's."""
    add = [(content, storage.inside(path))]
    await hub.call("batch_bucket_files", storage.bucket, add=add)


async def files_of(hub: Hub, bucket: str, prefix: str) -> list[RemoteFile]:
    """A run's files. Those of the checkpoints that `latest` and `best` name are there twice."""
    found = [
        RemoteFile(item.path.removeprefix(f"{prefix}/"), item.size)
        for item in await hub.call("list_bucket_tree", bucket, f"{prefix}/", recursive=True)
        if item.type == "file" and item.path.startswith(f"{prefix}/")
    ]
    names = {file.name for file in found}
    for link in _LINKS:
        if f"checkpoints/{link}" in names:
            target = (await read(hub, bucket, f"{prefix}/checkpoints/{link}")).decode().strip()
            found += _seen_by_link(found, link, target)
    hidden = {"checkpoints/latest", "checkpoints/best"}
    return [f for f in found if f.name not in hidden and not f.name.endswith("/.kept")]


async def target_of(hub: Hub, bucket: str, prefix: str, name: str) -> str:
    """The path in the bucket of a run's file that may be named by `latest` or `best`."""
    folder, _, rest = name.partition("/")
    link, _, below = rest.partition("/")
    if folder != "checkpoints" or link not in _LINKS or not below:
        return f"{prefix}/{name}"
    target = (await read(hub, bucket, f"{prefix}/checkpoints/{link}")).decode().strip()
    return f"{prefix}/checkpoints/{target}/{below}"


async def download(
    hub: Hub, bucket: str, path: str, target: Path, on_bytes: Callable[[int], None]
) -> None:
    """Bring a file home, whole: the service's storage sends in pieces of its own.

    Raises:
        NotFoundError: if there is none.
    """
    files = [(path, str(target))]
    await hub.call("download_bucket_files", bucket, files, raise_on_missing_files=True)
    on_bytes(target.stat().st_size)


async def read(hub: Hub, bucket: str, path: str) -> bytes:
    """The content of a small file.

    Raises:
        NotFoundError: if there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "file"
        await download(hub, bucket, path, target, lambda _: None)
        if not target.exists():
            raise NotFoundError(f"There is no {path} in the bucket {bucket}.")
        return target.read_bytes()


def secret_values(submission: Any) -> dict[str, str]:
    """Read now, handed over in memory. Preflight has spoken of those that are not there."""
    found = {s.name: os.environ.get(s.source) for s in submission.secrets if not s.remote}
    return {name: value for name, value in found.items() if value}


def _source(one: Upload) -> Path:
    return bundle().archive() if one.kind == "code" else Path(one.source)


def _check(one: Upload) -> None:
    source = Path(one.source)
    if content_digest(source)[0] != one.digest:
        raise UsageError(f"{source} has changed since the run was planned.", fix="Start it again.")


def _seen_by_link(found: Iterable[RemoteFile], link: str, target: str) -> list[RemoteFile]:
    folder = f"checkpoints/{target}/"
    return [
        RemoteFile(f"checkpoints/{link}/{file.name.removeprefix(folder)}", file.size)
        for file in found
        if file.name.startswith(folder)
    ]
