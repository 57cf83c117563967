"""Compiles the device with torch's headers, once for each state of its sources."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

NAME = "emulated_cuda_device"
"""The module of Python that is built."""

_log = logging.getLogger(__name__)
_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_OPTIONS = [
    *("-std=c++20", "-O0", "-fPIC", "-shared", "-Wall"),
    *(f"-DTORCH_EXTENSION_NAME={NAME}", "-DUSE_DISTRIBUTED", "-DUSE_C10D_GLOO"),
]


def why_not() -> str | None:
    """Why there can be no emulated device here; None if there can be one."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return "torch is not installed"
    if torch.split("+")[0] != (wanted := _constrained("torch")):
        return f"the device is written for torch {wanted}, and this is {torch}"
    if list((_torch() / "lib").glob("libtorch_cuda*")):
        return "this torch has CUDA of its own"
    if _compiler() is None:
        return "there is no C++ compiler: apt-get install g++"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are not there: apt-get install python3-dev"
    return None


def build() -> Path:
    """The compiled module; made now if it is not there, which takes half a minute of a processor.

    Raises:
        CalledProcessError: the compiler refused it.
    """
    sources = sorted(_HERE.glob("*.cpp"))
    compiler = _compiler()
    assert compiler is not None
    command = [compiler, *_OPTIONS, *_includes(), "-x", "c++", "-", *_libraries()]
    state = sha256(f"{version('torch')} {command}".encode())
    for file in [*sources, *sorted(_HERE.glob("*.h"))]:
        state.update(file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunedeck-tests"
    module = cache / state.hexdigest()[:16] / f"{NAME}.so"
    module.parent.mkdir(parents=True, exist_ok=True)
    with (module.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the tests wait for the first
        if not module.exists():
            _compile(command, sources, module)
    return module


def _compile(command: list[str], sources: list[Path], module: Path) -> None:
    begin = time.monotonic()
    # In one piece, since reading torch's headers takes most of the time.
    text = "".join(f'#include "{source}"\n' for source in sources)
    with tempfile.TemporaryDirectory(dir=module.parent) as folder:
        made = Path(folder) / module.name
        subprocess.run([*command, "-o", str(made)], input=text, text=True, check=True)
        made.rename(module)
    _log.info("compiled in %.0f s", time.monotonic() - begin)


def _constrained(package: str) -> str:
    lines = (_ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{package}==")).partition("==")[2]


def _compiler() -> str | None:
    return shutil.which("g++") or shutil.which("c++")


def _torch() -> Path:
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _includes() -> list[str]:
    torch = _torch() / "include"
    folders = [torch, torch / "torch/csrc/api/include", sysconfig.get_path("include")]
    return [f"-isystem{folder}" for folder in folders]


def _libraries() -> list[str]:
    folder = _torch() / "lib"
    names = ("torch_python", "torch_cpu", "torch", "c10")
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", *(f"-l{name}" for name in names)]
