"""What the step needs is there before it starts: runs on the far side, standard library alone.

`python provide.py FOLDER REQUIREMENT…` installs into FOLDER what this interpreter lacks: never
torch, and never another version of what is there. It ends with 0, or with 1 and the list of what
is missing where nothing can be installed.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ROUNDS = 6
_NEVER = {"torch"}
"""Built for one driver and one machine: an image or an environment has it, or the run ends."""


def missing(requirements: list[str], folder: str) -> list[str]:
    """The requirements of which no version at all is installed, here or in `folder`."""
    there = {
        _normal(found.metadata["Name"])
        for found in importlib.metadata.distributions(path=[*sys.path, folder])
        if found.metadata["Name"]
    }
    return [text for text in requirements if _normal(_name(text)) not in there]


def main(folder: str, *requirements: str) -> int:
    """Install what is missing, then what that needs in turn; the exit code."""
    wanted = list(requirements)
    for _ in range(_ROUNDS):
        lacking = missing(wanted, folder)
        if not lacking:
            return 0
        if any(_normal(_name(text)) in _NEVER for text in lacking) or not _install(folder, lacking):
            break
        wanted += _needs_of(lacking, folder)
    _say(f"tunedeck: error: {sys.executable} lacks {', '.join(missing(wanted, folder))}")
    _say("tunedeck: fix: use an image or a venv that has them (pip install 'tunedeck[train]').")
    return 1


def _install(folder: str, requirements: list[str]) -> bool:
    """One by one in pip's terms: without what they need, which might replace what is there."""
    _say(f"tunedeck: installing {', '.join(requirements)}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--target", folder]
    return subprocess.run([*command, *requirements], check=False).returncode == 0


def _needs_of(requirements: list[str], folder: str) -> list[str]:
    """What freshly installed packages require, those of extras left out."""
    names = {_normal(_name(text)) for text in requirements}
    return [
        need.partition(";")[0].strip()
        for found in importlib.metadata.distributions(path=[folder])
        if _normal(found.metadata["Name"] or "") in names
        for need in found.requires or ()
        if _applies(need.partition(";")[2])
    ]


def _applies(marker: str) -> bool:
    if not marker.strip():
        return True
    from pip._vendor.packaging.markers import Marker

    return bool(Marker(marker).evaluate({"extra": ""}))


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    return found[0] if found else requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
