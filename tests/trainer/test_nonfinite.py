from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tunedeck.core.errors import TunedeckError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import loop, sft
from tunedeck.trainer.__main__ import main
from tunedeck.trainer.reporting.ledger import read_ledger
from tunedeck.trainer.reporting.quarantine import read_quarantine
from tunedeck.trainer.reporting.replay_step import replay
from tunedeck.trainer.update.finite import UpdateGuard
from tunedeck.trainer.update.pending import Settled

from .helpers import losses, rows, write_rows

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8, "dropout": 0.1}
POISON = "~"


@pytest.fixture
def poisoned(llama: Path, tmp_path: Path) -> Path:
    """A model that no row with a `~` gets through, whatever else it learns."""
    folder = tmp_path / "poisoned"
    shutil.copytree(llama, folder)
    weights = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weights["model.embed_tokens.weight"][vocabulary[POISON]] = math.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def bad_rows(tmp_path: Path) -> Path:
    """Rows of which the eleventh holds the poison: step 3 of 4 rows each, in file order."""
    content = rows(24)
    content[10]["messages"][0]["content"] += POISON
    return write_rows(tmp_path / "bad.jsonl", content)


def diverging(configure: Configure, poisoned: Path, bad_rows: Path, **tables: Any) -> TrainConfig:
    return configure(
        model={"pretrained_model_name_or_path": str(poisoned)},
        dataset={"path_or_dataset_id": str(bad_rows)},
        dataloader={"shuffle": False},
        **tables,
    )


@pytest.mark.parametrize("peft", [None, LORA])
def test_a_step_that_is_not_finite_is_kept_and_comes_to_the_same_again(
    peft: Any,
    configure: Configure,
    poisoned: Path,
    bad_rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(TunedeckError) as caught:
        sft.main(diverging(configure, poisoned, bad_rows, peft=peft), tmp_path)
    assert "Step 3 is not finite: loss nan" in caught.value.message
    assert f"{bad_rows}:11" in caught.value.message
    assert len(losses(capsys.readouterr().out)) == 2
    folder = tmp_path / "nonfinite_step_000003"
    assert str(folder) in caught.value.fix
    assert main(["replay-step", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "a weight that is not finite before the step: model.embed_tokens.weight" in said
    assert "first output that is not finite: model.embed_tokens" in said
    assert said.count("not finite\n") == 1
    assert main(["replay-step", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert "Loading" not in printed.err
    found = json.loads(printed.out, parse_constant=pytest.fail)  # JSON knows no NaN
    assert found["same"] is True
    bad = [part for part in found["parts"] if part["loss"] is None]
    assert len(bad) == 1
    assert 10 in bad[0]["rows"]


def test_a_step_of_several_sources_is_repeated_as_well(
    configure: Configure, poisoned: Path, bad_rows: Path, chat_file: Path, tmp_path: Path
) -> None:
    parts = [{"path": str(chat_file)}, {"path": str(bad_rows)}]
    config = configure(
        model={"pretrained_model_name_or_path": str(poisoned)},
        dataset={"path_or_dataset_id": parts},
        step_scheduler={"max_steps": 12},
    )
    with pytest.raises(TunedeckError, match="is not finite"):
        sft.main(config, tmp_path)
    (folder,) = tmp_path.glob("nonfinite_step_*")
    assert main(["replay-step", str(folder)]) == 0


def test_a_step_that_comes_to_something_else_again_ends_with_1(
    configure: Configure,
    poisoned: Path,
    bad_rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(TunedeckError):
        sft.main(diverging(configure, poisoned, bad_rows), tmp_path)
    folder = tmp_path / "nonfinite_step_000003"
    (weights,) = folder.glob("weights/step_000002/model.safetensors")
    healed = {name: tensor.nan_to_num(0, 0, 0) for name, tensor in load_file(weights).items()}
    save_file(healed, weights, metadata={"format": "pt"})
    shutil.rmtree(weights.parent / "state")
    assert main(["replay-step", str(folder)]) == 1
    assert "does not come to the same" in capsys.readouterr().out


@pytest.mark.parametrize("late", [False, True])
def test_what_is_read_late_leaves_the_weights_as_they_were_all_the_same(
    late: bool,
    configure: Configure,
    poisoned: Path,
    bad_rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, whose numbers are read once a log interval, after further steps."""

    class Late(loop.TrainingLoop):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._settles_each_step = not late

    monkeypatch.setattr(sft, "TrainingLoop", Late)
    steps = {"log_every_steps": 5, "max_steps": 5}
    with pytest.raises(TunedeckError, match="Step 3 is not finite"):
        sft.main(diverging(configure, poisoned, bad_rows, step_scheduler=steps), tmp_path)
    kept = tmp_path / "nonfinite_step_000003/weights/step_000002"
    good = tmp_path / "good"
    config = diverging(configure, poisoned, bad_rows, step_scheduler={"max_steps": 2})
    constant = {"step_scheduler": config.step_scheduler}
    assert sft.main(config.model_copy(update=constant), good) == 0
    expected = load_file(good / "checkpoints/latest/model.safetensors")
    found = load_file(kept / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [entry.step for entry in read_ledger(tmp_path)] == [1, 2]


def test_a_folder_without_a_step_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay-step", str(tmp_path)]) == 2
    (tmp_path / "step.pt").write_bytes(b"PK\x03\x04 torn")
    assert main(["replay-step", str(tmp_path)]) == 2
    assert "holds no step" in capsys.readouterr().err


class Plain(torch.optim.SGD):
    """An optimizer that knows nothing of the flag."""


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
        lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
        lambda p: Plain(p, lr=0.1),
    ],
)
@pytest.mark.parametrize("bad", [(math.nan, 1.0), (1.0, math.inf), (-math.inf, math.nan)])
def test_no_optimizer_updates_from_the_first_step_on_that_is_not_finite(
    make: Any, bad: tuple[float, float]
) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make([parameter])
    guard = UpdateGuard(optimizer, torch.device("cpu"))

    def step(loss: float, norm: float) -> torch.Tensor:
        parameter.grad = torch.full((3,), norm)
        guard.step(torch.tensor(loss), torch.tensor(norm))
        return parameter.detach().clone()

    first = step(1.0, 1.0)
    assert not torch.equal(first, torch.ones(3))
    state = {k: v.clone() for k, v in optimizer.state[parameter].items()}
    assert torch.equal(step(*bad), first)
    assert torch.equal(step(1.0, 1.0), first)
    after = optimizer.state[parameter]
    assert all(torch.equal(after[name], value) for name, value in state.items())


def test_what_was_dropped_at_random_is_dropped_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the numbers of a step that is called bad: where there is no number, all are the same."""
    update, calls = UpdateGuard.step, 0

    def shut(self: Any, loss: torch.Tensor, norm: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        update(self, loss * math.nan if calls == 3 else loss, norm)

    monkeypatch.setattr(UpdateGuard, "step", shut)
    monkeypatch.setattr(Settled, "finite", property(lambda self: self.taken.step != 3))
    with pytest.raises(TunedeckError, match="Step 3"):
        sft.main(configure(peft=LORA | {"dropout": 0.5}), tmp_path)
    kept = read_quarantine(tmp_path / "nonfinite_step_000003")
    found = replay(kept, tmp_path)
    assert found.found == pytest.approx((kept.loss, kept.grad_norm), rel=1e-6)
