from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tunedeck.core import locations

WriteStep = Callable[..., Path]


def write_step(
    root: Path,
    name: str,
    body: str = "",
    *,
    header: str | None = None,
    script: str | None = None,
    configs: Mapping[str, str] | None = None,
) -> Path:
    """A step's folder below `root`, with `body` after its `[step]` table."""
    folder = root / name
    (folder / "config").mkdir(parents=True)
    if header is None:
        category = name.partition("/")[0]
        header = f'[step]\nid = "{name}"\nname = "A step"\ncategory = "{category}"\n'
    (folder / "step.toml").write_text(header + body, encoding="utf-8")
    if script is not None:
        (folder / "step.py").write_text(script, encoding="utf-8")
    for config, text in (configs or {"default": "a: 1\n"}).items():
        (folder / "config" / f"{config}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def step_in() -> WriteStep:
    return write_step


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the shipped catalog."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "types.toml").write_text("[data]\n[model]\n[adapter]\n")
    monkeypatch.setattr(locations, "shipped_steps_dir", lambda: folder)
    monkeypatch.delenv("TUNEDECK_STEPS", raising=False)
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An empty folder for an added catalog."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    return folder
