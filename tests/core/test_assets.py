"""The tiny model, tokenizer and dataset that ship with the package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tunedeck.core import locations
from tunedeck.core.chat import Message, open_chat_tokenizer, tokenize_chat

SCRIPTS = Path(__file__).parents[2] / "scripts" / "assets"
ASSETS = locations.assets_dir()
BASE = ASSETS / "base"
DATA = ASSETS / "word_problems"
TOKENIZER = Tokenizer.from_file(str(BASE / "tokenizer.json"))


def remake(script: str, output: Path, *options: str) -> str:
    words = [sys.executable, str(SCRIPTS / script), "--output", str(output), *options]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=110).stdout


def rows(name: str) -> list[tuple[str, str]]:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [json.loads(line)["messages"] for line in lines]
    assert all([turn["role"] for turn in row] == ["user", "assistant"] for row in turns)
    return [(user["content"], assistant["content"]) for user, assistant in turns]


def sums(name: str) -> set[str]:
    return {answer.split(" = ")[0] for _, answer in rows(name)}


def test_the_dataset_is_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    remake("make_data.py", tmp_path)
    for name in ("train.jsonl", "validation.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_the_tokenizer_is_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    remake("make_tokenizer.py", tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (BASE / file.name).read_bytes()


def test_every_answer_of_the_dataset_is_right_and_about_its_question() -> None:
    for question, answer in rows("train") + rows("validation"):
        found = re.fullmatch(r"(\d+) ([+-]) (\d+) = (\d+)\. The answer is (\d+)\.", answer)
        assert found is not None
        left, sign, right, result, said = found.groups()
        expected = int(left) + int(right) if sign == "+" else int(left) - int(right)
        assert int(result) == int(said) == expected
        assert sorted(re.findall(r"\d+", question)) == sorted((left, right))


def test_no_sum_of_validation_is_trained() -> None:
    assert len(rows("train")) == 600
    assert len(rows("validation")) == 100
    assert not sums("train") & sums("validation")


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_the_template_trains_the_answer_with_its_stop_token_and_nothing_else() -> None:
    chat = open_chat_tokenizer(BASE)
    asked = Message(role="user", content="2 + 2?")

    tokens = tokenize_chat(chat, [asked, Message(role="assistant", content="4.")])

    trained = [id for id, keep in zip(tokens.input_ids, tokens.trained, strict=True) if keep]
    assert chat.decode(trained, skip_special_tokens=False) == "4.<|im_end|>"
    assert chat.eos_id == TOKENIZER.token_to_id("<|im_end|>")
    assert chat.pad_id not in (chat.eos_id, None)


def test_the_base_is_small_and_its_heads_can_be_split_over_two() -> None:
    config = json.loads((BASE / "config.json").read_text())
    assert (BASE / "model.safetensors").stat().st_size <= 4_000_000
    assert config["num_attention_heads"] >= 4
    assert config["num_key_value_heads"] % 2 == 0
    assert config["vocab_size"] == TOKENIZER.get_vocab_size()


@pytest.mark.slow
def test_the_base_can_be_made_again(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((BASE / name).read_bytes())

    printed = remake("make_model.py", tmp_path, "--steps", "3")

    assert "sums asked in chat: " in printed
    made, shipped = (json.loads((at / "config.json").read_text()) for at in (tmp_path, BASE))
    for config in (made, shipped):
        del config["transformers_version"]
    assert made == shipped
