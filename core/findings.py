"""What a check found: the one shape for `env check`, preflight and the wizard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .errors import NOWHERE, ExitCode, Place, TunedeckError

Severity = Literal["error", "warning", "info"]

_TOLD = (ExitCode.AUTHENTICATION, ExitCode.CONNECTION, ExitCode.TIMEOUT)
"""What is told apart from a mistake in what was asked for."""


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
    """One thing a check has to say. Errors block a submission unless it is forced.

    `exit_code` is that of a command which the finding stops.
    """

    severity: Severity
    message: str
    place: Place = NOWHERE
    profile: str | None = None
    key: str | None = None
    fix: Fix | None = None
    exit_code: ExitCode = ExitCode.USAGE

    @classmethod
    def of(cls, error: TunedeckError, severity: Severity = "error") -> Finding:
        """What an error says, as a finding."""
        fix = Fix(error.fix) if error.fix else None
        code = error.exit_code if error.exit_code in _TOLD else ExitCode.USAGE
        return cls(severity, error.message, error.place or NOWHERE, fix=fix, exit_code=code)

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


def exit_code_of(findings: list[Finding]) -> ExitCode:
    """What a command exits with that these findings stop: OK if none does."""
    codes = {finding.exit_code for finding in blocking(findings)}
    return next((code for code in (*_TOLD, ExitCode.USAGE) if code in codes), ExitCode.OK)
