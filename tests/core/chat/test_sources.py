"""Which files a data set is, which rows of them are wanted, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.chat import (
    RowError,
    count_rows,
    find_sources,
    iter_rows,
    parse_split,
    scan_rows,
)
from tunedeck.core.errors import UsageError


def write_rows(path: Path, count: int, start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(start, start + count)))
    return path


def numbers(files: tuple[Path, ...], split: str | None = None) -> list[int]:
    return [row.row["n"] for row in iter_rows(files, parse_split(split))]


def test_a_file_a_glob_and_a_folder_are_found(tmp_path: Path) -> None:
    first, second = write_rows(tmp_path / "a.jsonl", 2), write_rows(tmp_path / "b.jsonl", 1, 2)
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "dataset_info.json").write_text("{}")
    for spec in (str(tmp_path), f"{tmp_path}/*.jsonl", tmp_path):
        (source,) = find_sources(spec)
        assert source.files == (first, second)
        assert numbers(source.files) == [0, 1, 2]
    (alone,) = find_sources(str(first))
    assert alone.files == (first,)


def test_a_list_of_sources_keeps_its_weights(tmp_path: Path) -> None:
    first, second = write_rows(tmp_path / "a.jsonl", 2), write_rows(tmp_path / "b.jsonl", 1)
    sources = find_sources([{"path": str(first), "weight": 3}, str(second)])
    assert [(source.files, source.weight) for source in sources] == [
        ((first,), 3.0),
        ((second,), 1.0),
    ]


def test_a_folder_gives_the_files_of_the_wanted_split(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "gsm8k_train.chat.jsonl", 1)
    dev = write_rows(tmp_path / "gsm8k-dev.jsonl", 1)
    assert find_sources(tmp_path)[0].files == (train,)
    assert find_sources(tmp_path, split="validation")[0].files == (dev,)
    with pytest.raises(UsageError, match="no file of the split 'test'"):
        find_sources(tmp_path, split="test")


def test_hub_ids_are_recognized_as_not_local() -> None:
    for spec in ("HuggingFaceH4/ultrachat_200k", "squad"):
        (source,) = find_sources(spec)
        assert (source.hub_id, source.files) == (spec, ())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("missing.jsonl", "There is no file 'missing.jsonl'"),
        ("data/train.jsonl", "There is no file"),
        ("./nothing", "There is no file"),
        ("*.jsonl", "No file matches"),
        ("", "is empty"),
        ([], "neither a path nor a list"),
        ({"path": "a.jsonl"}, "neither a path nor a list"),
        ([{"weight": 1}], "has no path"),
        ([{"path": "rows.jsonl", "wieght": 1}], "no key 'wieght'"),
        ([{"path": "rows.jsonl", "weight": 0}], "not a positive number"),
        ([{"path": "rows.jsonl", "weight": float("nan")}], "not a positive number"),
        ("rows.csv", "not a kind of file"),
        ("packed.parquet", "packed Parquet"),
        ("packed", "packed Parquet"),
        ("empty", "holds no .jsonl"),
    ],
)
def test_what_is_no_data_set_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.csv", "packed.parquet", "packed/a.parquet", "empty/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=said):
        find_sources(spec)


SLICES = (
    "",
    "[:4]",
    "[4:]",
    "[2:7]",
    "[-3:]",
    "[:-3]",
    "[10%:20%]",
    "[:50%]",
    "[33%:66%]",
    "[-25%:]",
)


@pytest.mark.parametrize("split", [f"train{part}" for part in SLICES])
def test_a_slice_means_what_it_means_in_datasets(tmp_path: Path, split: str) -> None:
    datasets = pytest.importorskip("datasets")
    files = (write_rows(tmp_path / "a.jsonl", 17), write_rows(tmp_path / "b.jsonl", 6, 17))
    theirs = datasets.Dataset.from_dict({"n": list(range(23))})
    instruction = datasets.ReadInstruction.from_spec(split)
    ((_, start, stop),) = [
        (one.splitname, one.from_ or 0, len(theirs) if one.to is None else one.to)
        for one in instruction.to_absolute({"train": 23})
    ]
    assert numbers(files, split) == list(range(start, stop))


def test_a_slice_beyond_the_rows_gives_those_there_are(tmp_path: Path) -> None:
    files = (write_rows(tmp_path / "a.jsonl", 3),)
    assert numbers(files, "[:100]") == [0, 1, 2]
    assert numbers(files, "train[5:9]") == []
    assert parse_split("validation[10%:20%]").name == "validation"
    assert str(parse_split("[:64]")) == "train[:64]"


@pytest.mark.parametrize("split", ["train[:x]", "train[:", "train[1:2:3]", "a+b", "train[:120%]"])
def test_what_is_no_split_is_refused(split: str) -> None:
    with pytest.raises(UsageError, match="is not a split"):
        parse_split(split)


def test_rows_carry_their_line_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"n": 0}\r\n\r\n  \n{"n": 1}')
    assert [(row.number, row.row) for row in iter_rows([file])] == [(1, {"n": 0}), (4, {"n": 1})]
    assert count_rows([file]) == 2


def test_a_json_file_may_hold_an_array_or_lines(tmp_path: Path) -> None:
    array, lines = tmp_path / "a.json", write_rows(tmp_path / "b.json", 2, 2)
    array.write_text('\n [{"n": 0},\n {"n": 1}]')
    assert numbers((array, lines)) == [0, 1, 2, 3]
    assert [row.number for row in iter_rows([array])] == [1, 2]


def test_malformed_rows_are_told_by_number_and_the_rest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    deep = b"[" * 100_000
    file.write_bytes(
        b"\n".join(
            [
                b'{"n": 0}',
                b'{"n": ',
                b'{"n": "\xff"}',
                b"[1]",
                b'{"n":' + deep,
                b'{"n": 1}',
                b'{"n": ' + b"1" * 5000 + b"}",
                b"null",
            ]
        )
    )
    found = list(scan_rows([file]))
    errors = {
        row.place.line: row.message for row in found if isinstance(row, RowError) and row.place
    }
    assert [row.number for row in found if not isinstance(row, RowError)] == [1, 6]
    assert list(errors) == [2, 3, 4, 5, 7, 8]
    assert "column" in errors[2]
    assert "not UTF-8" in errors[3]
    assert "not a JSON object" in errors[4]
    with pytest.raises(RowError) as caught:
        list(iter_rows([file]))
    assert str(caught.value).startswith(f"{file}:2: The row is not valid JSON")


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}".encode("utf-16"), "UTF-16"), (b"\x1f\x8b\x08", "gzip"), (b"PAR1", "Parquet")],
)
def test_another_kind_of_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        list(iter_rows([file]))
