"""A step as the rest of Tunedeck sees it: manifest, configs, and how it is launched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import Place, UsageError
from ..findings import Finding
from ..text import did_you_mean, nearest
from .manifest import Manifest

SHIPPED = "tunedeck"
"""The source of the steps that ship with the package."""


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """How a step's processes are started.

    Attributes:
        kind: `torchrun`, `python`, `builtin`, `command`, or `unknown` where nothing says it.
        module: the Python module run with `-m`; empty where `script` is run instead.
        args: arguments before `--config`.
        schema: name of the schema that its configs are checked against; None checks nothing.
        extra: the extra of Tunedeck's that the machine it runs on must have.
        script: the Python file to run, for a step that brings its own.
        command: a command line with the fields `{script}` and `{config}`.
        workdir: the folder it starts in, a path of the container.
    """

    kind: str
    module: str = ""
    args: tuple[str, ...] = ()
    schema: str | None = None
    extra: str | None = None
    script: Path | None = None
    command: str | None = None
    workdir: str | None = None


@dataclass(frozen=True)
class Step:
    """One step of the catalog.

    Attributes:
        manifest: its `step.toml`.
        folder: where it lies.
        source: `tunedeck`, or the added folder it was found in.
        configs: config name → file.
        default_config: the name of the config that is used when none is given.
        launch: how its processes are started.
        resources: profile keys and values that it needs unless a profile says otherwise.
        notes: what there is to say about its files.
    """

    manifest: Manifest
    folder: Path
    source: str
    configs: Mapping[str, Path]
    default_config: str | None
    launch: LaunchFacts
    resources: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Finding, ...] = ()

    @property
    def id(self) -> str:
        """`category/name`, unique in a catalog."""
        return self.manifest.step.id

    @property
    def file(self) -> Path:
        """Its `step.toml`."""
        return self.folder / "step.toml"

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of what defines the step, without its configs; the same on every machine."""
        whole = hashlib.sha256(self.file.read_bytes())
        if self.launch.script is not None:
            whole.update(self.launch.script.read_bytes())
        return f"sha256:{whole.hexdigest()}"

    def config_path(self, config: str | None = None, cwd: Path | None = None) -> Path:
        """The file of a config.

        Args:
            config: a name; or a path, if it holds a slash or ends in `.yaml` or `.yml`; None takes
                the step's default.
            cwd: the folder that a relative path starts from.

        Raises:
            UsageError: if there is no such config or file.
        """
        if config is None:
            return self._default_path()
        if "/" in config or config.endswith((".yaml", ".yml")):
            return self._given_path((cwd or Path.cwd()) / Path(config).expanduser())
        if config in self.configs:
            return self.configs[config]
        raise UsageError(
            f"{self.id} has no config '{config}'. {did_you_mean(config, self.configs)}".strip(),
            place=Place(str(self.file)),
            fix=self._configs_text(),
        )

    def config_about(self, name: str) -> str:
        """What one of its configs is for, with the word whether it is the default.

        That is the first sentence of the comment that the file begins with, where it has one.
        """
        try:
            with self.configs[name].open(encoding="utf-8", errors="replace") as file:
                first = file.readline(500)
        except OSError:
            first = ""
        words = first.removeprefix("#").strip() if first.startswith("#") else ""
        if "copyright" in words.casefold() or "SPDX" in words:
            words = ""
        sentence = words.partition(". ")[0].removesuffix(".")
        default = "the default" if name == self.default_config else ""
        return ": ".join(part for part in (default, sentence) if part)

    def not_runnable(self, executor: str) -> str | None:
        """Why the step cannot be run, or None if nothing is known against it.

        Args:
            executor: where it is to run. What this machine lacks matters only for `local`.
        """
        if self.launch.kind == "unknown":
            return (
                "nothing says how it is started: step.toml has no [launch], "
                "and step.py no [tool.runspec] header"
            )
        if executor != "local" or self.launch.kind == "builtin":
            return None
        from .requirements import lacking

        return lacking(self.launch)

    def _default_path(self) -> Path:
        if self.default_config is not None:
            return self.configs[self.default_config]
        raise UsageError(
            f"{self.id} has no default config.",
            place=Place(str(self.file)),
            fix=f"Name one with -c. {self._configs_text()}",
        )

    def _given_path(self, path: Path) -> Path:
        if path.is_file():
            return path
        if path.is_dir():
            raise UsageError(f"{path} is a folder, not a config.", fix="Name a YAML file in it.")
        siblings = [f.name for f in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        match = nearest(path.name, siblings)
        raise UsageError(
            f"There is no config file {path}.",
            fix=f"Did you mean '{path.parent / match}'?" if match else self._configs_text(),
        )

    def _configs_text(self) -> str:
        if not self.configs:
            return "The step ships no configs: give the path of a YAML file with -c."
        return f"Its configs: {', '.join(self.configs)}. Or give the path of a YAML file."
