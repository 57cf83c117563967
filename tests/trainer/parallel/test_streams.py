"""Rows that are read while training, on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .runs import LOSS, Run, pytest_approx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {
    "global_batch_size": 8,
    "local_batch_size": 2,
    "max_steps": 6,
    "ckpt_every_steps": 3,
}
PACKED = {"packed_sequence": {"packed_sequence_size": 128}}


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("packed", [{}, PACKED], ids=["rows", "packed"])
def test_a_stream_is_shared_and_continued_by_another_number_of_ranks(
    packed: dict[str, Any], ahead: int, trained: Trained, chat_file: Path
) -> None:
    """With a row that cannot be read, and into the second pass over the rows."""
    with chat_file.open("a") as file:
        file.write("{\n")
    tables = {
        **packed,
        "dataset": {"streaming": True},
        "step_scheduler": STEPS,
        "dataloader": {"num_workers": ahead},
        "peft": {"dim": 4, "alpha": 8},
    }
    keep = {"keep_last": None}
    alone = trained(1, **tables, checkpoint=keep)
    two = trained(2, **tables, checkpoint=keep)
    two.assert_equals(alone)
    expected = [pytest_approx(value, LOSS) for value in alone.values("loss")[3:]]
    for ranks, whole in ((1, two), (2, alone), (4, two)):
        restore = {"restore_from": str(whole.folder / "checkpoints/step_000003")}
        rest = trained(ranks, name=f"rest_{ranks}", **tables, checkpoint=restore)
        assert rest.values("loss") == expected
        assert rest.values("epoch") == alone.values("epoch")[3:]


def test_ranks_that_share_sequences_read_the_same_rows(trained: Trained) -> None:
    tables = {**PACKED, "dataset": {"streaming": True}, "step_scheduler": STEPS}
    mesh = {"cp_size": 2}
    trained(4, **tables, distributed=mesh).assert_equals(trained(1, **tables))
