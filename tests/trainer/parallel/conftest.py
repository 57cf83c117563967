from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.schema import TrainConfig

from ..helpers import KINDS, SIZES
from .runs import Run, Runs
from .workers import Workers


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """Processes that are started by the first test that needs so many."""
    with Workers() as started:
        yield started


@pytest.fixture
def new_model(models_of: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """Tables of a model that is made anew, with a vocabulary that two ranks can share."""

    def tables(kind: str) -> dict[str, Any]:
        config = {"model_type": kind, **SIZES, **KINDS[kind], "vocab_size": 260}
        model = {"pretrained_model_name_or_path": None, "config": config}
        return {"model": model, "tokenizer": {"name": str(models_of(kind))}}

    return tables


@pytest.fixture(scope="session")
def alone() -> dict[str, Run]:
    """What one process came to, by its config: many meshes are held against the same."""
    return {}


@pytest.fixture
def trained(
    workers: Workers,
    alone: dict[str, Run],
    configure: Callable[..., TrainConfig],
    chat_file: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Run]:
    """Train on so many ranks; keyword arguments are tables of the config."""

    def train(ranks: int, *, name: str = "", **tables: Any) -> Run:
        tables.setdefault("optimizer", {})
        # Without a large epsilon Adam makes a full step of a gradient that is rounding alone.
        tables["optimizer"] = {"lr": 1e-2, "eps": 1e-3, **tables["optimizer"]}
        config = configure(**tables)
        if ranks > 1:
            folder = tmp_path / (name or f"ranks_{ranks}")
            folder.mkdir(exist_ok=True)
            return Runs(workers).train(ranks, config, folder)
        key = config.model_dump_json().replace(str(chat_file), chat_file.read_text())
        if key not in alone:
            alone[key] = Runs(workers).train(1, config, tmp_path_factory.mktemp("alone"))
        return alone[key]

    return train
