"""Choosing value by value, for whoever builds a selection bit by bit: the wizard and its prompts.

The fields come from the schema, what is said of them from the step, and whether they are right from
the composer, which a launch goes through as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.describe import FieldInfo, Kind
from .config.overrides import parse_override, text_override
from .errors import TunedeckError, UsageError
from .findings import Finding
from .origins import Sourced
from .selection import Selection
from .text import counted

if TYPE_CHECKING:
    from .catalog import Catalog, Step
    from .runs.record import RunRecord

MODEL = "model.pretrained_model_name_or_path"
"""The field whose value is a model."""


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a config as it stands.

    Attributes:
        info: what it may be.
        value: what it is now; as it is written while the config cannot be composed.
        sourced: where that comes from.
        changed: whether an override of the selection sets it.
        common: whether the step names it among its parameters.
        finding: what is wrong with it.
    """

    info: FieldInfo
    value: Any = None
    sourced: Sourced | None = None
    changed: bool = False
    common: bool = False
    finding: Finding | None = None

    @property
    def group(self) -> str:
        """The table that it is in; empty for a key at the top."""
        return self.info.key.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Form:
    """A config as a form.

    Attributes:
        rows: the fields, those that the step names first, the others in the schema's order.
        findings: what is wrong and belongs to no row.
        values: the whole config; as it is written while it cannot be composed.
        origins: where each value comes from.
    """

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, Sourced] = field(default_factory=dict)

    def row(self, key: str) -> Row | None:
        """The row of a key."""
        return next((row for row in self.rows if row.info.key == key), None)


def form_of(selection: Selection, catalog: Catalog) -> Form:
    """The form of what has been chosen. Composes the config; reads local files alone.

    Raises:
        UsageError: if the step or config is not there.
    """
    from .config.compose import compose
    from .config.problems import ConfigErrors
    from .schema import schema_for

    step = catalog.find(selection.step)
    schema = schema_for(step.launch.schema)
    path = step.config_path(selection.config, selection.cwd)
    findings: tuple[Finding, ...] = ()
    values: Mapping[str, Any] = {}
    origins: Mapping[str, Sourced] = {}
    overrides, untaken = _with_handed_over(step, selection, catalog)
    try:
        composed = compose(path, overrides, schema=schema)
        values, origins, findings = composed.values, composed.origins, composed.remarks
    except ConfigErrors as errors:
        findings, values = errors.findings, _as_written(path, overrides)
    except UsageError as error:
        findings = (Finding.of(error),)
    findings = (*untaken, *findings)
    if schema is None:
        return Form(tuple(_untyped(origins)), findings, values, origins)
    from .config.describe import describe

    by_key = {finding.key: finding for finding in reversed(findings)}
    changed = set(_overridden(selection.overrides))
    common = [parameter.name for parameter in step.manifest.parameters]
    rows = [
        Row(
            info,
            origins[info.key].value if info.key in origins else _at(values, info.key),
            origins.get(info.key),
            any(key == info.key or info.key.startswith(f"{key}.") for key in changed),
            info.key in common,
            by_key.get(info.key),
        )
        for info in describe(schema)
        if info.kind != "table" and not info.key.startswith("run.")
    ]
    rows.sort(key=lambda row: common.index(row.info.key) if row.common else len(common))
    known = {row.info.key for row in rows}
    return Form(tuple(rows), tuple(f for f in findings if f.key not in known), values, origins)


def _with_handed_over(
    step: Step, selection: Selection, catalog: Catalog
) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """The overrides with what the run before hands over, and why it hands over nothing."""
    from .handover import handed_over

    if selection.from_run is None:
        return selection.overrides, ()
    try:
        return (handed_over(step, selection, catalog), *selection.overrides), ()
    except TunedeckError as error:
        return selection.overrides, (Finding.of(error),)


def with_value(selection: Selection, info: FieldInfo, text: str) -> Selection:
    """The selection with a field set to what was typed; an override of the same key is replaced.

    A text that YAML would take for something else, `010` or `on`, stays the text it is where the
    field wants one.

    Raises:
        UsageError: if the text is no value.
    """
    override = f"{info.key}={text}"
    if info.kind == "str" and not (info.nullable and text.strip() in ("", "null")):
        override = text_override(info.key, text)
    elif not text.strip():
        override = f"{info.key}=null"
    return with_override(selection, override)


def with_override(selection: Selection, override: str) -> Selection:
    """The selection with an override, in place of an earlier one of the same key.

    Raises:
        UsageError: if it is malformed.
    """
    path = parse_override(override).path
    kept = [text for text in selection.overrides if parse_override(text).path != path]
    return replace(selection, overrides=(*kept, override))


def _need(gpus: int) -> str:
    return f"{counted(gpus, 'GPU')} at least" if gpus else "A CPU will do"


