from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    logging,
)

from tunedeck.core.schema import TrainConfig

from .helpers import KINDS, SIZES, SPECIAL, TEMPLATE, rows, write_rows

torch.set_num_threads(1)
logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(SPECIAL)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=built, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


@pytest.fixture(scope="session")
def models_of(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Callable[[str], Path]:
    """Folders with a new tiny model of a kind and the tokenizer."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            torch.manual_seed(0)
            sizes = {**SIZES, "vocab_size": len(tokenizer), **KINDS[kind]}
            config = AutoConfig.for_model(kind, **sizes)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return make


@pytest.fixture(scope="session")
def llama(models_of: Callable[[str], Path]) -> Path:
    return models_of("llama")


@pytest.fixture
def chat_file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", rows(24))


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The signal handlers as they were."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


Configure = Callable[..., TrainConfig]


@pytest.fixture
def configure(llama: Path, chat_file: Path) -> Configure:
    """A config of a short run; keyword arguments are tables that are merged into it."""

    def build(**tables: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "model": {"pretrained_model_name_or_path": str(llama), "torch_dtype": "float32"},
            "dataset": {"path_or_dataset_id": str(chat_file), "seq_length": 128},
            "step_scheduler": {
                "global_batch_size": 4,
                "local_batch_size": 2,
                "max_steps": 4,
                "log_every_steps": 1,
            },
            "optimizer": {"lr": 1e-2},
            "rng": {"seed": 3},
        }
        for name, table in tables.items():
            merged = isinstance(table, dict) and isinstance(values.get(name), dict)
            values[name] = {**values[name], **table} if merged else table
        return TrainConfig.model_validate(values)

    return build
