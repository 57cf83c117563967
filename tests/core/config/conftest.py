from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str, str], Path]

MINIMAL = """\
model:
  pretrained_model_name_or_path: org/model
dataset:
  path_or_dataset_id: train.jsonl
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def minimal(write: Write) -> Path:
    return write("default.yaml", MINIMAL)
