"""Reading folders of steps into one catalog. One bad step never hides the others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import locations
from ..errors import Place, UsageError
from ..findings import Finding, Fix
from ..text import did_you_mean
from ..toml.source import read_toml
from .artifacts import ArtifactGraph, ArtifactType, merge_types, read_types
from .catalog import Catalog
from .manifest import Manifest
from .step import SHIPPED, LaunchFacts, Step
from .tables import validate

if TYPE_CHECKING:
    from .runspec import Runspec

STEPS_VARIABLE = "TUNEDECK_STEPS"
_MAX_DEPTH = 8
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}


@dataclass
class _Reading:
    """What has been read so far."""

    steps: dict[str, Step] = field(default_factory=dict)
    types: list[dict[str, ArtifactType]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    broken: dict[str, Finding] = field(default_factory=dict)


def load_catalog(extra_dirs: Iterable[Path] = ()) -> Catalog:
    """The shipped steps, then those of TUNEDECK_STEPS, then those of `extra_dirs`.

    An id that is there twice is the later folder's, with a note among the findings.

    Raises:
        UsageError: if one of the added folders is not there.
    """
    reading = _Reading()
    _read_folder(reading, locations.shipped_steps_dir(), SHIPPED)
    for variable, folder in _added(extra_dirs):
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise UsageError(
                f"The folder of steps {folder} {what}.",
                fix=f"Correct {variable}, or make the folder.",
            )
        _read_folder(reading, folder, str(folder))
    steps = tuple(reading.steps[name] for name in sorted(reading.steps))
    graph = ArtifactGraph(merge_types(reading.types))
    findings = [
        *reading.findings,
        *(stranger for step in steps for stranger in _unknown_types(step, graph)),
    ]
    return Catalog(steps, graph, tuple(findings), reading.broken)


def _added(extra_dirs: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    for entry in os.environ.get(STEPS_VARIABLE, "").split(os.pathsep):
        if entry:
            yield STEPS_VARIABLE, Path(entry).expanduser().absolute()
    for folder in extra_dirs:
        yield "--catalog", folder.expanduser().absolute()


def _read_folder(reading: _Reading, root: Path, source: str) -> None:
    tolerant = source != SHIPPED
    found = False
    here: dict[str, Path] = {}
    for file in _catalog_files(root):
        if file.name == "types.toml":
            _read_types(reading, file, tolerant)
            continue
        found = True
        step, problems = _read_step(file, source, tolerant)
        if step is None:
            reading.findings += problems
            name = file.parent.relative_to(root).as_posix()
            reading.broken[name] = next(p for p in problems if p.severity == "error")
        elif step.id in here:
            reading.findings.append(_twice(step, here[step.id]))
        else:
            here[step.id] = file
            reading.broken.pop(step.id, None)
            if step.id in reading.steps:
                reading.findings.append(_replaces(step, reading.steps[step.id]))
            reading.steps[step.id] = step
    if not found:
        reading.findings.append(
            Finding(
                "warning",
                f"The folder {root} holds no step.toml.",
                Place(str(root)),
                fix=Fix("Name the folder that the steps' category folders lie in."),
            )
        )


def _catalog_files(root: Path) -> Iterator[Path]:
    """Every `types.toml`, then every `step.toml`, in the order of their paths."""
    steps: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        here = Path(folder)
        if "step.toml" in files:
            steps.append(here / "step.toml")
            subfolders.clear()
        elif len(here.relative_to(root).parts) >= _MAX_DEPTH:
            subfolders.clear()
        else:
            if "types.toml" in files:
                yield here / "types.toml"
            subfolders[:] = [n for n in subfolders if n[0] != "." and n not in _SKIPPED]
    yield from sorted(steps)


def _read_types(reading: _Reading, file: Path, tolerant: bool) -> None:
    try:
        source = read_toml(file)
    except UsageError as error:
        reading.findings.append(Finding.of(error))
        return
    known = {name for layer in reading.types for name in layer}
    types, problems = read_types(source, tolerant=tolerant, known=known)
    reading.types.append(types)
    reading.findings += problems


def _read_step(file: Path, source: str, tolerant: bool) -> tuple[Step | None, list[Finding]]:
    try:
        document = read_toml(file)
    except UsageError as error:
        return None, [Finding.of(error)]
    manifest, findings = validate(Manifest, document, tolerant=tolerant)
    if manifest is None:
        return None, findings
    folder = file.parent
    header: Runspec | None = None
    if manifest.launch is None:
        from .runspec import read_runspec

        header, problems = read_runspec(folder / "step.py")
        findings += problems
    configs = _configs(folder, manifest, header)
    return (
        Step(
            manifest=manifest,
            folder=folder,
            source=source,
            configs=configs,
            default_config=_default_config(configs, manifest, header),
            launch=_launch(folder, manifest, header),
            resources=_resources(manifest, header),
            notes=tuple(findings),
        ),
        [],
    )


def _configs(folder: Path, manifest: Manifest, header: Runspec | None) -> dict[str, Path]:
    """Config name → file. Files that begin with an underscore are there to be inherited from."""
    table = manifest.config or (header.config if header else None)
    where = Path(os.path.normpath(folder / (table.dir if table else "config")))
    if not where.is_dir():
        return {}
    files = sorted(f for f in where.iterdir() if f.suffix in (".yaml", ".yml"))
    return {file.stem: file for file in files if file.name[0] not in "._"}


def _default_config(
    configs: dict[str, Path], manifest: Manifest, header: Runspec | None
) -> str | None:
    table = manifest.config or (header.config if header else None)
    wanted = table.default if table else "default"
    return wanted if wanted in configs else None


def _launch(folder: Path, manifest: Manifest, header: Runspec | None) -> LaunchFacts:
    script = folder / "step.py"
    if manifest.launch is not None:
        table = manifest.launch
        return LaunchFacts(
            kind=table.kind,
            module=table.module,
            args=table.args,
            schema=table.config_schema,
            extra=table.extra,
            script=script if script.is_file() and not table.module else None,
            command=table.command,
        )
    if header is None:
        return LaunchFacts("unknown")
    run = header.run
    # A Ray script starts Ray on the machine it runs on, and is itself started as any other.
    kind = "command" if run.cmd else "torchrun" if run.launch == "torchrun" else "python"
    return LaunchFacts(kind, script=script, command=run.cmd, workdir=run.workdir)


def _resources(manifest: Manifest, header: Runspec | None) -> dict[str, Any]:
    """Profile keys and values."""
    if manifest.resources is not None:
        table = manifest.resources
        shape = {"nodes": table.nodes, "gpus_per_node": table.gpus_per_node}
        return {**shape, **({"container_image": table.image} if table.image else {})}
    if header is None:
        return {}
    resources: dict[str, Any] = {"nodes": header.resources.nodes}
    if header.resources.gpus_per_node is not None:
        resources["gpus_per_node"] = header.resources.gpus_per_node
    if header.image:
        resources["container_image"] = header.image
    return resources


def _twice(step: Step, first: Path) -> Finding:
    return Finding(
        "error",
        f"The id '{step.id}' is taken: {first} has it too, and that one is used.",
        Place(str(step.file)),
        key="step.id",
        fix=Fix("Give one of the two another id."),
    )


def _replaces(step: Step, before: Step) -> Finding:
    return Finding(
        "info",
        f"{step.id} is the one of {step.source}; it replaces that of {before.source}.",
        Place(str(step.file)),
        key="step.id",
    )


def _unknown_types(step: Step, graph: ArtifactGraph) -> Iterator[Finding]:
    for table in ("consumes", "produces"):
        for artifact in getattr(step.manifest, table):
            if artifact.type not in graph.types:
                hint = did_you_mean(artifact.type, graph.types)
                yield Finding(
                    "warning",
                    f"{step.id} {table} '{artifact.type}', which is no artifact type.",
                    Place(str(step.file)),
                    key=f"{table}.type",
                    fix=Fix(hint or "Describe the type in types.toml."),
                )
