from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.trainer.parallel.sequences import segments

from .runs import Run

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {"global_batch_size": 4, "local_batch_size": 2, "max_steps": 3}
PACKED: dict[str, Any] = {"step_scheduler": STEPS, "packed_sequence": {"packed_sequence_size": 150}}
slow = pytest.mark.slow
patient = pytest.mark.timeout(400)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_each_token_of_a_sequence_is_attended_from_once(ranks: int) -> None:
    bounds, length = [0, 5, 6, 20, 48], 48 // (2 * ranks)
    seen: list[int] = []
    for rank in range(ranks):
        chunks = (rank, 2 * ranks - 1 - rank)
        here = 0
        for part in segments(bounds, chunks, length):
            assert part.begin == here
            here = part.end
            # It ends where it ends in the sequence, and begins with its document.
            assert part.first in bounds
            assert part.end - part.begin <= part.last - part.first
            seen += range(part.last - (part.end - part.begin), part.last)
        assert here == 2 * length
    assert sorted(seen) == list(range(48))


@slow
@patient
@pytest.mark.parametrize("peft", [None, {"dim": 4, "alpha": 8}], ids=["full", "lora"])
def test_shared_sequences_of_packed_documents_train_as_whole_ones(
    peft: dict[str, Any] | None, trained: Trained, chat_file: Path
) -> None:
    check = {"path_or_dataset_id": str(chat_file), "split": "train[:5]"}
    tables = {**PACKED, "peft": peft, "validation_dataset": check}
    alone = trained(1, **tables)
    trained(2, **tables, distributed={"cp_size": 2}).assert_equals(alone)
    trained(4, **tables, distributed={"cp_size": 4}).assert_equals(alone)


@slow
@patient
@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gemma2"])
def test_shared_sequences_of_other_architectures_train_as_whole_ones(
    kind: str, models_of: Callable[[str], Path], trained: Trained
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    tables = {**PACKED, "model": model}
    shared = trained(2, **tables, distributed={"cp_size": 2})
    shared.assert_equals(trained(1, **tables))


@slow
@patient
def test_rows_that_are_not_packed_share_their_sequence_too(trained: Trained) -> None:
    tables = {"step_scheduler": STEPS}
    trained(2, **tables, distributed={"cp_size": 2}).assert_equals(trained(1, **tables))
