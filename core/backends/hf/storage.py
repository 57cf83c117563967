"""What a run has left in its bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..files import RemoteFile
from .client import Hub
from .download import download

_LINKS = ("latest", "best")


async def files_of(hub: Hub, bucket: str, prefix: str) -> list[RemoteFile]:
    """A run's files. Those of the checkpoints that `latest` and `best` name are there twice."""
    found = [
        RemoteFile(item.path.removeprefix(f"{prefix}/"), item.size, item.xet_hash)
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


async def read(hub: Hub, bucket: str, path: str) -> bytes:
    """The content of a small file.

    Raises:
        NotFoundError: if there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "file"
        await download(hub, bucket, path, target, lambda _: None)
        return target.read_bytes()


def _seen_by_link(found: Iterable[RemoteFile], link: str, target: str) -> list[RemoteFile]:
    folder = f"checkpoints/{target}/"
    return [
        replace(file, name=f"checkpoints/{link}/{file.name.removeprefix(folder)}")
        for file in found
        if file.name.startswith(folder)
    ]
