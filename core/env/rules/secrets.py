"""Secrets that stand in a file."""

from __future__ import annotations

from collections.abc import Iterable

from ...findings import Finding
from ...secrets import MASK
from .subject import Subject


def secrets_in_clear(subject: Subject) -> Iterable[Finding]:
    """Secrets that were written out. Resolving has masked them; their value is never shown."""
    for key, sourced in subject.origins.items():
        if sourced.value == MASK:
            name = key.rpartition(".")[2]
            variable = name if key.startswith("env_vars.") else f"{subject.executor}_{name}".upper()
            yield subject.finding(
                "error",
                key,
                f"'{key}' is a secret in clear.",
                f"Export it (export {variable}=…), write {name} = "
                f'"${{oc.env:{variable}}}" here, and change the secret if others had this file.',
            )
