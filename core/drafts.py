"""Unfinished launches: kept while one chooses, so that nothing typed is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from . import locations
from .files import write_atomic
from .plan import new_run_id
from .secrets import shows_secret
from .selection import Selection

Stage = Literal["step", "config", "environment", "review"]
"""Where in the walk one was."""

STAGES: tuple[Stage, ...] = ("step", "config", "environment", "review")


@dataclass(frozen=True, slots=True)
class Draft:
    """A selection that is still being made.

    Attributes:
        draft_id: unique, and sorts by when it was begun.
        selection: what has been chosen so far; its step is empty before one is chosen.
        stage: where one was.
        saved_at: Unix seconds.
        answers: to the questions of an env file that is not written yet, `SiteValue.key` → answer
            by kind of place. Those that show a secret are not saved.
    """

    draft_id: str
    selection: Selection
    stage: Stage = "step"
    saved_at: float = field(default_factory=time.time)
    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def begin(cls, selection: Selection, stage: Stage = "step") -> Draft:
        """A new draft. Nothing is written before `save_draft`."""
        return cls("d" + new_run_id()[1:], selection, stage)


def save_draft(draft: Draft) -> Draft:
    """Write a draft, whole or not at all, and return it with its new time.

    Raises:
        OSError: if it cannot be written; what was saved before is then untouched.
    """
    saved = replace(draft, saved_at=time.time())
    data = {
        "draft_id": saved.draft_id,
        "stage": saved.stage,
        "saved_at": saved.saved_at,
        "answers": {
            kind: {key: text for key, text in given.items() if not shows_secret(text)}
            for kind, given in saved.answers.items()
        },
        "from_run": saved.selection.from_run,
        **saved.selection.to_json(),
    }
    write_atomic(_file(saved.draft_id), json.dumps(data, indent=1), mode=0o600)
    return saved


def list_drafts() -> list[Draft]:
    """All drafts, the one saved last first. A file that is no draft is passed over, and kept."""
    folder = locations.drafts_dir()
    if not folder.is_dir():
        return []
    found = [draft for file in folder.glob("*.json") if (draft := _read(file)) is not None]
    return sorted(found, key=lambda draft: draft.saved_at, reverse=True)


def delete_draft(draft_id: str) -> None:
    """Forget a draft; one that is gone already is no trouble."""
    _file(draft_id).unlink(missing_ok=True)


def _file(draft_id: str) -> Path:
    return locations.drafts_dir() / f"{draft_id}.json"


def _read(file: Path) -> Draft | None:
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        selection = Selection(
            step=data["step"],
            config=data.get("config"),
            overrides=tuple(data.get("overrides", ())),
            profile=data.get("profile", "local"),
            env_file=Path(data["env_file"]) if data.get("env_file") else None,
            catalog=tuple(Path(folder) for folder in data.get("catalog", ())),
            name=data.get("name"),
            from_run=data.get("from_run"),
            cwd=Path(data["cwd"]),
        )
        stage: Stage = next((known for known in STAGES if known == data.get("stage")), "step")
        answers = {
            kind: {str(key): str(text) for key, text in given.items()}
            for kind, given in data.get("answers", {}).items()
        }
        return Draft(data["draft_id"], selection, stage, float(data["saved_at"]), answers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
