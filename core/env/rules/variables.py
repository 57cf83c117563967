"""Names of environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...findings import Edit, Finding
from .subject import Subject

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variable_names(subject: Subject) -> Iterable[Finding]:
    """`env_vars` must have names that a shell can export."""
    for name in subject.settings.env_vars if subject.settings else ():
        if not _NAME.fullmatch(name):
            mended = re.sub(r"[^A-Za-z0-9_]", "_", name)
            edit = Edit("rename", f"env_vars.{name}", f"env_vars.{mended}")
            yield subject.finding(
                "error",
                f"env_vars.{name}",
                f"'{name}' cannot be the name of an environment variable.",
                f"Use letters, digits and underscores: {mended}",
                edit if "." not in name and _is_free(mended, subject) else None,
            )


def _is_free(name: str, subject: Subject) -> bool:
    taken = f"env_vars.{name}" in subject.origins
    return bool(_NAME.fullmatch(name)) and not taken
