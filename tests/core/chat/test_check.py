"""A data set checked before a run: what blocks, what is warned of, and the inspector's tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.chat import (
    ChatTokenizer,
    DataReport,
    check_dataset,
    data_findings,
    inspect_rows,
)
from tunedeck.core.errors import UsageError
from tunedeck.core.findings import blocking

from .conftest import OpenTokenizer

GOOD = {"prompt": "What is two and three?", "completion": "The answer is 5."}


@pytest.fixture
def chatml(chat_tokenizer: OpenTokenizer) -> ChatTokenizer:
    return chat_tokenizer("chatml")


def write(path: Path, *rows: Any) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def said(report: DataReport, severity: str) -> list[str]:
    return [one.message for one in data_findings(report) if one.severity == severity]


def test_a_good_set_says_nothing(chatml: ChatTokenizer, tmp_path: Path) -> None:
    report = check_dataset(write(tmp_path / "a.jsonl", GOOD, GOOD), chatml, seq_length=512)
    assert data_findings(report) == []
    assert (report.rows, report.trainable_rows, report.complete) == (2, 2, True)
    assert report.tokens == sum(report.lengths)
    answer = len(chatml.encode("The answer is 5.<|im_end|>").ids)
    assert report.supervised_tokens == 2 * answer


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_refused_rows_are_named_by_reason_and_number(
    chatml: ChatTokenizer, tmp_path: Path, with_tokenizer: bool
) -> None:
    file = write(
        tmp_path / "a.jsonl",
        *(GOOD, "{", GOOD, {"messages": [{"role": "user", "content": "Hi"}]}),
        *({"input_ids": [1]}, "[]", {"messages": []}),
    )
    report = check_dataset(file, chatml if with_tokenizer else None)
    rows = {
        reason: [error.place.line for error in refused.examples if error.place]
        for reason, refused in report.refused.items()
    }
    assert rows == {"malformed": [2, 6], "no_assistant": [4], "format": [5, 7]}
    assert report.trainable_rows == 2
    errors = blocking(data_findings(report))
    assert len(errors) == 3
    assert {(one.place.file, one.key) for one in errors} == {(file, "dataset.path_or_dataset_id")}
    assert "2 rows are like it: 2, 6." in errors[0].message


def test_an_empty_set_is_refused(chatml: ChatTokenizer, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", GOOD)
    assert said(check_dataset(file, chatml, split="train[5:]"), "error") == [
        "The data set is empty."
    ]
    (tmp_path / "b.jsonl").write_text("\n")
    assert said(check_dataset(tmp_path / "b.jsonl", None), "error") == ["The data set is empty."]


def test_a_row_without_a_trained_token_is_refused(
    chat_tokenizer: OpenTokenizer, tmp_path: Path
) -> None:
    unmarked = "{% if no %}{% generation %}{% endgeneration %}{% endif %}"
    template = "{% for m in messages %}{{ m.content }}{% endfor %}" + unmarked
    report = check_dataset(write(tmp_path / "a.jsonl", GOOD), chat_tokenizer("chatml", template))
    assert said(report, "error") == ["Row 1: No token of the row is trained."]


def test_truncation_is_warned_of_with_what_it_loses(chatml: ChatTokenizer, tmp_path: Path) -> None:
    long = GOOD | {"prompt": GOOD["prompt"] * 5}
    file = write(tmp_path / "a.jsonl", GOOD, long)
    (first, second) = check_dataset(file, chatml).lengths
    answer = len(chatml.encode("The answer is 5.<|im_end|>").ids)
    cut = check_dataset(file, chatml, seq_length=first)
    assert blocking(data_findings(cut)) == []
    assert (cut.truncated_rows, cut.dropped_supervised, cut.emptied_rows) == (1, answer, 1)
    assert cut.tokens == 2 * first
    assert len(said(cut, "warning")) == 2
    left_out = check_dataset(file, chatml, seq_length=first, truncation="drop")
    assert (left_out.left_out_rows, left_out.trainable_rows) == (1, 1)
    refused = check_dataset(file, chatml, seq_length=second - 1, truncation="error")
    assert [*refused.refused] == ["too_long"]
    none = check_dataset(file, chatml, seq_length=5)
    assert "No row has a trained token within 5 tokens." in said(none, "error")


def test_what_a_template_does_to_the_labels_is_warned_of(
    chat_tokenizer: OpenTokenizer, tmp_path: Path
) -> None:
    system = {"role": "system", "content": "Be kind."}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo<|im_end|>"}]
    file = write(tmp_path / "a.jsonl", {"messages": [system, *messages]})
    template = (
        "{{ '<s>' * 2 }}{% for m in messages if m.role != 'system' %}"
        "{{ m.content }}|<|end|>{{ '\\n' }}{% endfor %}"
    )
    tokenizer = chat_tokenizer("mistral", template)
    warnings = "\n".join(said(check_dataset(file, tokenizer), "warning"))
    assert "two beginning-of-text tokens" in warnings
    assert "'|<|end|>', is" in warnings
    assert "leaves out or changes: 1." in warnings
    inner = check_dataset(file, chat_tokenizer("chatml"))
    assert said(inner, "warning") == ["Messages that hold '<|im_end|>' in their own text: 1."]
    joined = "{% for m in messages %}{{ m.content }}{% endfor %}"
    bare = check_dataset(write(tmp_path / "b.jsonl", GOOD), chat_tokenizer("chatml", joined))
    assert any("without a stop token" in one for one in said(bare, "warning"))


def test_a_large_set_is_checked_in_part_and_says_so(chatml: ChatTokenizer, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *[GOOD] * 5)
    other = write(tmp_path / "b.jsonl", GOOD)
    report = check_dataset([{"path": file}, {"path": other}], chatml, limit=6)
    assert (report.rows, report.complete) == (4, False)
    assert said(report, "info") == ["Only the first 4 rows were checked."]


def test_hub_sources_are_named_as_not_checked(chatml: ChatTokenizer) -> None:
    report = check_dataset("HuggingFaceH4/ultrachat_200k", chatml)
    assert [one.severity for one in data_findings(report)] == ["info"]
    assert report.hub_ids == ("HuggingFaceH4/ultrachat_200k",)


def test_packed_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"train\.parquet' is packed Parquet"):
        check_dataset(tmp_path, None)


def test_lengths_are_counted_in_round_bins_and_padding_is_that_of_random_batches() -> None:
    lengths = list(range(1, 101))
    report = DataReport(rows=100, limit=None, complete=True, refused={}, lengths=lengths)
    bins = report.histogram()
    assert sum(one.rows for one in bins) == 100
    assert {one.stop - one.start for one in bins} == {10}
    assert report.padding_share(1) == 0
    assert report.padding_share(100) == pytest.approx(1 - sum(lengths) / 100 / 100)
    assert 0 < report.padding_share(4) < report.padding_share(16) < 1
    assert math.isclose(report.to_json(batch_size=4)["padding"]["share"], report.padding_share(4))
    assert json.loads(json.dumps(report.to_json()))["rows"] == 100


def test_the_inspector_shows_every_token_with_its_fate(
    chatml: ChatTokenizer, tmp_path: Path
) -> None:
    fox = {"prompt": "Yes?", "completion": "🦊 Yes."}
    file = write(tmp_path / "a.jsonl", fox, "{", {"messages": [{"role": "user", "content": ""}]})
    whole, malformed, unanswered = inspect_rows(file, chatml)
    text = "<|im_start|>user\nYes?<|im_end|>\n<|im_start|>assistant\n🦊 Yes.<|im_end|>\n"
    assert "".join(token.text for token in whole.tokens) == text
    trained = [token.text for token in whole.tokens if token.status == "trained"]
    assert "".join(trained) == "🦊 Yes.<|im_end|>"
    (cut, *_) = inspect_rows(file, chatml, seq_length=len(whole.tokens) - 3)
    assert [token.status for token in cut.tokens[-4:]] == ["trained"] + ["dropped"] * 3
    assert (cut.count("dropped"), cut.to_json()["dropped"]) == (3, 3)
    assert malformed.refused is not None
    assert unanswered.refused is not None
    assert (malformed.place.line, unanswered.place.line) == (2, 3)
    assert json.loads(json.dumps([whole.to_json(), malformed.to_json()]))[1]["refused"]["message"]


@pytest.mark.parametrize(("limit", "shown"), [(1, "a"), (2, "ab"), (5, "aaabb"), (None, "aaaaabb")])
def test_each_source_of_a_blend_is_shown(
    limit: int | None, shown: str, chatml: ChatTokenizer, tmp_path: Path
) -> None:
    files = [write(tmp_path / f"{name}.jsonl", *[GOOD] * n) for name, n in (("a", 5), ("b", 2))]
    rows = inspect_rows([{"path": file} for file in files], chatml, limit=limit)
    assert "".join(Path(str(row.place.file)).stem for row in rows) == shown


def test_long_rows_are_looked_at_up_to_a_number_of_characters(
    chatml: ChatTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [{"role": "user", "content": "a" * 400}, {"role": "assistant", "content": "b" * 50}]
    file = write(tmp_path / "a.jsonl", *[{"messages": long}] * 5)
    monkeypatch.setattr("tunedeck.core.chat.check.LOOKED_AT", 1000)
    monkeypatch.setattr("tunedeck.core.chat.inspector.LOOKED_AT", 1000)
    report = check_dataset(file, chatml)
    assert (report.rows, report.complete) == (2, False)
    assert len(list(inspect_rows(file, chatml))) == 2
    whole = check_dataset(file, chatml, limit=None)
    assert (whole.rows, whole.complete) == (5, True)
    assert len(list(inspect_rows(file, chatml, limit=None))) == 5


def test_a_first_row_that_is_too_long_to_be_looked_at_blocks_nothing(
    chatml: ChatTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.core.chat.check.LOOKED_AT", 5)
    findings = data_findings(check_dataset(write(tmp_path / "a.jsonl", GOOD), chatml))
    assert [one.severity for one in findings] == ["info"]
    assert "too long" in findings[0].message
