"""What a run continues from, as torch's distributed checkpoints hold it: tensors by name.

`model.NAME` is a weight that the run changes, `optimizer.NAME.KEY` what the optimizer keeps of it,
`random.RANK.DEVICE` the state of a rank's generator. A name and a whole tensor's shape are the same
on every mesh, so that a run continues on another one.
https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.optim import Optimizer

from ...core.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STATE_FOLDER = "state"
"""Below a checkpoint: all that a run continues from. What lies beside it is to be used."""
_MODEL, _OPTIMIZER, _RANDOM = "model.", "optimizer.", "random."


def weights_of(model: PreTrainedModel, *, adapter: bool) -> dict[str, Tensor]:
    """The weights that a checkpoint holds, each once: of an adapter those that are trained.

    They share their memory with the model.
    """
    if adapter:
        return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    tied = model.all_tied_weights_keys
    return {n: t for n, t in model.state_dict().items() if n not in tied}


def collect(
    weights: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    random: Mapping[str, Tensor],
    rank: int,
) -> dict[str, Any]:
    """This rank's part of the state, without copies.

    Args:
        weights: from `weights_of`.
        model: names the optimizer's parameters.
        optimizer: over parameters of the model.
        random: generator states of this rank.
        rank: this process.
    """
    state: dict[str, Any] = {f"{_MODEL}{name}": tensor for name, tensor in weights.items()}
    for name, parameter in _optimized(model, optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{_OPTIMIZER}{name}.{key}"] = value
    state.update({f"{_RANDOM}{rank}.{device}": value for device, value in random.items()})
    return state


class SavedState:
    """The training state of a checkpoint.

    Args:
        folder: the checkpoint.

    Raises:
        OSError: there is no state in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = _Reader(folder / STATE_FOLDER)
        self._entries = self._reader.read_metadata().state_dict_metadata
        # Each rank reads its own pieces, and torch remarks on it whenever it reads them.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)

    def whole(self, name: str) -> Tensor:
        """A weight as a whole, on the CPU, put together from all ranks' pieces."""
        entry = self._entries[f"{_MODEL}{name}"]
        assert isinstance(entry, TensorStorageMetadata)
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        self._read({f"{_MODEL}{name}": tensor})
        return tensor

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put this rank's pieces into weights of the same names and shapes.

        Raises:
            UsageError: the checkpoint holds other weights.
        """
        wanted = {f"{_MODEL}{name}": tensor for name, tensor in weights.items()}
        saved = {key for key in self._entries if key.startswith(_MODEL)}
        other = sorted(wanted.keys() ^ saved)
        if other:
            there = "has" if other[0] in saved else "lacks"
            self._misfit(f"{there} the weight {other[0].removeprefix(_MODEL)}")
        for key, tensor in wanted.items():
            entry = self._entries[key]
            assert isinstance(entry, TensorStorageMetadata)
            if entry.size != tensor.shape:
                self._misfit(
                    f"has {key.removeprefix(_MODEL)} in the shape {list(entry.size)}, which here "
                    f"is {list(tensor.shape)}"
                )
        self._read(wanted)

    def load_optimizer(self, optimizer: Optimizer, model: nn.Module) -> None:
        """Give an optimizer over the same parameters the state that was saved.

        Raises:
            UsageError: the checkpoint is of other parameters.
        """
        by_name = dict(_optimized(model, optimizer))
        wanted: dict[str, Any] = {}
        owners: dict[str, tuple[str, str]] = {}
        for key, entry in self._entries.items():
            if not key.startswith(_OPTIMIZER):
                continue
            name, _, field = key.removeprefix(_OPTIMIZER).rpartition(".")
            if name not in by_name:
                self._misfit(f"has an optimizer state of {name}, which is not trained here")
            owners[key] = name, field
            if not isinstance(entry, TensorStorageMetadata):
                wanted[key] = None
            elif entry.size == by_name[name].shape:
                wanted[key] = torch.empty_like(by_name[name], dtype=entry.properties.dtype)
            else:
                wanted[key] = torch.empty(entry.size, dtype=entry.properties.dtype)
        self._read(wanted)
        states: dict[str, dict[str, Any]] = {}
        for key, (name, field) in owners.items():
            value = wanted[key]
            states.setdefault(name, {})[field] = (
                value.detach() if isinstance(value, Tensor) else value
            )
        numbered = {name: index for index, name in enumerate(by_name)}
        optimizer.load_state_dict(
            {
                "state": {numbered[name]: state for name, state in states.items()},
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )

    def random(self, rank: int) -> dict[str, Tensor] | None:
        """The generator states of a rank; None if it was not there."""
        prefix = f"{_RANDOM}{rank}."
        found: dict[str, Any] = {}
        for key, entry in self._entries.items():
            if key.startswith(prefix):
                assert isinstance(entry, TensorStorageMetadata)
                found[key] = torch.empty(entry.size, dtype=entry.properties.dtype)
        self._read(found)
        return {key.removeprefix(prefix): value for key, value in found.items()} or None

    def _read(self, state: dict[str, Any]) -> None:
        if state:
            load_shards(state, storage_reader=self._reader, no_dist=True)

    def _misfit(self, what: str) -> None:
        raise UsageError(
            f"The checkpoint '{self.folder}' {what}.",
            fix="Resume with the model, peft, freeze and optimizer that it was saved with.",
        )


class _Reader(FileSystemReader):
    """Reads the table of contents once, not with each tensor."""

    _metadata: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        if self._metadata is None:
            self._metadata = super().read_metadata(*args, **kwargs)
        return self._metadata


def _optimized(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's parameters by name, in its own order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[id(parameter)], parameter
