"""What a step's manifest declares, held against a config: choices, required inputs, GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..findings import Edit, Finding, Fix
from ..text import counted, nearest
from .step import Step


def check_required(step: Step, config: Mapping[str, Any]) -> list[Finding]:
    """A finding for each required input whose config key holds nothing."""
    return [
        Finding(
            "error",
            f"{step.id} needs {artifact.type}: '{artifact.key}' is not set.",
            key=artifact.key,
            fix=Fix(f"Give it on the command line: {artifact.key}={artifact.example or 'PATH'}"),
        )
        for artifact in step.manifest.consumes
        if artifact.required and artifact.key and _is_unset(_value(config, artifact.key))
    ]


def check_choices(step: Step, config: Mapping[str, Any]) -> list[Finding]:
    """A finding for each value that is none of its parameter's choices.

    A table passes: choices are names for whole tables where both are taken (`peft=lora`).
    """
    findings = []
    for parameter in step.manifest.parameters:
        value = _value(config, parameter.name)
        if not parameter.choices or isinstance(value, Mapping) or value is _ABSENT:
            continue
        names = [str(choice) for choice in parameter.choices]
        wrong = [v for v in _items(value) if v not in parameter.choices and _name(v) not in names]
        for item in wrong:
            match = nearest(_name(item), names)
            words = f"Did you mean '{match}'? " if match else ""
            findings.append(
                Finding(
                    "error",
                    f"'{parameter.name}' cannot be '{_name(item)}'.",
                    key=parameter.name,
                    fix=Fix(
                        f"{words}Choices: {', '.join(names)}.",
                        Edit("set", parameter.name, match) if match else None,
                    ),
                )
            )
    return findings


def check_min_gpus(step: Step, model: str, gpus: int) -> list[Finding]:
    """A finding if the step says that the model needs more GPUs than there are.

    Args:
        step: the step.
        model: hub id or folder, as the config has it.
        gpus: GPUs of the whole run.
    """
    known = next((m for m in step.manifest.models if m.name.casefold() == model.casefold()), None)
    if known is None or gpus >= known.min_gpus:
        return []
    smaller = [m.name for m in step.manifest.models if m.min_gpus <= gpus]
    needed = f"{counted(known.min_gpus, 'GPU')} or more"
    words = f"Use a profile with {needed}"
    words += f", or a smaller model: {', '.join(smaller)}." if smaller else ", or a smaller model."
    return [
        Finding(
            "error",
            f"{step.id} needs {needed} for {known.name}, and has {gpus}.",
            key="model.pretrained_model_name_or_path",
            fix=Fix(words),
        )
    ]


_ABSENT = object()


def _value(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, `_ABSENT` where there is no such key."""
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _ABSENT
        found = found[part]
    return found


def _is_unset(value: Any) -> bool:
    # '???' is OmegaConf's mark of a value that must be given.
    return value is _ABSENT or value in (None, "", "???", [], ())


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _name(value: Any) -> str:
    """A value as YAML writes it: choices are declared as words (`null`, `true`)."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
