"""The code that travels: the installed package as one archive, known by its content.

No git checkout is needed, and nothing in it is compiled: what runs here runs on any machine with
Python. The assets do not travel with it; a run that reads them takes them as local inputs.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import locations
from .files import write_atomic
from .keys import table_in

if TYPE_CHECKING:
    from .plan import Launch

_PARTS = ("core", "trainer")
_LEFT_OUT = ("core/assets", "core/cli", "core/steps", "core/ssh")
_SUFFIXES = {".py", ".typed", ".json", ".jinja", ".toml"}

_CORE_NEEDS = ("pydantic", "omegaconf", "pyyaml", "platformdirs", "tokenizers", "jinja2")
_TRAINER_NEEDS = ("torch", "transformers", "peft", "safetensors", "datasets")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Bundle:
    """The package's files, by their path in the archive.

    Attributes:
        digest: `sha256:…` over names and content.
        files: path (`tunedeck/trainer/loop.py`) → the file here.
    """

    digest: str
    files: Mapping[str, Path]

    def archive(self) -> Path:
        """The archive (tar, gzip), made once and kept in the cache. The same bytes everywhere.

        Raises:
            OSError: if the cache cannot be written to.
        """
        name = self.digest.removeprefix("sha256:")
        path = locations.cache_dir() / "bundles" / f"{name}.tar.gz"
        if not path.exists():
            write_atomic(path, self.packed)
        return path

    @cached_property
    def packed(self) -> bytes:
        """The archive's bytes, for those who must write nothing.

        Made once: what a preview has shown is sent, also where the package has changed since.
        """
        packed = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, path in self.files.items():
                data = path.read_bytes()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
        return packed.getvalue()


@cache
def bundle() -> Bundle:
    """What a run elsewhere needs of the installed package."""
    root = locations.package_dir()
    found = [path for part in _PARTS for path in (root / part).rglob("*") if _travels(root, path)]
    names = sorted(path.relative_to(root).as_posix() for path in [root / "__init__.py", *found])
    files = {f"tunedeck/{name}": root / name for name in names}
    whole = hashlib.sha256()
    for name, path in files.items():
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return Bundle(f"sha256:{whole.hexdigest()}", files)


def requirements(launch: Launch, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a module of ours imports to run a config, as pip reads it: `peft>=0.17`."""
    names = (*_CORE_NEEDS, *(_TRAINER_NEEDS if launch.trains else ()))
    if table_in(config, "wandb").get("mode") not in (None, "disabled"):
        names = (*names, "wandb")
    if launch.trains and asks_for_bitsandbytes(config):
        names = (*names, "bitsandbytes")
    declared = _declared()
    return tuple(declared.get(name, name) for name in names)


def asks_for_bitsandbytes(config: Mapping[str, Any]) -> bool:
    """Whether a training config keeps weights or an optimizer's state in a few bits."""
    quantized = table_in(config, "peft").get("quantization") is not None
    return quantized or table_in(config, "optimizer").get("name") == "adamw8bit"


@cache
def _declared() -> dict[str, str]:
    """Package → requirement, as the installed package declares it."""
    found: dict[str, str] = {}
    for line in importlib.metadata.requires("tunedeck") or ():
        requirement = line.partition(";")[0].strip()
        if name := _NAME.match(requirement):
            found[name[0].lower()] = requirement
    return found


def _travels(root: Path, path: Path) -> bool:
    name = path.relative_to(root).as_posix()
    return path.suffix in _SUFFIXES and not name.startswith(_LEFT_OUT)
