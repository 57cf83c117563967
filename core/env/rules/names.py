"""Names and addresses in a form that no service has, found before anything is asked or sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ...findings import Finding
from ..placeholder import placeholder_in
from .subject import Subject

_HOST = (re.compile(r"[^\s/]+"), "a host has no spaces and no slashes", "login.cluster.edu")
_WORD = (re.compile(r"[^\s/]+"), "it has no spaces and no slashes", "nlp")
_SHAPE = (re.compile(r"\S+"), "a shape has no spaces", "gpu.8xh100-80gb")
_FLAVOR = (re.compile(r"\S+"), "a flavor has no spaces", "a10g-small")
_ADDRESS = (
    re.compile(r"https?://[^\s/]\S*"),
    "an address begins with https:// and has no spaces",
    "https://HOST/api/v1",
)
_FORMS: Mapping[str, Mapping[str, tuple[re.Pattern[str], str, str]]] = {
    "slurm": {
        "host": _HOST,
        "account": _WORD,
        "partition": _WORD,
        "run_partition": _WORD,
        "batch_partition": _WORD,
        "build_partition": _WORD,
        "qos": _WORD,
        "reservation": _WORD,
    },
    "lepton": {"resource_shape": _SHAPE, "carrier_shape": _SHAPE},
    "dgxcloud": {"base_url": _ADDRESS, "kube_apiserver_url": _ADDRESS, "project_name": _WORD},
    "hf_jobs": {"namespace": _WORD, "flavor": _FLAVOR},
}


def names(subject: Subject) -> Iterable[Finding]:
    """Each name and address against the form that all of its kind have."""
    for key, (form, words, example) in _FORMS.get(subject.executor, {}).items():
        value = subject.values.get(key)
        if not isinstance(value, str) or not value or placeholder_in(value):
            continue  # a placeholder has a finding of its own
        if not form.fullmatch(value):
            yield subject.finding(
                "error",
                key,
                f"'{value}' is no {key}: {words}.",
                f'Write it like this: {key} = "{example}"',
            )
