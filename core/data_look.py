"""A look at a run's data before it is launched: every row counted, some of them token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .chat import check_dataset, data_findings, inspect_rows, open_chat_tokenizer
from .models import local_model_dir

if TYPE_CHECKING:
    from .chat import ChatTokenizer, DataReport, InspectedRow
    from .findings import Finding

_ROWS = 20


@dataclass(frozen=True, slots=True)
class DataLook:
    """What a data set looks like to the run.

    Attributes:
        report: every row, counted.
        findings: what there is to say of it; errors block a launch.
        rows: the first rows, token by token; none where the tokenizer is not on this machine.
    """

    report: DataReport
    findings: tuple[Finding, ...]
    rows: tuple[InspectedRow, ...]


def look_at_data(config: Mapping[str, Any], table: str = "dataset") -> DataLook:
    """Look at a resolved training config's data as the trainer will.

    Args:
        config: the values that `compose` gave.
        table: `dataset` or `validation_dataset`.

    Raises:
        UsageError: if the files cannot be found, or the template is unusable.
    """
    options = config[table]
    spec = options["path_or_dataset_id"]
    shape = {key: options[key] for key in ("split", "seq_length", "mask")}
    tokenizer = tokenizer_of(config)
    report = check_dataset(spec, tokenizer, truncation=options["truncation"], **shape)
    rows = () if tokenizer is None else tuple(inspect_rows(spec, tokenizer, limit=_ROWS, **shape))
    return DataLook(report, tuple(data_findings(report, table)), rows)


def tokenizer_of(config: Mapping[str, Any]) -> ChatTokenizer | None:
    """A training config's tokenizer where its files are on this machine, else None."""
    options = config.get("tokenizer") or {}
    name = options.get("name") or config["model"].get("pretrained_model_name_or_path")
    folder = local_model_dir(name) if name else None
    if folder is None:
        return None
    template = {"chat_template": options["chat_template"]} if "chat_template" in options else {}
    return open_chat_tokenizer(
        folder, **template, chat_template_kwargs=options.get("chat_template_kwargs") or {}
    )
