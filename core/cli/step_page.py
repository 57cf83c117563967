"""The page that `tunedeck steps show` prints for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from ..text import counted, strip_controls
from .output import line, width

if TYPE_CHECKING:
    from ..catalog import Catalog, Step
    from ..catalog.manifest import Artifact


def print_step(step: Step, catalog: Catalog) -> None:
    """Print everything that helps to choose and use a step."""
    manifest = step.manifest
    line(f"{step.id}  {manifest.step.name}", bold=True)
    _paragraph(manifest.step.description, indent=2)
    _facts(step)
    _section("Configs", _configs(step))
    _section("Takes", (_artifact(artifact) for artifact in manifest.consumes))
    _section("Makes", (_artifact(artifact) for artifact in manifest.produces))
    _section("Then", _next_steps(step, catalog))
    _section("Models", _models(step))
    _section("Parameters", _parameters(step))
    _section("When … then", ((s.when, s.then) for s in manifest.strategies))
    _section("Known errors", ((e.name, e.recovery) for e in manifest.errors))
    _section("Read more", ((k, str(v)) for k, v in manifest.reference.items()))
    line()
    line("Run it", bold=True)
    for command in example_commands(step):
        line(f"  {command}")


def example_commands(step: Step) -> list[str]:
    """Command lines that run the step: the smoke config first, then the default with its inputs."""
    from ..catalog import SHIPPED

    base = ["tunedeck", "steps", "run", step.id]
    if step.source != SHIPPED:
        base += ["--catalog", step.source]
    inputs = [
        f"{artifact.key}={artifact.example or 'PATH'}"
        for artifact in step.manifest.consumes
        if artifact.required and artifact.key
    ]
    commands = []
    if "tiny" in step.configs and step.launch.schema == "sft":
        commands.append(shlex.join([*base, "-c", "tiny"]))
    if step.default_config:
        commands.append(shlex.join([*base, "-c", step.default_config, *inputs]))
    return commands or [f"{shlex.join(base)} -c FILE.yaml"]


def _facts(step: Step) -> None:
    launch = step.launch
    started = launch.command or launch.script or " ".join(("-m", launch.module, *launch.args))
    facts = {
        "tags": ", ".join(step.manifest.step.tags),
        "launch": f"{launch.kind}  {started}" if launch.kind in _STARTED else launch.kind,
        "needs": ", ".join(f"{key} {value}" for key, value in step.resources.items()),
        "folder": str(step.folder),
        "here": f"cannot run: {reason}" if (reason := step.not_runnable("local")) else "",
    }
    line()
    for label, text in facts.items():
        if text:
            line(f"  {label:<8} {text}")


_STARTED = ("torchrun", "python", "command")


def _configs(step: Step) -> Iterator[tuple[str, str]]:
    for name in step.configs:
        about = step.config_about(name)
        yield name, f"{about[:1].upper()}{about[1:]}." if about else ""


def _artifact(artifact: Artifact) -> tuple[str, str]:
    head = artifact.type if artifact.required else f"{artifact.type} (optional)"
    where = f" Config key: {artifact.key}." if artifact.key else ""
    return head, f"{artifact.description}{where}"


def _next_steps(step: Step, catalog: Catalog) -> Iterator[tuple[str, str]]:
    for artifact in step.manifest.produces:
        takers = [other.id for other in catalog.select(consumes=artifact.type) if other != step]
        if takers:
            yield artifact.type, f"can go into {', '.join(takers)}."


def _models(step: Step) -> Iterator[tuple[str, str]]:
    for model in step.manifest.models:
        gpus = f"{counted(model.min_gpus, 'GPU')} or more" if model.min_gpus else "a CPU will do"
        yield (
            f"{model.name} (default)" if model.default else model.name,
            (f"{model.description} Needs: {gpus}."),
        )


def _parameters(step: Step) -> Iterator[tuple[str, str]]:
    for parameter in step.manifest.parameters:
        default = "" if parameter.default is None else f" Default: {_plain(parameter.default)}."
        choices = ", ".join(_plain(choice) for choice in parameter.choices)
        yield (
            parameter.name,
            (f"{parameter.description}{default}{f' One of: {choices}.' if choices else ''}"),
        )


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _section(title: str, entries: Iterable[tuple[str, str]]) -> None:
    entries = list(entries)
    if not entries:
        return
    line()
    line(title, bold=True)
    for head, text in entries:
        _paragraph(head, indent=2)
        if text:
            _paragraph(text, indent=6)


def _paragraph(text: str, *, indent: int) -> None:
    margin = " " * indent
    flowing = " ".join(strip_controls(text).split())
    line(click.wrap_text(flowing, width(), initial_indent=margin, subsequent_indent=margin))
