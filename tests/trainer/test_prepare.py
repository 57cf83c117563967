from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tunedeck.core.errors import UsageError
from tunedeck.core.schema.data import DatasetConfig
from tunedeck.trainer.data import prepare as module
from tunedeck.trainer.data.prepare import Blend, prepare
from tunedeck.trainer.data.tokens import ChatFormat

from .helpers import rows, write_rows


@pytest.fixture
def prepared(tokenizer: PreTrainedTokenizerFast) -> Any:
    def run(path: object, *, seed: int = 0, **options: Any) -> Blend:
        config = DatasetConfig.model_validate({"path_or_dataset_id": path, **options})
        return prepare(config, ChatFormat.of(tokenizer, {}), table="dataset", seed=seed)

    return run


def texts(blend: Blend, tokenizer: PreTrainedTokenizerFast, *, trained: bool) -> list[str]:
    found: list[str] = []
    for index in range(len(blend.rows)):
        ids, marks, _ = blend.rows[index]
        found.append(str(tokenizer.decode(ids[marks == 1] if trained else ids)))
    return found


def test_the_answers_are_trained_with_their_stop_token(
    prepared: Any, chat_file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    blend = prepared(str(chat_file), split="train[:3]")
    answers = [row["messages"][1]["content"] for row in rows(3)]
    assert texts(blend, tokenizer, trained=True) == [f"{text}<|im_end|>" for text in answers]
    assert blend.rows.place(2) == f"{chat_file}:3"
    assert blend.supervised == sum(len(text) + 1 for text in answers)


def test_a_long_preparation_says_how_far_it_is_and_a_cached_one_nothing(
    prepared: Any,
    chat_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_SAID_EVERY", 10)
    for said in ("10 20", ""):
        prepared(str(chat_file), split="train[:25]", seq_length=64)
        lines = capsys.readouterr().out.splitlines()
        assert [words.split()[2] for words in lines if "so far" in words] == said.split()


def test_prepared_rows_are_found_again_until_something_changes(
    prepared: Any, chat_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = module._write

    def write(source: Any, *rest: Any) -> None:
        made.append(source.spec)
        original(source, *rest)

    monkeypatch.setattr(module, "_write", write)
    first = prepared(str(chat_file), seq_length=64)
    again = prepared(str(chat_file), seq_length=64)
    assert len(made) == 1
    assert len(again.rows) == len(first.rows)
    assert again.tokens == first.tokens
    prepared(str(chat_file), seq_length=65)
    assert len(made) == 2
    write_rows(chat_file, rows(24, seed=1))
    prepared(str(chat_file), seq_length=65)
    assert len(made) == 3


@pytest.mark.parametrize("kind", [".arrow", ".json"])
@pytest.mark.parametrize("kept", [None, 0, 0.5])
def test_prepared_rows_that_were_damaged_are_prepared_anew(
    kind: str, kept: float | None, prepared: Any, chat_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cache_dir", lambda: chat_file.parent / "cache")
    first = prepared(str(chat_file))
    (file,) = (chat_file.parent / "cache/datasets").glob(f"*{kind}")
    whole = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(whole[: int(len(whole) * kept)])
    again = prepared(str(chat_file))
    assert (again.tokens, len(again.rows)) == (first.tokens, 24)
    assert file.read_bytes() == whole


def test_rows_that_were_prepared_from_another_file_are_those_of_this_one(
    prepared: Any, chat_file: Path, tmp_path: Path
) -> None:
    prepared(str(chat_file))
    copied = write_rows(tmp_path / "copied.jsonl", rows(24))
    assert copied.read_bytes() == chat_file.read_bytes()
    assert prepared(str(copied)).rows.place(2) == f"{copied}:3"


def test_several_processes_prepare_the_same_rows(
    prepared: Any, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    file = write_rows(tmp_path / "many.jsonl", rows(1300))
    alone = prepared(str(file))
    shared = prepared(str(file), num_proc=2, revision="an option that is part of the cache's name")
    assert texts(shared, tokenizer, trained=False) == texts(alone, tokenizer, trained=False)
    assert [shared.rows.place(n) for n in (0, 700, 1299)] == [f"{file}:{n}" for n in (1, 701, 1300)]
    with file.open("a") as opened:
        opened.write('{"messages": [{"role": "user", "content": "q"}]}\n')
    with pytest.raises(UsageError, match="1301"):
        prepared(str(file), num_proc=2)


def test_what_truncation_loses_is_said(prepared: Any, tmp_path: Path) -> None:
    long = {"role": "assistant", "content": "x" * 100}
    asked = {"role": "user", "content": "q"}
    lost = {"role": "user", "content": "q" * 100}
    file = write_rows(
        tmp_path / "long.jsonl",
        [
            {"messages": [asked, {"role": "assistant", "content": "y"}]},
            {"messages": [asked, long]},
            {"messages": [lost, long]},
        ],
    )
    blend = prepared(str(file), seq_length=64)
    assert len(blend.rows) == 2
    said = " ".join(blend.warnings)
    assert "2 rows are longer than 64 tokens" in said
    assert "1 row is left without a trained token" in said
    dropped = prepared(str(file), seq_length=64, truncation="drop")
    assert len(dropped.rows) == 1
    assert "2 rows over 64 tokens are left out" in " ".join(dropped.warnings)
    with pytest.raises(UsageError, match="tokens, more than"):
        prepared(str(file), seq_length=64, truncation="error")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "[Aa]ssistant"),
        ('{"text": "q"}', "No chat format"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_refused_by_its_number(
    content: str, said: str, prepared: Any, chat_file: Path
) -> None:
    with chat_file.open("a") as file:
        file.write(f"{content}\n")
    with pytest.raises(UsageError, match=said) as caught:
        prepared(str(chat_file))
    assert "25" in str(caught.value)


def test_an_empty_set_is_refused(prepared: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError, match="empty"):
        prepared(str(tmp_path / "empty.jsonl"))


def test_several_sources_become_a_blend_with_their_weights(prepared: Any, tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", rows(3))
    other = write_rows(tmp_path / "other.jsonl", rows(2, seed=1))
    blend = prepared([{"path": str(one), "weight": 3}, str(other)])
    assert blend.sizes == (3, 2)
    assert blend.weights == (3.0, 1.0)
    assert blend.rows.place(4) == f"{other}:2"


def test_rows_are_shuffled_once_before_they_are_sliced(prepared: Any, chat_file: Path) -> None:
    def places(**options: Any) -> list[str]:
        blend = prepared(str(chat_file), split="train[:10]", **options)
        return [blend.rows.place(index) for index in range(len(blend.rows))]

    shuffled = places(shuffle=True, seed=1)
    assert len(set(shuffled)) == 10
    assert shuffled != places()
    assert shuffled == places(shuffle=True, seed=1)
    assert shuffled != places(shuffle=True, seed=2)


def test_a_set_on_the_hub_that_cannot_be_reached_is_named(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read from the environment once, when the libraries are imported.
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="'owner/rows' cannot be loaded from the hub"):
        prepared("owner/rows")
