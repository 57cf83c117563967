"""The trainer beside TRL's SFTTrainer: losses, tokens per CPU-second, wall time and peak memory.

    python benchmarks/trainer_vs_trl.py [--data FILE] [--rounds 3] [--steps 12]

Both train the same 1.3 M Llama from the same bits (the adapter's too) on the same rows in the same
order: float32, no dropout, a constant rate, clipping at 1, TRL's gradient checkpointing and bf16
off. Each training is a process of its own with one thread; the two take turns, so that a machine
that slows down slows both. Speed counts real tokens, not padding, over the steps after the
warm-up, and the best round of each side is compared. Needs `pip install trl==1.16.0`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WARM_UP = 3
ROWS, MICRO = 16, 8
RANK, ALPHA = 8, 32
SEED, RATE, LENGTH = 7, 1e-3, 512
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> None:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="chat JSONL; by default rows are made up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--side", choices=("tunedeck", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lora", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = {"tunedeck": train_tunedeck, "trl": train_trl}[options.side]
        print(json.dumps(side(options.work, options.lora, options.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options.data)
        for lora in (True, False):
            compare(work, lora, options.rounds, options.steps)


def compare(work: Path, lora: bool, rounds: int, steps: int) -> None:
    """Let both sides train in turn, and print what came of it."""
    runs: dict[str, list[dict[str, Any]]] = {"tunedeck": [], "trl": []}
    for _ in range(rounds):
        for side, done in runs.items():
            done.append(run_side(side, work, lora, steps))
    ours, theirs = runs["tunedeck"][0], runs["trl"][0]
    assert ours["start"] == theirs["start"], "the two start from different weights"
    assert ours["tokens"] == theirs["tokens"], "the two train on different rows"
    pairs = zip(ours["losses"], theirs["losses"], strict=True)
    apart = max(abs(a - b) for a, b in pairs)
    print(f"\n{'LoRA' if lora else 'full'}, 1.3 M Llama, padded, {steps} steps of {ROWS} rows")
    print(f"  loss {ours['losses'][0]:.6f} to {ours['losses'][-1]:.6f}; largest difference")
    print(f"  of a step {apart:.1e} (goal: at most 1e-05)")
    rows = (
        ("tokens per CPU-second", "per_cpu", max, "higher"),
        ("tokens per second", "per_wall", max, "higher"),
        ("peak memory, MiB", "peak", min, "lower"),
        ("CPU-seconds to the first step", "first", min, "lower"),
    )
    print(f"  {'':<32}{'tunedeck':>10}{'trl':>10}{'ratio':>8}")
    for name, key, best, better in rows:
        mine, other = (best(run[key] for run in runs[side]) for side in ("tunedeck", "trl"))
        print(f"  {name:<32}{mine:>10.1f}{other:>10.1f}{mine / other:>8.2f}  ({better} is better)")


def run_side(side: str, work: Path, lora: bool, steps: int) -> dict[str, Any]:
    """One training in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--work", str(work)]
    command += ["--steps", str(steps), *(["--lora"] if lora else [])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TUNEDECK_HOME": str(work / "home"),
    }
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def prepare(work: Path, data: Path | None) -> None:
    """Write rows, a tokenizer trained on them, and a new model."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    lines = data.read_text().strip().split("\n") if data else list(made_up_rows(1000))
    (work / "rows.jsonl").write_text("\n".join(lines) + "\n")
    text = (m["content"] for line in lines for m in json.loads(line)["messages"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=4000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = TEMPLATE
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=4000,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        pad_token_id=wrapped.pad_token_id,
        eos_token_id=wrapped.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(work / "model")
    wrapped.save_pretrained(work / "model")


def made_up_rows(count: int) -> Iterator[str]:
    """Conversations of arithmetic in words, of about the lengths of GSM8K."""
    draw = random.Random(SEED)
    for _ in range(count):
        numbers = [draw.randint(2, 99) for _ in range(draw.randint(4, 16))]
        story = " ".join(f"Then {n} more boxes arrive at the market." for n in numbers)
        total, told = 0, []
        for n in numbers:
            told.append(f"{total} + {n} = {total + n}, so there are {total + n} boxes now.")
            total += n
        messages = [
            {"role": "user", "content": f"{story} How many boxes are there?"},
            {"role": "assistant", "content": "\n".join([*told, f"#### {total}"])},
        ]
        yield json.dumps({"messages": messages})


class Clock:
    """Process and wall time at the end of each step, and the loss of each."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.tokens: list[int] = []
        self._marks: list[tuple[float, float]] = []

    def step(self) -> None:
        """A step is done."""
        self._marks.append((time.process_time(), time.perf_counter()))

    def result(self, start: str) -> dict[str, Any]:
        """What is compared."""
        (cpu0, wall0), (cpu1, wall1) = self._marks[WARM_UP - 1], self._marks[-1]
        tokens = sum(self.tokens[WARM_UP:])
        return {
            "start": start,
            "losses": self.losses,
            "tokens": self.tokens,
            "per_cpu": tokens / (cpu1 - cpu0),
            "per_wall": tokens / (wall1 - wall0),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "first": self._marks[0][0],
        }


