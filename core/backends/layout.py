"""Where everything of a run lies on storage that its jobs share, and what has to be sent there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from .. import locations
from ..bundle import bundle
from ..config.paths import set_path
from ..inputs import as_glob, content_digest
from ..plan import Launch, LocalInput, Plan

_SHARED = ".tunedeck"
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Upload:
    """Something sent once and found again by its content.

    Attributes:
        kind: `code` for the bundle, which is unpacked over there, or `input`.
        source: the path here; of the bundle, the package's folder.
        target: the path there. Whether it exists tells whether it was sent before.
        digest, size: of the content; the size of the bundle is not known before it is packed.
    """

    kind: str
    source: str
    target: str
    digest: str
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What the preview says of it."""
        return {
            "kind": self.kind,
            "from": self.source,
            "to": self.target,
            "digest": self.digest,
            "size": self.size,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Upload:
        """Read back what `to_json` gave."""
        return cls(data["kind"], data["from"], data["to"], data["digest"], data["size"])


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of a run on shared storage.

    Attributes:
        root: the folder for runs.
        run_dir: everything of this run.
        code: the unpacked bundle, shared by all runs of one version.
        inputs: config key → path there, of the inputs that travel.
        step: the folder of a step that is a script of its own, and brings what lies beside it.
    """

    root: str
    run_dir: str
    code: str
    inputs: Mapping[str, str]
    step: Upload | None = None

    @classmethod
    def under(cls, root: str, plan: Plan) -> Layout:
        """The layout of a plan whose runs go below a folder of shared storage."""
        shared = PurePosixPath(root) / _SHARED
        return cls(
            root=root,
            run_dir=f"{root}/{plan.run_id}",
            code=str(shared / "code" / _short(bundle().digest)),
            inputs={item.key: _read_as(item, shared) for item in plan.inputs},
            step=_step_folder(plan, shared),
        )

    def launch(self, plan: Plan) -> Launch:
        """How the plan's processes are started over there: a script by its path there."""
        if self.step is None:
            return plan.launch
        name = PurePosixPath(plan.launch.module).name
        return replace(plan.launch, module=f"{self.step.target}/{name}")

    def uploads(self, plan: Plan) -> list[Upload]:
        """What the run needs over there beside its own files, each once."""
        code = Upload("code", str(locations.package_dir()), self.code, bundle().digest)
        by_target = {code.target: code}
        if self.step is not None:
            by_target[self.step.target] = self.step
        for item in plan.inputs:
            target = str(_target(item, PurePosixPath(self.root) / _SHARED))
            by_target[target] = Upload("input", item.path, target, item.digest, item.size)
        return list(by_target.values())

    def config(self, plan: Plan) -> dict[str, Any]:
        """The plan's config with each input that travels named by its path over there."""
        config = copy.deepcopy(dict(plan.config))
        for key, path in self.inputs.items():
            set_path(config, key, path)
        return config


def _step_folder(plan: Plan, shared: PurePosixPath) -> Upload | None:
    """The folder of the plan's script, if it is started by one that is on this machine."""
    script = Path(plan.launch.module)
    if script.suffix != ".py" or not script.is_file():
        return None
    folder = script.absolute().parent
    digest, size = content_digest(folder)
    target = shared / "steps" / _short(digest) / folder.name
    return Upload("input", str(folder), str(target), digest, size)


def _target(item: LocalInput, shared: PurePosixPath) -> PurePosixPath:
    """The file or folder over there that an input is copied to."""
    path = Path(item.path)
    return shared / "inputs" / _short(item.digest) / ("files" if as_glob(path) else path.name)


def _read_as(item: LocalInput, shared: PurePosixPath) -> str:
    """What the config over there says for an input: its path, or the glob among its files."""
    globbed = as_glob(Path(item.path))
    return str(_target(item, shared) / (globbed[1] if globbed else ""))


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_DIGITS]
