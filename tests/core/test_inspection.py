from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunedeck.core.chat.report import DataReport
from tunedeck.core.cli.main import run as cli
from tunedeck.core.data.look import look_at_data
from tunedeck.core.errors import ExitCode
from tunedeck.core.inspection import REPORT, main

ASSETS = Path(__file__).resolve().parents[2] / "core/assets"
GOOD = [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]

Inspect = Callable[..., tuple[int, dict[str, Any]]]


def rows(file: Path, *conversations: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps({"messages": c}) + "\n" for c in conversations))
    return file


@pytest.fixture
def inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inspect:
    """Run the step on a file; its exit code and its report."""
    monkeypatch.setenv("TUNEDECK_RUN_DIR", str(tmp_path))

    def run(file: Path, **tables: Any) -> tuple[int, dict[str, Any]]:
        config: dict[str, Any] = {
            "tokenizer": {"name": str(ASSETS / "base")},
            "dataset": {"path_or_dataset_id": str(file)},
        }
        for name, table in tables.items():
            both = isinstance(table, dict) and name in config
            config[name] = {**config[name], **table} if both else table
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        code = main(["--config", str(tmp_path / "config.yaml")])
        report = tmp_path / REPORT
        return code, json.loads(report.read_text()) if report.is_file() else {}

    return run


