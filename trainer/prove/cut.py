"""A person's model and data, cut down to what can be proven in a minute."""

from __future__ import annotations

import json
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PretrainedConfig

from ...core.chat import RowError
from ...core.errors import UsageError
from ...core.hardware import memory_bytes
from ...core.memory import GIB
from ...core.schema import TrainConfig
from ..data.reading import read_rows
from ..data.tokenizing import tokenize_all
from ..data.tokens import ChatFormat
from ..model.build import build_model
from ..model.tokenizer import tokenizer_of
from ..parallel.meta import empty_model
from ..runtime import RuntimeConfig
from ..setup import validate_and_prepare_config

LAYERS, ROWS, STEPS, BATCH = 2, 16, 4, 4
_LENGTH, _TRAINED, _LOOKED_AT = 256, 64, 64
"""Tokens of a row, how many of them may be trained at the least, and rows to choose from."""
_KEPT = {"recipe", "model", "tokenizer", "dataset", "step_scheduler", "optimizer", "peft", "rng"}
_LEAST_RATE = 1e-4
_BYTES_A_WEIGHT = 16  # itself, its gradient and Adam's moments in float32


class Cut(NamedTuple):
    """What is proven on.

    Attributes:
        config: of a run over the cut model and the rows, in float32 and without dropout.
        parameters: of the cut model.
        rows: how many.
        layers: how many of how many.
    """

    config: TrainConfig
    parameters: int
    rows: int
    layers: tuple[int, int]


def cut(config: TrainConfig, folder: Path) -> Cut:
    """Write the cut model with its tokenizer and the first rows of the data into a folder.

    Args:
        config: the run's config.
        folder: takes them.

    Raises:
        UsageError: model or data cannot be read, or the model is too large even so.
    """
    plain = _plain(config)
    runtime = validate_and_prepare_config(plain, None, rank=0)
    architecture = runtime.model_config
    layers = _shorten(architecture.get_text_config())
    runtime = runtime._replace(dtype=torch.float32)
    tokenizer = tokenizer_of(config)
    rows, length = _choose(config, ChatFormat.of(tokenizer, config.tokenizer.chat_template_kwargs))
    text = "".join(json.dumps(row, default=str) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    parameters = _count(plain, runtime)
    model = build_model(plain.model, runtime, plain.model.pretrained_model_name_or_path)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    del model
    tables: dict[str, dict[str, Any]] = {
        "model": {
            "pretrained_model_name_or_path": str(folder / "model"),
            "config": None,
            "revision": None,
        },
        "tokenizer": {"name": str(folder / "model"), "revision": None},
        "dataset": {
            "path_or_dataset_id": str(folder / "rows.jsonl"),
            "split": None,
            "seq_length": length,
        },
    }
    return Cut(changed(plain, tables), parameters, len(rows), layers)


def _plain(config: TrainConfig) -> TrainConfig:
    """The config of a short run with all left out that is not the training itself."""
    tables: dict[str, dict[str, Any]] = {
        "model": {"torch_dtype": "float32"},
        "dataset": {"streaming": False, "shuffle": False, "num_proc": 1, "truncation": "right"},
        "step_scheduler": {
            "global_batch_size": BATCH,
            "local_batch_size": BATCH,
            "max_steps": STEPS,
            "num_epochs": None,
            "log_every_steps": 1,
            "ckpt_every_steps": STEPS // 2,
            "val_every_steps": None,
        },
        # Without a large epsilon Adam makes a full step of a gradient that is rounding alone. At a
        # low rate nothing would be learned in so few steps that could be lost or merged wrongly.
        "optimizer": {"eps": 1e-3, "name": "adamw", "lr": max(config.optimizer.lr, _LEAST_RATE)},
        "lr_scheduler": {"lr_decay_style": "constant", "lr_warmup_steps": 0},
        "checkpoint": {"keep_last": None},
    }
    if config.peft is not None:
        tables["peft"] = {"dropout": 0.0, "quantization": None}
    return changed(config, tables, kept=_KEPT)


def changed(
    config: TrainConfig, tables: dict[str, dict[str, Any]], *, kept: set[str] | None = None
) -> TrainConfig:
    """A config with some keys set; the whole is checked again.

    Args:
        config: the config.
        tables: the keys by table.
        kept: tables that stay beside them, others get their defaults; None keeps all.
    """
    values = config.model_dump(mode="json", include=kept)
    for name, table in tables.items():
        values[name] = {**(values.get(name) or {}), **table}
    return TrainConfig.model_validate(values)


def _shorten(text: PretrainedConfig) -> tuple[int, int]:
    """Leave two layers of an architecture, and of every list that says something of each layer."""
    before = int(text.num_hidden_layers)
    kept = min(LAYERS, before)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == before:
            setattr(text, name, value[:kept])
    text.num_hidden_layers = kept
    return kept, before


def _count(config: TrainConfig, runtime: RuntimeConfig) -> int:
    """The parameters of the cut model; refuse it where training it would fill half the memory."""
    parameters = sum(p.numel() for p in empty_model(runtime).parameters())
    needed = parameters * (_BYTES_A_WEIGHT if config.peft is None else 8)
    if needed > memory_bytes() / 2:
        raise UsageError(
            f"Even two layers of the model have {parameters:,} weights, which take "
            f"{needed / GIB:.0f} GiB; this machine has {memory_bytes() / GIB:.0f}.",
            fix="Prove it on a machine with more memory, or with peft=lora, or a smaller model of "
            "the same architecture.",
        )
    return parameters


def _choose(config: TrainConfig, chat_format: ChatFormat) -> tuple[list[dict[str, Any]], int]:
    """The first rows of each source that have something to train on early, and how long they are.

    Raises:
        UsageError: a row cannot be trained on, as the run itself would find, or none has anything
            to train on.
    """
    data = config.dataset.model_copy(update={"truncation": "right"})
    sources = data.sources()
    chosen: list[tuple[int, dict[str, Any]]] = []
    empty = True
    for source in sources:
        errors: list[RowError] = []
        first = islice(read_rows(source, data, config.rng.seed, errors), _LOOKED_AT)
        found = []
        for row, chat in tokenize_all(first, chat_format, data, processes=1):
            empty = False
            if isinstance(chat, RowError):
                errors.append(chat.at(row.file, row.number))
            elif any(chat.trained[1:]):
                found.append((max(_LENGTH, list(chat.trained).index(True, 1) + _TRAINED), row.row))
        if errors:
            raise errors[0]
        chosen += sorted(found, key=itemgetter(0))[: -(-ROWS // len(sources))]
    if empty:
        raise UsageError("The data set is empty.", fix="Name rows in dataset.path_or_dataset_id.")
    if not chosen:
        raise UsageError(
            f"None of the first {_LOOKED_AT} rows has a trained token within dataset.seq_length.",
            fix="Raise dataset.seq_length, or see what is trained: tunedeck data look.",
        )
    length = max(needed for needed, _ in chosen[:ROWS])
    return [row for _, row in chosen[:ROWS]], min(length, data.seq_length or length)