def without_value(selection: Selection, key: str) -> Selection:
    """The selection without the overrides of a field: it is again what the config says."""
    kept = (
        text
        for text, path in zip(selection.overrides, _overridden(selection.overrides), strict=True)
        if path != key
    )
    return replace(selection, overrides=tuple(kept))


def command_of(selection: Selection, *options: str) -> list[str]:
    """The words of the command that launches a selection; `shlex.join` makes one line of them."""
    words = ["tunedeck", "steps", "run", selection.step]
    if selection.config:
        words += ["-c", selection.config]
    if selection.profile != "local":
        words += ["-r", selection.profile]
    if selection.from_run:
        words += ["--from", selection.from_run]
    if selection.name:
        words += ["--name", selection.name]
    if selection.env_file:
        words += ["--env-file", str(selection.env_file)]
    for folder in selection.catalog:
        words += ["--catalog", str(folder)]
    return [*words, *options, *selection.overrides]


def look_command(selection: Selection, *, validation: bool) -> list[str]:
    """The words of the command that looks at a selection's data."""
    words = ["tunedeck", "data", "look", selection.step]
    words += ["-c", selection.config] if selection.config else []
    words += ["--validation"] if validation else []
    for folder in selection.catalog:
        words += ["--catalog", str(folder)]
    return [*words, *selection.overrides]


def values_for(
    info: FieldInfo, selection: Selection, catalog: Catalog
) -> tuple[list[tuple[str, str]], bool]:
    """What may be offered for a field: its choices, or the models that are known or here.

    Returns:
        Values as one types them, each with what there is to say of it; empty where any text may
        stand. And whether something else may be typed all the same.
    """
    if info.choices:
        null = [("null", "no value")] if info.nullable else []
        return [*((as_text(choice), "") for choice in info.choices), *null], False
    if info.key != MODEL:
        return [], True
    from .models import cached_models, local_models

    models = {
        model.name: f"{_need(model.min_gpus)}. {model.description}".strip()
        for model in catalog.find(selection.step).manifest.models
    }
    here = dict.fromkeys(local_models(selection.cwd), "a folder here")
    here |= dict.fromkeys(cached_models(), "in this machine's cache")
    for name, where in here.items():
        models[name] = f"{where}. {models[name]}" if name in models else where
    return list(models.items()), True


def selection_of(record: RunRecord) -> Selection:
    """What a recorded run was made of, to be changed and launched anew."""
    chosen = record.plan["selection"]
    return Selection(
        step=record.step,
        config=chosen["config"],
        overrides=tuple(record.plan["overrides"]),
        profile=record.profile,
        env_file=Path(chosen["env_file"]) if chosen["env_file"] else None,
        catalog=tuple(Path(folder) for folder in chosen["catalog"]),
        name=chosen["name"],
        cwd=Path(chosen["cwd"]),
    )


def selection_after(record: RunRecord) -> Selection:
    """Where a launch begins that takes what a run made: here if it is here, else where it is."""
    from .handover import is_read_by

    chosen = Selection("", from_run=record.run_id)
    if is_read_by(record, chosen) or "cwd" not in record.plan["selection"]:
        return chosen
    made = record.plan["selection"]
    return replace(
        chosen,
        profile=record.profile,
        env_file=Path(made["env_file"]) if made["env_file"] else None,
        cwd=Path(made["cwd"]),
    )


def steps_for(catalog: Catalog, made_by: str | None = None) -> list[Step]:
    """The steps that one may run: all, or those that take what a step has made."""
    runnable = [step for step in catalog.steps if step.launch.kind != "builtin"]
    if made_by is None:
        return runnable
    made = [artifact.type for artifact in catalog.find(made_by).manifest.produces]
    return [
        step
        for step in runnable
        if any(
            wanted.key and catalog.artifacts.fits(one, wanted.type)
            for wanted in step.manifest.consumes
            for one in made
        )
    ]


def as_text(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _overridden(overrides: Iterable[str]) -> list[str]:
    from .keys import dotted

    return [dotted(parse_override(text).path) for text in overrides]


def _as_written(path: Path, overrides: Iterable[str]) -> Mapping[str, Any]:
    """What stands in a config that cannot be composed, so that one sees it while mending it."""
    from .config.chain import load_chain
    from .config.layers import plain
    from .config.overrides import apply

    tree, _ = load_chain(path, lambda tree: tree)
    for text in overrides:
        with suppress(UsageError):
            tree = apply(tree, parse_override(text))
    return plain(tree)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _untyped(origins: Mapping[str, Sourced]) -> Iterable[Row]:
    """The rows of a config that no schema describes: what is written in it."""
    for key, sourced in origins.items():
        kind: Kind = "list" if isinstance(sourced.value, list) else "str"
        if isinstance(sourced.value, bool | int | float):
            kind = "float"
        info = FieldInfo(key, kind, "any value", None, "")
        changed = sourced.origin.layer == "command line"
        yield Row(info, sourced.value, sourced, changed)