def test_every_token_is_trained_context_or_dropped_and_they_join_to_the_row(
    inspect: Inspect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = inspect(rows(tmp_path / "a.jsonl", GOOD))
    assert code == 0
    (row,) = report["inspected"]
    text = "".join(token[1] for token in row["tokens"])
    assert text.strip() == "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n4<|im_end|>"
    trained = "".join(token[1] for token in row["tokens"] if token[2] == "trained")
    assert trained == "4<|im_end|>"
    assert row["trained"] == report["supervised_tokens"]
    printed = capsys.readouterr().out
    assert "⟦4<|im_end|>⟧" in printed
    assert "\x1b" not in printed


def test_what_lies_beyond_the_length_is_dropped_and_counted(
    inspect: Inspect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [GOOD[0], {"role": "assistant", "content": "four " * 50}]
    file = rows(tmp_path / "a.jsonl", GOOD, long)
    length = look_at_data(
        {
            "tokenizer": {"name": str(ASSETS / "base")},
            "dataset": {
                "path_or_dataset_id": str(rows(tmp_path / "b.jsonl", GOOD)),
                **{"split": None, "seq_length": None, "mask": "assistant", "truncation": "right"},
            },
        }
    ).report.tokens
    _, report = inspect(file, dataset={"seq_length": length})
    assert report["truncated_rows"] == 1
    dropped = [token[2] for token in report["inspected"][1]["tokens"]].count("dropped")
    assert dropped == report["inspected"][1]["dropped"] > 0
    lost = sum(token[2] == "dropped" for token in report["inspected"][1]["tokens"][length:])
    assert lost == dropped
    assert "~~" in capsys.readouterr().out


def test_rows_that_cannot_be_trained_on_end_it_with_1_and_are_named(
    inspect: Inspect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = inspect(rows(tmp_path / "a.jsonl", GOOD, GOOD[:1]))
    assert code == 1
    assert report["refused"]["no_assistant"]["count"] == 1
    printed = capsys.readouterr().out
    assert "1  rows without a trained token" in printed
    assert "a.jsonl:2: dataset.path_or_dataset_id: Row 2" in printed


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "malformed", "The row is not UTF-8 (byte 1 is 0x89)"),
        (b'{"messages": [{"role"\n', "malformed", "not valid JSON: Expecting ':' delimiter (col"),
        (b'{"messages": [{"role": "system", "content": "a"}]}\n', "no_assistant", "No assistant"),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}\n',
            "media",
            "part of type 'image'",
        ),
        (
            b'{"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]}\n',
            "template",
            "The chat template refuses",
        ),
    ],
)
def test_files_of_other_things_are_counted_and_told_with_what_to_do(
    content: bytes,
    reason: str,
    said: str,
    inspect: Inspect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_bytes(content)
    code, report = inspect(file)
    assert code == 1
    assert report["refused"][reason]["rows"][0]["fix"]
    printed = capsys.readouterr().out
    assert said in printed
    assert "Tokens a row" not in printed


def test_an_empty_file_is_an_error_of_its_own(
    inspect: Inspect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.jsonl").touch()
    code, report = inspect(tmp_path / "none.jsonl")
    assert (code, report["rows"]) == (1, 0)
    assert "The data set is empty." in capsys.readouterr().out


def test_turns_without_a_trained_stop_and_double_beginnings_are_counted(
    inspect: Inspect, tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    )
    _, report = inspect(
        rows(tmp_path / "a.jsonl", GOOD, GOOD), tokenizer={"chat_template": template}
    )
    assert report["unstopped_turns"] == 2


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"tokenizer": {"name": "org/nowhere"}}, "org/nowhere' is not on this machine"),
        ({"tokenizer": {"name": None}}, "tokenizer.name is not set"),
        ({"dataset": {"path_or_dataset_id": "nowhere.jsonl"}}, "nowhere.jsonl"),
        ({"dataset": {"seq_lenth": 3}}, "Did you mean 'seq_length'?"),
    ],
)
def test_a_mistake_is_said_in_words_and_ends_with_2(
    tables: dict[str, Any],
    said: str,
    inspect: Inspect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = inspect(rows(tmp_path / "a.jsonl", GOOD), **tables)
    assert code == 2
    assert said in capsys.readouterr().err


def test_padding_is_that_of_the_chosen_batches() -> None:
    lengths = [1, 9] * 8
    report = DataReport(rows=16, limit=None, complete=True, refused={}, lengths=lengths)
    assert report.padding_share(16) == pytest.approx(1 - 5 / 9)
    assert report.padding_share(8, sorted_within=16) == 0
    assert report.padding_share(2, sorted_within=16) == 0
    assert 0 < report.padding_share(2) < 1


@pytest.mark.parametrize(
    ("lengths", "size", "sequences"),
    [
        ([10] * 4, 10, 4),
        ([1, 9] * 8, 10, 8),
        ([6, 5, 4, 3, 2], 10, 2),
        ([25, 3], 10, 2),
        ([], 5, 0),
    ],
)
def test_packing_leaves_the_room_that_no_row_fits(
    lengths: list[int], size: int, sequences: int
) -> None:
    report = DataReport(rows=len(lengths), limit=None, complete=True, refused={}, lengths=lengths)
    kept = sum(min(length, size) for length in lengths)
    expected = 1 - kept / (sequences * size) if sequences else 0
    assert report.packed_padding_share(size) == pytest.approx(expected)


def test_the_command_looks_at_a_training_config_as_the_wizard_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    look = ["data", "look", "peft/automodel", "-c", "tiny"]
    assert cli([*look, "--rows", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 600
    assert len(found["inspected"]) == 2
    assert found["padding"]["local_batch_size"] == 8
    assert cli([*look, "packed_sequence.packed_sequence_size=512"]) == 0
    printed = capsys.readouterr().out
    assert "padding with rows packed into 512 tokens" in printed
    assert "⟦" in printed


def test_a_config_without_that_data_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    look = ["data", "look", "peft/automodel", "-c", "tiny", "validation_dataset=null"]
    assert cli([*look, "--validation"]) == ExitCode.USAGE
    assert "has no validation_dataset" in capsys.readouterr().err


@pytest.mark.slow
def test_the_step_runs_like_any_other_and_leaves_its_report(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli(["steps", "run", "data_prep/inspect", "-c", "tiny", "--json"]) == 0
    run = json.loads(capfd.readouterr().out)
    assert run["exit_code"] == 0
    assert cli(["runs", "show", run["run_id"], "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    report = json.loads((Path(shown["run_dir"]) / REPORT).read_text())
    assert report["rows"] == report["trainable_rows"] == 600
