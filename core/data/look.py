"""A look at a run's data before it is launched: every row counted, some of them token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..chat import check_dataset, data_findings, inspect_rows, open_chat_tokenizer
from ..chat.check import DEFAULT_LIMIT
from ..errors import UsageError
from ..models import local_model_dir, longest_row

if TYPE_CHECKING:
    from ..chat import ChatTokenizer, DataReport, InspectedRow
    from ..findings import Finding

_ROWS = 20


@dataclass(frozen=True, slots=True)
class Batches:
    """How rows become batches, as far as padding goes.

    Attributes:
        step: rows of a step, which are sorted by length.
        size: rows, or packed sequences, of one forward pass.
        packed: tokens of a packed sequence; 0 where nothing is packed.
    """

    step: int
    size: int
    packed: int = 0


@dataclass(frozen=True, slots=True)
class DataLook:
    """What a data set looks like to the run.

    Attributes:
        report: every row, counted.
        findings: what there is to say of it; errors block a launch.
        rows: the first rows, token by token; none where the tokenizer is not on this machine.
        batches: the batches that the config makes of it.
        padding: the share of padding in these batches; None without a tokenizer.
    """

    report: DataReport
    findings: tuple[Finding, ...]
    rows: tuple[InspectedRow, ...]
    batches: Batches
    padding: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.report.to_json(batch_size=self.batches.size),
            "padding": {
                "global_batch_size": self.batches.step,
                "local_batch_size": self.batches.size,
                "packed_sequence_size": self.batches.packed,
                "share": self.padding,
            },
            "findings": [finding.to_json() for finding in self.findings],
            "inspected": [row.to_json() for row in self.rows],
        }


def look_at_data(
    config: Mapping[str, Any],
    table: str = "dataset",
    *,
    rows: int = _ROWS,
    limit: int | None = DEFAULT_LIMIT,
) -> DataLook:
    """Look at a resolved training config's data as the trainer will.

    Args:
        config: the values that `compose` gave.
        table: `dataset` or `validation_dataset`.
        rows: how many are taken token by token.
        limit: how many are counted; None counts all.

    Raises:
        UsageError: if the files cannot be found, or the template is unusable.
    """
    options = config[table]
    if not isinstance(options, Mapping) or "mask" not in options:
        raise UsageError(
            "This config is another trainer's: what that makes of its data is not known here.",
            fix="Look at the data with a step of Tunedeck's: tunedeck data look data_prep/inspect",
        )
    spec = options["path_or_dataset_id"]
    shape = {
        **{key: options[key] for key in ("split", "mask")},
        "seq_length": longest_row(config, table),
    }
    tokenizer = tokenizer_of(config)
    report = check_dataset(spec, tokenizer, truncation=options["truncation"], limit=limit, **shape)
    shown = () if tokenizer is None else tuple(inspect_rows(spec, tokenizer, limit=rows, **shape))
    batches = _batches(config)
    padding = None
    if tokenizer is not None:
        padding = (
            report.packed_padding_share(batches.packed)
            if batches.packed
            else report.padding_share(batches.size, sorted_within=batches.step)
        )
    return DataLook(report, tuple(data_findings(report, table)), shown, batches, padding)


def _batches(config: Mapping[str, Any]) -> Batches:
    plan = config.get("step_scheduler") or {}
    packed = (config.get("packed_sequence") or {}).get("packed_sequence_size") or 0
    size = int(plan.get("local_batch_size") or 1)
    return Batches(int(plan.get("global_batch_size") or size), size, int(packed))


def tokenizer_of(config: Mapping[str, Any]) -> ChatTokenizer | None:
    """A training config's tokenizer where its files are on this machine, else None."""
    options = config.get("tokenizer") or {}
    model = config.get("model") or {}
    name = options.get("name") or model.get("pretrained_model_name_or_path")
    folder = local_model_dir(name) if name else None
    if folder is None:
        return None
    template = {"chat_template": options["chat_template"]} if "chat_template" in options else {}
    return open_chat_tokenizer(
        folder, **template, chat_template_kwargs=options.get("chat_template_kwargs") or {}
    )
