"""What a check found: the one shape for `env check`, preflight and the wizard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .errors import NOWHERE, Place

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Edit:
    """A mend that a machine can make to one key of one profile or config.

    `set` gives `key` the value `value`; `rename` calls it `value` instead; `remove` drops it.
    """

    op: Literal["set", "rename", "remove"]
    key: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do about a finding: words always, an edit where it is mechanical."""

    words: str
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check has to say. Errors block a submission unless it is forced."""

    severity: Severity
    message: str
    place: Place = NOWHERE
    profile: str | None = None
    key: str | None = None
    fix: Fix | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract's shape: `severity, file, line, column, profile, key, message, fix`."""
        fix: dict[str, Any] | None = None
        if self.fix is not None:
            edit = self.fix.edit
            fix = {
                "words": self.fix.words,
                "edit": {"op": edit.op, "key": edit.key, "value": edit.value} if edit else None,
            }
        return {
            "severity": self.severity,
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "profile": self.profile,
            "key": self.key,
            "message": self.message,
            "fix": fix,
        }


def blocking(findings: list[Finding]) -> list[Finding]:
    """The findings that stop a submission."""
    return [finding for finding in findings if finding.severity == "error"]
