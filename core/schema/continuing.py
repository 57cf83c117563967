"""What a run's place in its data depends on, and what of it has changed where a run continues.

A checkpoint says how many samples were trained on. On the same rows in the same order that is a
place; after a change it is another place, or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    from .data import DatasetConfig
    from .train import TrainConfig

STATE_FILE = "state/training_state.json"
"""Below a checkpoint: where the run stood. Torch is not needed to read it."""
ROWS, TEMPLATE = "dataset.path_or_dataset_id", "tokenizer.chat_template"
_UNITS = ("packed_sequence.packed_sequence_size", "dataset.streaming")
"""What decides what a sample is."""
_SHIFTED = "and some may be trained on twice and some not at all"
_ORDER = {
    ROWS: f"other rows, {_SHIFTED}",
    "dataset.split": f"other rows, {_SHIFTED}",
    "dataset.shuffle": f"the rows in another order, {_SHIFTED}",
    "dataloader.shuffle": f"the rows in another order, {_SHIFTED}",
    "rng.seed": f"the rows in another order, {_SHIFTED}",
    "dataset.seq_length": f"rows of other lengths, {_SHIFTED}",
    "dataset.truncation": f"rows of other lengths, {_SHIFTED}",
    "dataset.mask": "other tokens of the rows",
    TEMPLATE: "conversations rendered in another way",
    "tokenizer.chat_template_kwargs": "conversations rendered in another way",
    "step_scheduler.global_batch_size": "steps of another size, and the learning rate follows "
    "their new number",
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


_STOOD_FOR = {
    ROWS: Change(
        ROWS,
        refused=False,
        message="The rows are not those that the checkpoint was trained on: some may be trained on "
        "twice and some not at all.",
        fix="Name the same files as before, unchanged.",
    ),
    TEMPLATE: Change(
        TEMPLATE,
        refused=False,
        message="The chat template is not the one that the checkpoint was trained with: the run "
        f"continues with {_ORDER[TEMPLATE]}.",
        fix="Set it to the checkpoint's own chat_template.jinja to continue exactly.",
    ),
}
"""What is recorded as a digest, which says nothing to a person, or as None."""


def candidates(path: str) -> tuple[Path, ...]:
    """The folders that `checkpoint.restore_from` may mean, the likeliest first."""
    folder = Path(path).expanduser()
    return folder, folder / "latest", folder / "checkpoints" / "latest"


def data_order(
    config: TrainConfig, templates: str | Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All that the order of samples depends on, as plain values by dotted key.

    The rows and the chat template are stood for by a digest, or by None if they cannot be looked at
    from here.

    Args:
        config: of the run.
        templates: the tokenizer's, one or several by name, if it is at hand.
    """
    order: dict[str, Any] = {}
    for key in (*_UNITS, *_ORDER):
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        order[key] = value
    return order | {ROWS: _rows(config.dataset), TEMPLATE: _template(config, templates)}


def _template(config: TrainConfig, templates: str | Mapping[str, str] | None) -> str | None:
    from ..chat import folder_templates, resolve_templates

    if templates is None:
        model = config.model
        name = config.tokenizer.name or model.pretrained_model_name_or_path or model.config
        try:
            own = folder_templates(Path(name).expanduser()) if isinstance(name, str) else {}
            templates = resolve_templates(config.tokenizer.chat_template, own)
        except UsageError:
            return None
    by_name = {"default": templates} if isinstance(templates, str) else dict(templates)
    return hashlib.sha256(json.dumps(by_name, sort_keys=True).encode()).hexdigest()


def _rows(dataset: DatasetConfig) -> str | None:
    from ..chat import rows_fingerprint

    try:
        return rows_fingerprint(dataset.sources(), dataset.revision)
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
        if key in _STOOD_FOR:
            if before[key] is not None and now[key] is not None:
                yield _STOOD_FOR[key]
            continue
        yield Change(
            key,
            refused=False,
            message=f"It is {_said(now[key])}, and was {_said(before[key])} when the checkpoint "
            f"was saved: the run continues with {meaning}.",
            fix=f"Set {key}={_said(before[key])} to continue exactly.",
            value=before[key],
        )


def _said(value: Any) -> str:
    """A value as it is written in a config."""
    return str(value) if isinstance(value, str) else json.dumps(value)
