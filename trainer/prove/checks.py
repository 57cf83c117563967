"""The claims, one function each, over one cut of model and data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor

from ...core.errors import TunedeckError, UsageError
from ...core.schema import TrainConfig
from ..checkpoints.published import Checkpoints
from ..data.assemble import TrainingRows, training_rows
from ..data.batches import Batch, Layout
from ..data.tokens import ChatFormat
from ..model.kinds import loader_of
from ..model.tokenizer import tokenizer_of
from ..parallel.gradients import total_norm
from ..reporting.digests import weights_digest
from ..reporting.ledger import Entry
from ..runtime import ModelAndOptimizerState
from ..setup import (
    setup_distributed,
    setup_model_and_optimizer,
    validate_and_prepare_config,
)
from ..update.loss import SupervisedLoss
from .check import LOGIT, LOSS, NORM, Check, Delta
from .cut import BATCH, STEPS, changed
from .runs import apart, merged_difference, run_here, run_on_ranks, silence

_PROBE = 64


class Proof:
    """Tries every claim; later ones use what earlier ones ran.

    Args:
        config: over the cut model and rows.
        dropout: of the person's own config, with which a resume is tried.
        folder: takes the runs.
    """

    def __init__(self, config: TrainConfig, dropout: float, folder: Path) -> None:
        self._config, self._dropout, self._folder = config, dropout, folder
        self._plain: list[Entry] = []
        self._live = torch.empty(0)
        self._trained: list[str] = []
        self._weights = ""

    def checks(self) -> Iterator[Check]:
        """Each claim as it is tried.

        Raises:
            TunedeckError: the run that all others are compared with cannot be made.
        """
        with silence():
            self._plain = run_here(self._config, self._folder / "plain", self._look)
        for claim, work in CLAIMS.items():
            yield self._try(claim, work)

    def _try(self, claim: str, work: Callable[[Proof], tuple[Delta, ...] | str]) -> Check:
        started = time.perf_counter()
        try:
            with silence():
                found = work(self)
        except TunedeckError as error:
            return Check(claim, failed=str(error), seconds=time.perf_counter() - started)
        seconds = time.perf_counter() - started
        if isinstance(found, str):
            return Check(claim, skipped=found, seconds=seconds)
        return Check(claim, found, seconds=seconds)

    def _look(self, state: ModelAndOptimizerState) -> None:
        """Keep what the trained model is and says, while it is there."""
        self._live = _logits(state.model)
        weights = dict(state.model.named_parameters())
        self._trained = [name for name, weight in weights.items() if weight.requires_grad]
        self._weights = weights_digest((name, weights[name]) for name in self._trained)

    def _packed(self) -> tuple[Delta, ...] | str:
        config = changed(self._config, {"packed_sequence": {"packed_sequence_size": 1 << 16}})
        try:
            runtime = validate_and_prepare_config(config, None, rank=0)
        except UsageError as error:
            return error.message
        tokenizer = tokenizer_of(config)
        chat_format = ChatFormat.of(tokenizer, config.tokenizer.chat_template_kwargs)
        data = training_rows(config, chat_format, chat_format.open(), runtime)
        state = setup_model_and_optimizer(
            config,
            tokenizer,
            runtime,
            setup_distributed(config, runtime),
            Checkpoints(self._folder, keep_last=None),
            init_optimizer=False,
        )
        if len(data.rows) == 1:
            return "there is one row"
        pad = data.layout.pad
        numbers = list(range(min(len(data.rows), 2 * BATCH)))
        one_line = [_batch(data, numbers, Layout(pad, in_line=True))]
        alone = [_batch(data, [number], Layout(pad)) for number in numbers]
        loss_sum = SupervisedLoss(state.model)
        packed, apart_ = (_gradient(loss_sum, state, b, runtime.device) for b in (one_line, alone))
        return (
            Delta("loss", abs(packed[0] - apart_[0]), LOSS),
            Delta("norm", abs(packed[1] - apart_[1]) / max(apart_[1], 1e-12), NORM),
        )

    def _accumulated(self) -> tuple[Delta, ...]:
        config = changed(self._config, {"step_scheduler": {"local_batch_size": 1}})
        return apart(self._plain, run_here(config, self._folder / "accumulated"), steps=STEPS)

    def _on_ranks(self) -> tuple[Delta, ...]:
        config = changed(self._config, {"step_scheduler": {"local_batch_size": BATCH // 2}})
        gpus = torch.cuda.device_count() >= 2
        plain = self._plain
        if torch.cuda.is_available() and not gpus:
            # Two processes on the CPU are compared with one on the CPU.
            plain = run_on_ranks(self._config, self._folder / "one_rank", 1, gpus=False)
        found = run_on_ranks(config, self._folder / "two_ranks", 2, gpus=gpus)
        return apart(plain, found, steps=STEPS)

    def _saved(self) -> tuple[Delta, ...]:
        checkpoint = self._folder / "plain/checkpoints/latest"
        base = str(self._config.model.pretrained_model_name_or_path)
        runtime = validate_and_prepare_config(self._config, None, rank=0)
        loader = loader_of(runtime.kind)
        options: dict[str, Any] = {
            "dtype": torch.float32,
            "trust_remote_code": self._config.model.trust_remote_code,
        }
        if self._config.peft is None:
            whole = model = loader.from_pretrained(checkpoint, **options)
        else:
            whole = loader.from_pretrained(base, **options)
            model = peft.PeftModel.from_pretrained(whole, str(checkpoint))
        found = _logits(model.to(runtime.device))
        # What little was learned in a few steps may not be seen in what the model says.
        weights = dict(whole.named_parameters())
        loaded = weights_digest((n, weights[n]) for n in self._trained if n in weights)
        return (
            Delta("logits", (found - self._live).abs().max().item(), LOGIT),
            Delta("weights", float(loaded != self._weights), 0.0),
        )

    def _merged(self) -> tuple[Delta, ...] | str:
        if self._config.peft is None:
            return "no adapter is trained"
        base = Path(str(self._config.model.pretrained_model_name_or_path))
        checkpoint = (self._folder / "plain/checkpoints/latest").resolve()
        return (
            Delta("logits", merged_difference(checkpoint, base, self._folder / "merge"), LOGIT),
        )

    def _resumed(self) -> tuple[Delta, ...]:
        config, whole, name = self._config, self._plain, "plain"
        if self._dropout and config.peft is not None:
            # What is drawn at random has to go on as well.
            config = changed(config, {"peft": {"dropout": self._dropout}})
            name = "with_dropout"
            whole = run_here(config, self._folder / name)
        restored = self._folder / name / f"checkpoints/step_{STEPS // 2:06d}"
        config = changed(config, {"checkpoint": {"restore_from": str(restored)}})
        rest = run_here(config, self._folder / "resumed")
        exact = not torch.cuda.is_available()
        return apart(whole, rest, steps=STEPS - STEPS // 2, exact=exact)


CLAIMS: dict[str, Callable[[Proof], tuple[Delta, ...] | str]] = {
    "packed = unpacked": Proof._packed,
    "accumulation = big batch": Proof._accumulated,
    "2 ranks = 1": Proof._on_ranks,
    "saved = live": Proof._saved,
    "merged = adapter": Proof._merged,
    "resume = uninterrupted": Proof._resumed,
}
"""What tries each claim, in this order; a text says why a claim has no meaning here."""


def _batch(data: TrainingRows, numbers: list[int], layout: Layout) -> Batch:
    return layout.batch([data.rows[number] for number in numbers], numbers, len(numbers))


def _gradient(
    loss_sum: SupervisedLoss,
    state: ModelAndOptimizerState,
    batches: list[Batch],
    device: torch.device,
) -> tuple[float, float]:
    """The mean loss over all targets of some batches, and the norm of its gradient."""
    state.model.zero_grad()
    count = sum(batch.targets.numel() for batch in batches)
    total = 0.0
    for batch in batches:
        loss = loss_sum(batch, device) / count
        loss.backward()
        total += loss.item()
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    return total, total_norm(gradients).item()


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    """What a model says to a fixed row of tokens, [1, tokens, vocabulary] on the CPU."""
    size = model.config.get_text_config().vocab_size
    ids = torch.randint(size, (1, _PROBE), generator=torch.Generator().manual_seed(0))
    was_training = model.training
    model.eval()
    logits: Tensor = model(input_ids=ids.to(model.device), use_cache=False).logits
    model.train(was_training)
    return logits.float().cpu()
