"""The submission: the exact bytes that a backend will send or execute for a plan."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .plan import SecretRef
from .secrets import MASK


@dataclass(frozen=True, slots=True)
class SubmissionFile:
    """A file that submitting will write: on this machine or, for a remote backend, over there."""

    path: str
    content: str = field(repr=False)
    mode: int = 0o644

    @classmethod
    def of_json(cls, path: str, data: Mapping[str, Any]) -> SubmissionFile:
        """A file of JSON."""
        return cls(path, json_text(data))

    @classmethod
    def of_yaml(cls, path: str, data: Mapping[str, Any]) -> SubmissionFile:
        """A file of YAML, such as a config."""
        import yaml

        return cls(path, yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True))


@dataclass(frozen=True, slots=True)
class Submission:
    """What is shown by the preview and handed to `submit`: one and the same object.

    Attributes:
        run_id, backend: whose it is.
        argv: the command that is executed (local) or that the script or payload ends in.
        env: environment variables set for it, without secrets.
        secrets: names only; `submit` reads the values as it hands them over.
        files: what is written before it starts.
        script: the batch script, where the backend takes one.
        payload: the request body, where the backend takes one; secrets are not in it.
        cwd: the folder it starts in.
    """

    run_id: str
    backend: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    secrets: tuple[SecretRef, ...] = ()
    files: tuple[SubmissionFile, ...] = ()
    script: str | None = None
    payload: Mapping[str, Any] | None = None
    cwd: str | None = None

    @property
    def command(self) -> str:
        """The command as one would type it; `shlex.split` gives `argv` back."""
        return shlex.join(self.argv)

    def secret_values(self) -> dict[str, str]:
        """The secrets that this machine has, read now; of the others preflight has spoken."""
        found = {s.name: os.environ.get(s.source) for s in self.secrets if not s.remote}
        return {name: value for name, value in found.items() if value}

    def to_json(self) -> dict[str, Any]:
        """The preview: everything that will be sent, with secrets masked."""
        return {
            "backend": self.backend,
            "command": self.command,
            "argv": list(self.argv),
            "cwd": self.cwd,
            "env": {**self.env, **{secret.name: MASK for secret in self.secrets}},
            "files": [
                {"path": f.path, "mode": oct(f.mode), "content": f.content} for f in self.files
            ],
            "script": self.script,
            "payload": self.payload,
        }


def json_text(data: Mapping[str, Any]) -> str:
    """JSON as people and programs read it."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
