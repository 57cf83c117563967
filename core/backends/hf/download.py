"""Bringing a file home from a bucket: from where it broke off, and held to the storage's digest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import NotFoundError, TunedeckError
from ..cloud import retry
from ..cloud.errors import Passing
from .apart import apart
from .client import Hub
from .meaning import meaning


async def download(
    hub: Hub, bucket: str, path: str, target: Path, on_bytes: Callable[[int], None]
) -> None:
    """Append to `target` what it lacks of a file, again where the connection is lost.

    Args:
        hub: the client.
        bucket: where it is.
        path: the file, from the bucket's root.
        target: holds its first bytes, or none.
        on_bytes: told how many bytes are here, as they come.

    Raises:
        NotFoundError: if there is none.
        Passing: if the storage stays out of reach; what has come stays.
        TunedeckError: if what came is not what the storage has; it is removed.
    """
    found = await hub.call("get_bucket_paths_info", bucket, [path])
    if not found:
        raise NotFoundError(f"There is no {path} in the bucket {bucket}.")
    target.touch()
    if not (file := found[0]).size:
        return
    metadata = await hub.call("get_bucket_file_metadata", bucket, path)
    headers = dict(await hub.streams.headers())

    open_stream = _streams(metadata.xet_file_data.refresh_route, headers, file)
    if open_stream is None:  # an hf_xet before 1.6 knows only whole files
        target.unlink()
        await hub.call("download_bucket_files", bucket, [(file, str(target))])
        on_bytes(target.stat().st_size)
        return
    failures = 0
    while True:
        before = target.stat().st_size
        try:
            await _append(open_stream, target, on_bytes)
            break
        except Passing:
            failures = 0 if target.stat().st_size > before else failures + 1
            if failures >= len(retry.PAUSES_S):
                raise
        await asyncio.sleep(retry.PAUSES_S[failures])
    await apart(lambda: _check(target, file.xet_hash, path))


Open = Callable[[int], Iterator[bytes]]


def _streams(refresh_url: str, headers: Mapping[str, str], file: Any) -> Open | None:
    """What opens a stream of a file's bytes from an offset on; None if the library has none."""
    import hf_xet

    kind = getattr(hf_xet, "XetSession", None)
    if kind is None or not hasattr(kind, "new_download_stream_group"):
        return None
    own = {name: value for name, value in headers.items() if name.lower() != "authorization"}

    def open_stream(offset: int) -> Iterator[bytes]:
        group = _session().new_download_stream_group(
            token_refresh_url=refresh_url, token_refresh_headers=dict(headers), custom_headers=own
        )
        info = hf_xet.XetFileInfo(file.xet_hash, file.size)
        stream: Iterator[bytes] = group.download_stream(info, start=offset or None)
        return stream

    return open_stream


@cache
def _session() -> Any:
    """One for the process: it has threads and connections of its own."""
    import hf_xet

    return hf_xet.XetSession()


async def _append(open_stream: Open, target: Path, on_bytes: Callable[[int], None]) -> None:
    loop, left = asyncio.get_running_loop(), threading.Event()

    def work() -> None:
        with target.open("ab") as out:
            here = out.tell()
            for chunk in open_stream(here):
                if left.is_set():
                    return
                here += out.write(chunk)
                with suppress(RuntimeError):  # nobody waits any more
                    loop.call_soon_threadsafe(on_bytes, here)

    try:
        await apart(work)
    except asyncio.CancelledError:
        left.set()
        raise
    except Exception as error:
        if (known := meaning(error, storage=True)) is None:
            raise
        raise known from error


def _check(target: Path, digest: str, path: str) -> None:
    import hf_xet

    if (hash_files := getattr(hf_xet, "hash_files", None)) is None:
        return
    if hash_files([str(target)])[0].hash != digest:
        target.unlink()
        raise TunedeckError(
            f"{path} came home damaged: its digest is not the storage's.",
            fix="Fetch it again. What came was removed.",
        )
