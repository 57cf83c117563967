"""The code that runs at the other end, known by its content."""

from __future__ import annotations

import hashlib
from functools import cache

from . import locations

_PARTS = ("trainer", "core/schema", "core/chat")
"""The trainer, and what it takes from core. The rest of Tunedeck changes no run."""


@cache
def code_digest() -> str:
    """`sha256:…` over names and content of the Python files that a run executes."""
    root = locations.package_dir()
    whole = hashlib.sha256()
    for part in _PARTS:
        for file in sorted((root / part).rglob("*.py")):
            whole.update(f"{part}/{file.relative_to(root / part).as_posix()}\0".encode())
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{whole.hexdigest()}"
