from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.data.browse import list_folder
from tunedeck.core.errors import UsageError
from tunedeck.core.models import local_models


def _model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def test_files_of_rows_come_first_and_what_is_no_data_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("x" * 1500)
    (tmp_path / "a.ndjson").write_text("x")
    (tmp_path / "packed.parquet").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.jsonl").write_text("x")
    (tmp_path / "folder").mkdir()
    found = list_folder(tmp_path)
    assert [entry.path.name for entry in found] == ["a.ndjson", "b.jsonl", "folder"]
    assert [entry.about for entry in found] == ["rows, 1 B", "rows, 1.5 kB", "folder, 0 inside"]


def test_where_models_are_wanted_their_folders_come_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _model(tmp_path / "z")
    (tmp_path / "rows.jsonl").write_text("x")
    found = list_folder(tmp_path, models=True)
    assert [(entry.path.name, entry.what) for entry in found] == [("z", "model"), ("a", "folder")]


def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        list_folder(tmp_path / "none")


def test_models_near_a_folder_are_named_as_one_would_type_them(tmp_path: Path) -> None:
    _model(tmp_path / "near")
    _model(tmp_path / "runs" / "merged")
    _model(tmp_path / ".cache" / "hidden")
    assert local_models(tmp_path) == ["./near", "./runs/merged"]
