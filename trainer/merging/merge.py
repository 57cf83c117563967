"""Recipe `merge_lora`: an adapter and its base become one Hugging Face model.

Weights are read, merged and written one at a time: a model that fills the disk needs the memory of
its largest matrix. Nothing is published until all of it is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ...core.errors import UsageError
from ...core.files import write_atomic
from ...core.schema.merge import MergeConfig
from ..checkpoints.checksums import damage, read_sums
from ..checkpoints.published import flush
from ..checkpoints.safetensors_files import write_model
from ..checkpoints.weights import BASE_FILE
from ..lines import line, say
from ..model.fingerprint import base_digest
from .adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, read_adapter
from .merge_plan import MergePlan, plan_merge
from .probe import merge_difference

_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py"]
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack"}
_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab.*", "merges.txt", "*.model", "*.tiktoken"),
)
_LINKS = ("best", "latest")


def main(config: MergeConfig, run_dir: Path) -> int:
    """Merge, measure what merging changed, and say where the model lies.

    Args:
        config: what to merge.
        run_dir: where `result.json` and, unless the config says otherwise, the model go.

    Returns:
        The exit code: 0. Under torchrun only the first rank works.

    Raises:
        UsageError: the adapter, the base and the output do not go together.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return 0
    cast(Any, transformers.logging).disable_progress_bar()  # they have no place in a log
    folder = find_adapter(config.lora_checkpoint)
    adapter = read_adapter(folder)
    base = find_base(config, adapter)
    output = Path(config.output_hf_path or run_dir / "merged-hf").expanduser().absolute()
    check_output(output, (folder, base))
    plan = plan_merge(adapter, base, config)
    _publish(plan, output, tokenizer=config.save_tokenizer)
    difference = merge_difference(base, folder, output, remote=config.trust_remote_code)
    result: dict[str, Any] = {
        "kind": "model",
        "artifact": str(output),
        "adapter": str(folder),
        "base": str(base),
        "merged_weights": len(adapter.shapes()),
        "logit_difference": None if difference is None else difference.largest,
        "same_next_token": None if difference is None else difference.same_next_token,
    }
    write_atomic(run_dir / "result.json", json.dumps(result, indent=2) + "\n")
    if difference is None:
        say("tunedeck: the logit difference was not measured: the model takes too much memory")
    else:
        measured = {"max": difference.largest, "same_next_token": difference.same_next_token}
        say(f"tunedeck: merged against adapter logits: {line(measured)}")
    say(f"tunedeck: {len(adapter.shapes())} weights merged, the model is in {output}")
    return 0


def find_adapter(path: str) -> Path:
    """The adapter that `lora_checkpoint` means: itself, or a run's best one, else its latest.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    given = Path(path).expanduser()
    folders = (given, *(given / sub / link for sub in ("", "checkpoints") for link in _LINKS))
    for folder in folders:
        if (folder / CONFIG_FILE).is_file():
            return _undamaged(folder.resolve())
    full = next((folder for folder in folders if (folder / "config.json").is_file()), None)
    if full is not None:
        raise UsageError(
            f"lora_checkpoint: '{full}' holds a whole model: {CONFIG_FILE} is missing.",
            fix="There is nothing to merge: that folder loads as it is.",
        )
    raise UsageError(
        f"lora_checkpoint: {CONFIG_FILE} was not found in '{path}'.",
        fix="Give the folder of an adapter or of the run that trained it.",
    )


def _undamaged(folder: Path) -> Path:
    """The adapter's folder, if its files are as they were saved, where that was recorded."""
    recorded = read_sums(folder).keys() & {CONFIG_FILE, WEIGHTS_FILE}
    if (found := damage(folder, sorted(recorded))) is not None:
        raise UsageError(f"lora_checkpoint: {found}", fix="Give another checkpoint of the run.")
    return folder


def find_base(config: MergeConfig, adapter: Adapter) -> Path:
    """The folder of the base, checked against what training recorded.

    Raises:
        UsageError: no base is named, it cannot be found, or the adapter was trained on another.
    """
    file = adapter.folder / BASE_FILE
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    recorded = record.get("base") or adapter.base
    name = config.base_hf_path or recorded
    if name is None:
        raise UsageError(
            "The adapter does not say what it was trained on.",
            fix="Set base_hf_path to the base model.",
        )
    base = _model_folder(name)
    digest = record.get("digest") or _digest_of(recorded, name)
    if digest is None and recorded != name:
        said = f"the adapter names '{recorded}'" if recorded else "the adapter names none"
        say(f"tunedeck: warning: nothing tells whether its base is '{name}': {said}")
    if digest is not None and base_digest(base) != digest:
        raise UsageError(
            f"The adapter does not fit the base '{name}': it was trained on other weights"
            + (f" ('{recorded}')." if recorded != name else " under that name."),
            fix="Set base_hf_path to the very model that it was trained on.",
        )
    return base


def _digest_of(recorded: str | None, name: str) -> str | None:
    """The digest of the model that PEFT recorded, if it is another folder here."""
    folder = Path(recorded or name).expanduser()
    return base_digest(folder) if recorded != name and folder.is_dir() else None


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Raise UsageError if writing `output` would touch an input or anything that is there."""
    there = output.resolve()
    for path in inputs:
        held = path.resolve()
        if there == held or there in held.parents or held in there.parents:
            raise UsageError(
                f"output_hf_path: '{output}' overlaps the input '{path}'.",
                fix="Choose a folder outside the adapter's and the base's.",
            )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"output_hf_path: '{output}' exists and is not empty.",
            fix="Choose a new folder, or move the old one away.",
        )


def _publish(plan: MergePlan, output: Path, *, tokenizer: bool) -> None:
    """Write the model beside `output`, then give it that name."""
    temporary = output.with_name(f".{output.name}.in_progress")
    # What a merge left that was killed.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for file in _companions(plan.base, plan.adapter.folder, tokenizer=tokenizer):
            shutil.copyfile(file, temporary / file.name)
        text = json.dumps(plan.config, indent=2) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        write_model(temporary, plan.entries, plan.produce)
        for file in temporary.iterdir():
            flush(file)
        temporary.replace(output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _companions(base: Path, adapter: Path, *, tokenizer: bool) -> Iterator[Path]:
    """What goes with the weights: the base's other files, the tokenizer as training left it."""
    trained = any(map(_is_tokenizer, adapter.iterdir()))
    for file in sorted(base.iterdir()):
        rest = file.suffix not in _WEIGHTS and not file.name.endswith(".index.json")
        if file.is_file() and rest and file.name != "config.json" and not _is_tokenizer(file):
            yield file
    if tokenizer:
        yield from filter(_is_tokenizer, sorted((adapter if trained else base).iterdir()))


def _is_tokenizer(file: Path) -> bool:
    return file.is_file() and any(file.match(pattern) for pattern in _TOKENIZER)


def _model_folder(name: str) -> Path:
    """The folder of a model: the local one, or the hub's in the cache.

    Raises:
        UsageError: there is none.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder.absolute()
    problem = "it has no config.json" if folder.is_dir() else "there is no such folder"
    if not folder.is_absolute() and not folder.is_dir():
        try:
            return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            problem = str(error).strip().partition("\n")[0]
    raise UsageError(
        f"The base '{name}' was not found: {problem}.",
        fix="Set base_hf_path to a folder saved by save_pretrained, or to a hub id.",
    )
