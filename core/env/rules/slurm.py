"""Options whose form Slurm, or SSH, would complain about only when the job is submitted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...findings import Finding
from .subject import Subject

_FORMS = {
    "signal": (re.compile(r"(?:[BR]+:)?(?:SIG)?[A-Z0-9]+(?:@\d+)?"), "B:USR1@120"),
    "array": (re.compile(r"\d+(?:-\d+(?::\d+)?)?(?:,\d+(?:-\d+(?::\d+)?)?)*(?:%\d+)?"), "0-7%2"),
    "dependency": (
        re.compile(r"(?:singleton|(?:after\w*|expand):[\w:+]+)(?:[,?](?:singleton|\w+:[\w:+]+))*"),
        "afterok:1234",
    ),
    "mem": (re.compile(r"\d+[KMGT]?B?", re.IGNORECASE), "200G"),
}


def slurm_forms(subject: Subject) -> Iterable[Finding]:
    """Each option against the form that it must have."""
    if subject.executor != "slurm":
        return
    for key, (form, example) in _FORMS.items():
        value = subject.values.get(key)
        if value in (None, "") or form.fullmatch(str(value)):
            continue
        yield subject.finding(
            "error",
            key,
            f"'{value}' is not of the form that Slurm takes for '{key}'.",
            f'Write it like this: {key} = "{example}"',
        )
