"""The files that torch's distributed checkpoints are written to."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from io import IOBase
from pathlib import Path
from typing import Any, cast

from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter


class ShardWriter(FileSystemWriter):
    """Writes shards, flushed to disk, and says why one could not be written.

    Args:
        folder: takes the files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sync_files=True)
        self.fs = _Files()


class _Files(FileSystem):
    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[IOBase]:
        with super().create_stream(path, mode) as stream:
            watched = _Watched(stream, path)
            try:
                yield cast(IOBase, watched)
            except RuntimeError:
                if watched.failure is not None:
                    raise watched.failure from None
                raise


class _Watched:
    """A file that remembers why it could not be written to: `torch.save` tells it in other words.

    Args:
        stream: the file.
        path: its name.
    """

    def __init__(self, stream: Any, path: str | os.PathLike[str]) -> None:
        self._stream, self._path = stream, path
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            written: int = self._stream.write(content)
        except OSError as error:
            error.filename = os.fspath(self._path)
            self.failure = error
            raise
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
