"""Opening a tokenizer's folder, choosing its template, and leaving the original as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tunedeck.core.chat import RowError, open_chat_tokenizer, tokenize_chat, wrap_tokenizer
from tunedeck.core.chat.rows import Message
from tunedeck.core.errors import UsageError

from .conftest import SPECIAL_TOKENS, OpenTokenizer, template_text

HI: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


@pytest.fixture
def folder(backend: tokenizers.Tokenizer, tmp_path: Path) -> Path:
    backend.save(str(tmp_path / "tokenizer.json"))
    eos = {"content": "<|im_end|>", "special": True}
    config = {"eos_token": eos, "bos_token": None, "chat_template": template_text("chatml")}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_pad_token_is_that_of_eos_where_there_is_none(folder: Path) -> None:
    tokenizer = open_chat_tokenizer(folder)
    assert tokenizer.bos_id is None
    assert tokenizer.pad_id == tokenizer.eos_id == tokenizer.encode("<|im_end|>").ids[0]


def test_a_template_comes_from_the_folder_a_file_or_the_config(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("file {{ messages[0].content }} {{ mood }}")
    for chosen, text in (
        ("default", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"),
        (str(file), "file Hi good"),
        ("inline {{ messages[1].content }}", "inline Yo"),
        (None, "HiYo"),
    ):
        tokenizer = open_chat_tokenizer(
            folder, chat_template=chosen, chat_template_kwargs={"mood": "good"}
        )
        assert tokenizer.render(HI).text == text


def test_the_turns_stop_token_ends_generation_beside_eos(chat_tokenizer: OpenTokenizer) -> None:
    tokenizer = chat_tokenizer("gemma")
    stops = ["<eos>", "<end_of_turn>"]
    assert tokenizer.stop_ids == tuple(tokenizer.encode(stop).ids[0] for stop in stops)


def remove_template(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{}")


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 3}')


def break_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "template", "said"),
    [
        (remove_template, "default", "has no chat template"),
        (remove_tokenizer, "default", "has no tokenizer.json"),
        (break_tokenizer, "default", "is not a tokenizer"),
        (break_config, "default", "is not valid JSON"),
        (nothing, "missing.jinja", "cannot be read"),
        (nothing, "chatml", "neither a .jinja file nor Jinja"),
        (nothing, "{% for %}", "syntax error in line 1"),
        (nothing, "{% if m %}", "that needs to be closed is 'if'."),
        (nothing, "{{ x | nofilter }}", "syntax error"),
    ],
)
def test_what_is_unusable_is_said_with_what_to_do(
    folder: Path, spoil: Callable[[Path], None], template: str, said: str
) -> None:
    spoil(folder)
    with pytest.raises(UsageError) as caught:
        open_chat_tokenizer(folder, chat_template=template)
    assert said in str(caught.value)
    assert not str(caught.value).endswith("..")


def test_a_folder_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match="no tokenizer folder 'owner/name'"):
        open_chat_tokenizer("owner/name")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no') }}", "no (line 1 of the template)"),
        ("\n{{ messages.x.y }}", "line 2"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_failing_template_refuses_the_row_with_its_reason(
    chat_tokenizer: OpenTokenizer, template: str, said: str
) -> None:
    with pytest.raises(RowError) as caught:
        chat_tokenizer("chatml", template).render(HI)
    assert said in caught.value.message


def test_a_template_that_cannot_do_a_plain_exchange_is_unusable(
    chat_tokenizer: OpenTokenizer,
) -> None:
    for template in ("{{ raise_exception('no') }}", "constant {{ bos_token }}"):
        with pytest.raises(UsageError):
            tokenize_chat(chat_tokenizer("chatml", template), HI, mask="all")


def test_a_wrapped_tokenizer_is_left_alone_and_its_settings_do_not_count(
    backend: tokenizers.Tokenizer,
) -> None:
    original = tokenizers.Tokenizer.from_str(backend.to_str())
    original.enable_truncation(3)
    original.enable_padding(length=50)
    original.post_processor = processors.ByteLevel(trim_offsets=True)
    before = original.to_str()
    wrapped = wrap_tokenizer(
        original, special_tokens=SPECIAL_TOKENS["chatml"], own_template=template_text("chatml")
    )
    text = "<|im_start|>user\n\n hello there <|im_end|>\n"
    assert wrapped.encode(text).ids == backend.encode(text).ids
    assert wrapped.encode(text).offsets == backend.encode(text).offsets
    assert original.to_str() == before


SENTENCEPIECE = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
LOWERED = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


@pytest.mark.parametrize(
    ("normalizer", "split"),
    [
        (SENTENCEPIECE, None),
        (normalizers.Replace(" ", "▁"), pre_tokenizers.Split("▁", "merged_with_next")),
        (normalizers.NFC(), pre_tokenizers.Metaspace(prepend_scheme="first")),
        (LOWERED, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    ],
)
def test_masks_hold_for_other_kinds_of_tokenizers(normalizer: Any, split: Any) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    if split is not None:
        tokenizer.pre_tokenizer = split
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(["the answer is ﬁve", "The answer is five"], trainer)
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}"
        "[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    wrapped = wrap_tokenizer(
        tokenizer, special_tokens={"bos_token": "<s>", "eos_token": "</s>"}, own_template=template
    )
    answer: Message = {"role": "assistant", "content": "The ﬁve is the answer"}
    chat = tokenize_chat(wrapped, [HI[0], answer, HI[0], answer])
    tokens = [tokenizer.id_to_token(id) for id in chat.input_ids]
    closes = [at for at, token in enumerate(tokens) if token == "[/INST]"]
    ends = [at for at, token in enumerate(tokens) if token == "</s>"]
    turns = zip(closes, ends, strict=True)
    trained = {at for close, end in turns for at in range(close + 1, end + 1)}
    assert {at for at, on in enumerate(chat.trained) if on} == trained


def test_a_token_over_header_and_turn_counts_to_the_turn(chat_tokenizer: OpenTokenizer) -> None:
    tokenizer = chat_tokenizer("chatml", "{% for m in messages %}{{ m.content }}{% endfor %}")
    weather: Message = {"role": "user", "content": "The wea"}
    chat = tokenize_chat(tokenizer, [weather, {"role": "assistant", "content": "ther"}])
    first = chat.trained.index(True)
    start, end = tokenizer.encode("The weather").offsets[first]
    assert start < len("The wea") < end


def test_importing_the_package_loads_neither_jinja_nor_tokenizers() -> None:
    code = "import sys, tunedeck.core.chat; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"jinja2", "tokenizers", "torch", "transformers", "datasets", "pydantic"}
    assert not heavy & set(loaded.stdout.split())