def digest_of(parameters: dict[str, Any]) -> str:
    """Stands for the trained weights at the start, whatever the model is wrapped in."""
    content = hashlib.sha256()
    for name in sorted(parameters, key=lambda name: name.split("layers.")[-1]):
        content.update(parameters[name].detach().numpy().tobytes())
    return content.hexdigest()


def train_tunedeck(work: Path, lora: bool, steps: int) -> dict[str, Any]:
    """Our side: the recipe as it is, with a clock around its step."""
    from tunedeck.core.schema import TrainConfig
    from tunedeck.trainer import sft

    config = TrainConfig.model_validate(
        {
            "model": {"pretrained_model_name_or_path": str(work / "model")},
            "dataset": {
                "path_or_dataset_id": str(work / "rows.jsonl"),
                "split": f"train[:{steps * ROWS}]",
                "seq_length": LENGTH,
            },
            "dataloader": {"shuffle": False},
            "step_scheduler": {
                "global_batch_size": ROWS,
                "local_batch_size": MICRO,
                "max_steps": steps,
                "log_every_steps": 1,
            },
            "optimizer": {"lr": RATE, "weight_decay": 0.0, "max_grad_norm": 1.0},
            "peft": {"dim": RANK, "alpha": ALPHA} if lora else None,
            "rng": {"seed": SEED},
            "checkpoint": {"enabled": False},
        }
    )
    clock, start = Clock(), ""
    loop: Any = importlib.import_module("tunedeck.trainer.loop")
    original = loop.train_step

    def timed(loss_sum: Any, optimizer: Any, *rest: Any, **options: Any) -> Any:
        nonlocal start
        model = loss_sum._model
        start = start or digest_of(trained(model))
        result = original(loss_sum, optimizer, *rest, **options)
        clock.losses.append(result.loss)
        clock.tokens.append(result.tokens)
        clock.step()
        return result

    loop.train_step = timed
    with tempfile.TemporaryDirectory() as folder:
        sft.main(config, Path(folder))
    return clock.result(start)


def trained(model: Any) -> dict[str, Any]:
    """The trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_trl(work: Path, lora: bool, steps: int) -> dict[str, Any]:
    """Their side, on the very tokens and labels that ours trains on."""
    import datasets
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from tunedeck.core.chat import open_chat_tokenizer, to_messages, tokenize_chat

    chat = open_chat_tokenizer(work / "model")
    with (work / "rows.jsonl").open() as lines:
        wanted = [json.loads(next(lines)) for _ in range(steps * ROWS)]
    rows = []
    for row in wanted:
        tokens = tokenize_chat(chat, to_messages(row), seq_length=LENGTH)
        labels = [
            token if trained else -100
            for token, trained in zip(tokens.input_ids, tokens.trained, strict=True)
        ]
        rows.append({"input_ids": tokens.input_ids, "labels": labels})
    model: Any = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    if lora:
        torch.manual_seed(SEED)
        adapter = peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, adapter)
    start = digest_of(trained(model))
    clock = Clock()
    clock.tokens = [
        sum(len(row["input_ids"]) for row in rows[at : at + ROWS])
        for at in range(0, len(rows), ROWS)
    ]

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(range(len(rows)))

        def training_step(self, *inputs: Any, **options: Any) -> Any:
            theirs: Any = super()
            loss = theirs.training_step(*inputs, **options)
            if len(clock.losses) == self.state.global_step:
                clock.losses.append(0.0)
            clock.losses[-1] += loss.item()
            return loss

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=MICRO,
            gradient_accumulation_steps=ROWS // MICRO,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            max_length=LENGTH,
            dataset_kwargs={"skip_prepare_dataset": True},
            disable_tqdm=True,
            seed=SEED,
        )
        InOrder(
            model=model,
            args=settings,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(work / "model"),
            callbacks=[Steps()],
        ).train()
    return clock.result(start)


if __name__ == "__main__":
    main()
