"""Preparing chat rows beside TRL: rows a CPU-second, read, rendered, masked and tokenized.

    python benchmarks/data_preparation.py [--data FILE] [--rounds 3]

Both read the same JSONL with the same tokenizer and template, train the assistant's tokens only,
and use one process. TRL's side is what its SFTTrainer does to a data set. What the two come to is
compared as well: the same tokens, of which the same are trained. Needs `pip install trl==1.16.0`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

common: Any = importlib.import_module("trainer_vs_trl")

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> None:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="chat JSONL; by default rows are made up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("tunedeck", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        prepare = {"tunedeck": prepare_tunedeck, "trl": prepare_trl}[options.side]
        print(json.dumps(prepare(options.work)))
        return
    runs: dict[str, list[dict[str, Any]]] = {"tunedeck": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        common.TEMPLATE = TEMPLATE
        common.prepare(work, options.data, ["1.3M"])
        for number in range(options.rounds):
            for side, done in runs.items():
                done.append(run_side(side, work, number))
    ours, theirs = runs["tunedeck"][0], runs["trl"][0]
    for key in ("rows", "tokens", "trained"):
        assert ours[key] == theirs[key], f"the two differ in {key}: {ours[key]}, {theirs[key]}"
    print(f"\n{ours['rows']} rows, {ours['tokens']} tokens, {ours['trained']} of them trained")
    print(f"  {'':<40}{'tunedeck':>10}{'trl':>10}{'ratio':>8}")
    for label, key in (("rows per CPU-second (goal 1)", "cpu"), ("rows per second", "wall")):
        mine, other = (
            ours["rows"] / min(run[key] for run in runs[side]) for side in ("tunedeck", "trl")
        )
        print(f"  {label:<40}{mine:>10.0f}{other:>10.0f}{mine / other:>8.2f}  (higher is better)")


def run_side(side: str, work: Path, number: int) -> dict[str, Any]:
    """One preparation in a process of its own, with caches of its own."""
    cache = work / f"{side}-{number}"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache),
        "TUNEDECK_HOME": str(cache),
    }
    command = [sys.executable, __file__, "--side", side, "--work", str(work)]
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(started: tuple[float, float], lengths: list[int], trained: int) -> dict[str, Any]:
    """What is compared."""
    return {
        "cpu": time.process_time() - started[0],
        "wall": time.perf_counter() - started[1],
        "rows": len(lengths),
        "tokens": sum(lengths),
        "trained": trained,
    }


def prepare_tunedeck(work: Path) -> dict[str, Any]:
    """Our side, as a run begins."""
    from tunedeck.core.schema.data import DatasetConfig
    from tunedeck.core.schema.model import TokenizerConfig
    from tunedeck.trainer.data.prepare import prepare
    from tunedeck.trainer.data.tokens import ChatFormat
    from tunedeck.trainer.setup import get_tokenizer

    tokenizer = get_tokenizer(TokenizerConfig(name=str(work / "1.3M")))
    config = DatasetConfig(
        path_or_dataset_id=str(work / "rows.jsonl"), seq_length=common.LENGTH, num_proc=1
    )
    started = time.process_time(), time.perf_counter()
    blend = prepare(config, ChatFormat.of(tokenizer, {}), table="dataset", seed=0)
    return measured(started, blend.rows.lengths().tolist(), blend.supervised)


def prepare_trl(work: Path) -> dict[str, Any]:
    """Their side: the trainer is built on one row, and its preparation is timed on all."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(work / "1.3M")
    row = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant")]}
    settings = SFTConfig(
        output_dir=str(work / "trl"),
        max_length=common.LENGTH,
        assistant_only_loss=True,
        report_to="none",
        bf16=False,
        use_cpu=True,
    )
    trainer: Any = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(work / "1.3M"),
        args=settings,
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=tokenizer,
    )
    started = time.process_time(), time.perf_counter()
    rows = datasets.load_dataset("json", data_files=str(work / "rows.jsonl"), split="train")
    prepared = trainer._prepare_dataset(rows, tokenizer, settings, False, None, "train")
    result = measured(started, [0], 0)
    lengths = [len(ids) for ids in prepared["input_ids"]]
    trained = sum(label != -100 for labels in prepared["labels"] for label in labels[1:])
    return {**result, "rows": len(lengths), "tokens": sum(lengths), "trained": trained}


if __name__ == "__main__":
    main()
