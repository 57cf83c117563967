"""What a run left: its result, checkpoints and answers, why it failed, what one may do next."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TunedeckError
from ..keys import table_in
from ..states import RunState
from .diagnose import Diagnosis, diagnose, read_tail
from .record import RunRecord

if TYPE_CHECKING:
    from ..catalog import Catalog, Step

RESULT = "result.json"
"""What the trainer leaves beside the checkpoints."""

_SAMPLE = re.compile(r'sample step=(\d+) prompt=("(?:[^"\\]|\\.)*") answer=("(?:[^"\\]|\\.)*")\s*$')
_CHECKPOINT = re.compile(r"step_(\d+)")

_TYPES = {"adapter": "checkpoint_lora", "model": "checkpoint_hf"}
"""What the trainer calls what it left, in the catalog's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one of the config's sample prompts at a step."""

    step: int
    prompt: str
    text: str


def read_result(record: RunRecord) -> Mapping[str, Any]:
    """`result.json` of the run: what it made and how good that is. Empty where there is none."""
    try:
        result: Mapping[str, Any] = json.loads((record.run_dir / RESULT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return result


def product(result: Mapping[str, Any]) -> str | None:
    """The path of what the run made."""
    for key in ("artifact", "best_checkpoint", "checkpoint"):
        if result.get(key):
            return str(result[key])
    return None


def loss_change(result: Mapping[str, Any]) -> str | None:
    """What the validation loss was and came to, and its best if that was before the end."""
    first, last = result.get("first_val_loss"), result.get("val_loss")
    if not first or last is None:
        return None
    best = result.get("best_val_loss")
    kept = f", {best:.4g} at its best" if best is not None and best < last else ""
    change = f"{100 * (last / first - 1):+.3g}%"
    return f"validation loss {first:.4g} → {last:.4g} ({change}){kept}"


def is_here(path: str | None) -> bool:
    """Whether a result's path, if it is one and no hub id, can be read on this machine."""
    return path is None or not path.startswith("/") or Path(path).exists()


def produced_types(result: Mapping[str, Any], step: Step) -> list[str]:
    """The artifact types that a run of `step` made: what it says it left, else those declared."""
    left = _TYPES.get(str(result.get("kind")))
    return [left] if left else [artifact.type for artifact in step.manifest.produces]


def list_checkpoints(record: RunRecord) -> list[dict[str, Any]]:
    """The published checkpoints that are on this machine, by step."""
    configured = table_in(record.plan["config_values"], "checkpoint").get("checkpoint_dir")
    folder = Path(configured) if configured else record.run_dir / "checkpoints"
    if not folder.is_dir():
        return []
    links = {name: (folder / name).resolve() for name in ("latest", "best")}
    found = [
        {"step": int(name[1]), "path": str(path)}
        | {link: path.resolve() == target for link, target in links.items()}
        for path in folder.iterdir()
        if (name := _CHECKPOINT.fullmatch(path.name))
    ]
    return sorted(found, key=lambda checkpoint: checkpoint["step"])


def first_and_last_answers(record: RunRecord) -> list[tuple[Answer, Answer]]:
    """For each sample prompt, the model's answer before and after."""
    by_prompt: dict[str, list[Answer]] = {}
    if record.log.exists():
        with record.log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("sample ") and (found := _SAMPLE.match(line)):
                    prompt = json.loads(found[2])
                    answer = Answer(int(found[1]), prompt, json.loads(found[3]))
                    by_prompt.setdefault(prompt, []).append(answer)
    return [(answers[0], answers[-1]) for answers in by_prompt.values() if len(answers) > 1]


def diagnosis_of(record: RunRecord) -> Diagnosis | None:
    """Why the run failed, with the step's own advice; None for a run that did not."""
    if record.state not in (RunState.FAILED, RunState.LOST):
        return None
    _, step = _catalog_and_step(record)
    return diagnose(
        read_tail(record.log),
        exit_code=record.exit_code,
        reason=record.reason,
        step_errors=step.manifest.errors if step else (),
    )


def next_commands(record: RunRecord) -> list[str]:
    """What one may want to do with a run that has succeeded."""
    result = read_result(record)
    if product(result) is None:
        return []
    commands = [] if is_here(product(result)) else [f"tunedeck runs fetch {record.run_id}"]
    if "base" in result:
        commands.append(f"tunedeck chat {record.run_id}")
    catalog, step = _catalog_and_step(record)
    if catalog is None or step is None:
        return commands
    made = produced_types(result, step)
    types = [catalog.artifacts.types[name] for name in made if name in catalog.artifacts.types]
    conversions = {target for known in types for target in known.convert_to.values()}
    there = {other.id for other in catalog.steps}
    return commands + [
        f"tunedeck steps run {target} --from {record.run_id}"
        for target in sorted(conversions & there)
    ]


def _catalog_and_step(record: RunRecord) -> tuple[Catalog | None, Step | None]:
    """The run's step as the catalog has it now, if it still has it."""
    from ..catalog import load_catalog

    folders = (record.plan.get("selection") or {}).get("catalog") or ()
    try:
        catalog = load_catalog(Path(folder) for folder in folders)
        return catalog, catalog.find(record.step)
    except TunedeckError:
        return None, None
