"""The plan: step, config and profile, fully resolved and frozen. Nothing is decided after it."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .findings import Finding
from .origins import Sourced
from .text import counted

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32: no i, l, o, u
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01; eight characters last until 2059


def new_run_id() -> str:
    """A run id: `r`, eight characters of time in ms, four of chance.

    Ids sort by the time they were made, fit every service's naming rules, and two made in the same
    millisecond collide once in a million.
    """
    moment = int(time.time() * 1000) - _EPOCH_MS
    clock = "".join(_ALPHABET[moment >> shift & 31] for shift in range(35, -1, -5))
    return "r" + clock + "".join(secrets.choice(_ALPHABET) for _ in range(4))


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret by name. The value is read from the environment only as it is handed over.

    Attributes:
        name: the environment variable that the job will see.
        source: where the value is at the time of submission: an environment variable of this
            machine, or with `remote` the name (`name/key`) under which the service already has it.
        remote: whether the service has the value and this machine need not.
    """

    name: str
    source: str
    remote: bool = False


@dataclass(frozen=True, slots=True)
class LocalInput:
    """A file or folder of this machine that the run reads, known by its content.

    Attributes:
        key: the config key that names it (`dataset.path_or_dataset_id`).
        path: absolute path on this machine.
        digest: `sha256:…` of the content; a folder's is over its files' names and digests.
        size: bytes in all.
    """

    key: str
    path: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How the step's processes are started.

    Attributes:
        kind: `python` (one process a node), `torchrun` (one a GPU) or `command` (the profile's
            `run_command`, or a command line of a foreign step's own).
        module: a Python module that is run with `-m`, or the path of a `.py` file.
        args: its arguments before `--config`.
        nodes, nproc_per_node, gpus_per_node: the shape; the world size is nodes × nproc_per_node.
        command: the step's own command line, with the fields `{script}` and `{config}`.
        workdir: the folder that a foreign step starts in; the run's own unless given.
    """

    kind: str
    module: str
    args: tuple[str, ...] = ()
    nodes: int = 1
    nproc_per_node: int = 1
    gpus_per_node: int = 0
    command: str = ""
    workdir: str = ""

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.nodes * self.nproc_per_node

    @property
    def shape(self) -> str:
        """The shape in words: `2 nodes × 8 processes`."""
        processes = counted(self.nproc_per_node, "process", "processes")
        return f"{counted(self.nodes, 'node')} × {processes}"

    @property
    def is_ours(self) -> bool:
        """Whether a module of Tunedeck's own runs, with an interpreter that has to know it."""
        return self.kind != "command" and self.module.startswith("tunedeck.")

    @property
    def trains(self) -> bool:
        """Whether it is Tunedeck's trainer that runs, and not what core can do alone."""
        return self.is_ours and not self.module.startswith("tunedeck.core.")

    def to_json(self) -> dict[str, Any]:
        """The launch as plain data; what only foreign steps have, where it is given."""
        facts = {**asdict(self), "args": list(self.args), "world_size": self.world_size}
        unset = {key for key in ("command", "workdir") if not facts[key]}
        return {key: value for key, value in facts.items() if key not in unset}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a backend needs, decided. Frozen: a change makes a new plan.

    `config` and `profile_values` are plain nested data (treat as read-only); `config_origins` and
    `profile_origins` tell for each dotted leaf key where its value came from; `remarks` is what the
    config allows but most likely does not mean, `notes` where one layer overrules another.
    `step_digest` and `code` name the step's definition and the code that runs by their content.
    """

    run_id: str
    name: str
    step: str
    step_source: str
    config_name: str
    config: Mapping[str, Any]
    profile: str
    executor: str
    profile_values: Mapping[str, Any]
    launch: Launch
    env: Mapping[str, str]
    secrets: tuple[SecretRef, ...]
    inputs: tuple[LocalInput, ...]
    run_dir: Path
    digest: str
    created_at: float
    overrides: tuple[str, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    config_origins: Mapping[str, Sourced] = field(default_factory=dict, repr=False)
    profile_origins: Mapping[str, Sourced] = field(default_factory=dict, repr=False)
    remarks: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    step_digest: str = ""
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, for `--json`, the record and the replay. Holds no secret."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "digest": self.digest,
            "step": self.step,
            "step_source": self.step_source,
            "step_digest": self.step_digest,
            "code": self.code,
            "config": self.config_name,
            "config_values": self.config,
            "profile": self.profile,
            "executor": self.executor,
            "profile_values": self.profile_values,
            "launch": self.launch.to_json(),
            "env": dict(self.env),
            "secrets": [secret.name for secret in self.secrets],
            "inputs": [
                {"key": i.key, "path": i.path, "digest": i.digest, "size": i.size}
                for i in self.inputs
            ],
            "overrides": list(self.overrides),
            "selection": self.selection,
            "run_dir": str(self.run_dir),
            "created_at": self.created_at,
        }


def digest_of(data: Any) -> str:
    """`sha256:` over canonical JSON, the same on every machine and in every process."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
