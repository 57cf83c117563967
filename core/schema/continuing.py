"""What a run's place in its data depends on, and what of it has changed where a run continues.

A checkpoint says how many samples were trained on. On the same rows in the same order that is a
place; after a change it is another place, or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    from .data import DatasetConfig
    from .train import TrainConfig

STATE_FILE = "state/training_state.json"
"""Below a checkpoint: where the run stood. Torch is not needed to read it."""
ROWS = "dataset.path_or_dataset_id"
_UNITS = ("packed_sequence.packed_sequence_size", "dataset.streaming")
"""What decides what a sample is."""
_ORDER = {
    ROWS: "other rows",
    "dataset.split": "other rows",
    "dataset.shuffle": "the rows in another order",
    "dataloader.shuffle": "the rows in another order",
    "rng.seed": "the rows in another order",
    "dataset.seq_length": "rows of other lengths",
    "dataset.truncation": "rows of other lengths",
    "dataset.mask": "other tokens of the rows",
    "step_scheduler.global_batch_size": "steps of another size",
}
"""What decides which sample comes when, and what a change of it means."""


class Change(NamedTuple):
    """A setting that is not what it was when the checkpoint was saved.

    Attributes:
        key: the dotted key.
        refused: whether the run cannot continue so.
        message: what changed, and what comes of it.
        fix: what to do about it.
        value: what `key` was, where setting it mends the change.
    """

    key: str
    refused: bool
    message: str
    fix: str
    value: Any = None


def candidates(path: str) -> tuple[Path, ...]:
    """The folders that `checkpoint.restore_from` may mean, the likeliest first."""
    folder = Path(path).expanduser()
    return folder, folder / "latest", folder / "checkpoints" / "latest"


def data_order(config: TrainConfig) -> dict[str, Any]:
    """All that the order of samples depends on, as plain values by dotted key.

    The rows are stood for by a digest, or by None if they cannot be looked at from here.
    """
    order: dict[str, Any] = {}
    for key in (*_UNITS, *_ORDER):
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        order[key] = value
    return order | {ROWS: _rows(config.dataset)}


def _rows(dataset: DatasetConfig) -> str | None:
    from ..chat import find_sources, parse_split, rows_fingerprint

    path = dataset.path_or_dataset_id
    spec = path if isinstance(path, str) else [part.model_dump() for part in path]
    try:
        sources = find_sources(spec, split=parse_split(dataset.split).name)
        return rows_fingerprint(sources, dataset.revision)
    except (UsageError, OSError):
        return None


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """What of the order of samples has changed.

    Args:
        before: as the checkpoint has it; what it does not say is not judged.
        now: as the config says.
    """
    # Of a stream the rows that were read are counted, however they are packed.
    streamed = before.get("dataset.streaming") and now["dataset.streaming"]
    for key in _UNITS:
        if key in before and before[key] != now[key] and not streamed:
            yield Change(
                key,
                refused=True,
                message=f"It is {_said(now[key])}, and was {_said(before[key])} when the "
                "checkpoint was saved: its place in the data is counted in other samples.",
                fix=f"Set {key}={_said(before[key])} as it was; or begin anew with its weights: "
                "drop checkpoint.restore_from and set model.pretrained_model_name_or_path to the "
                "checkpoint (merge an adapter first).",
                value=before[key],
            )
    for key, meaning in _ORDER.items():
        if key not in before or before[key] == now[key]:
            continue
        if key == ROWS:
            if before[key] is None or now[key] is None:
                continue
            yield Change(
                key,
                refused=False,
                message="The rows are not those that the checkpoint was trained on: some may be "
                "trained on twice and some not at all.",
                fix="Name the same files as before, unchanged.",
            )
            continue
        lost = (
            "the learning rate follows the new number of steps"
            if key == "step_scheduler.global_batch_size"
            else "some may be trained on twice and some not at all"
        )
        yield Change(
            key,
            refused=False,
            message=f"It is {_said(now[key])}, and was {_said(before[key])} when the checkpoint "
            f"was saved: the run continues with {meaning}, and {lost}.",
            fix=f"Set {key}={_said(before[key])} to continue exactly.",
            value=before[key],
        )


def _said(value: Any) -> str:
    """A value as it is written in a config."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
