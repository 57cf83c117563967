"""Where AutoModel's configs keep a value in another place than ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOVED = (
    (("clip_grad_norm", "max_norm"), ("optimizer", "max_grad_norm")),
    (("seed",), ("rng", "seed")),
    (("dataset", "tokenizer", "pretrained_model_name_or_path"), ("tokenizer", "name")),
    (("dataset", "chat_template"), ("tokenizer", "chat_template")),
)
"""Their path → ours. Ours wins where both are set."""

_LIMITS = ("limit_dataset_samples", "num_samples_limit")


def in_our_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """A whole config with AutoModel's values where ours keeps them; others are left as they are.

    The tokenizer and template of both datasets become the run's own where they agree; where they
    do not, they stay, to be refused by name.
    """
    moved = dict(data)
    for theirs, ours in _MOVED:
        value = _get(moved, theirs)
        if value is None:
            continue
        table = moved.get(ours[0])
        if table is None or isinstance(table, Mapping):
            moved[ours[0]] = {ours[1]: value, **(table or {})}
            if theirs[0] != "dataset":
                moved.pop(theirs[0])
    for name in ("dataset", "validation_dataset"):
        if isinstance(moved.get(name), Mapping):
            moved[name] = _without_tokenizer(moved, moved[name])
    return moved


def sliced(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's table with a limit on its rows as a slice of its split."""
    limit = next((dataset[key] for key in _LIMITS if isinstance(dataset.get(key), int)), None)
    split = dataset.get("split") or "train"
    if limit is None or "[" in str(split):
        return dict(dataset)
    rest = {key: value for key, value in dataset.items() if key not in _LIMITS}
    return {**rest, "split": f"{split}[:{limit}]"}


def _get(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _without_tokenizer(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    name = _get(dataset, ("tokenizer", "pretrained_model_name_or_path"))
    model = _get(config, ("model", "pretrained_model_name_or_path"))
    settled = {
        "tokenizer": name is not None and name in (_get(config, ("tokenizer", "name")), model),
        "chat_template": dataset.get("chat_template")
        == _get(config, ("tokenizer", "chat_template")),
    }
    return {key: value for key, value in dataset.items() if not settled.get(key, False)}
