"""The trainer beside TRL's SFTTrainer: losses, tokens per CPU-second, wall time and peak memory.

    python benchmarks/trainer_vs_trl.py [--data FILE] [--rounds 3] [--steps N] [--case NAME …]

Both train the same Llama from the same bits (the adapter's too) on the same rows in the same
order: float32, no dropout, a constant rate, clipping at 1, TRL's gradient checkpointing and bf16
off. Packed rows lie in the same packs on both sides. Each training is a process of its own with
one thread; the two take turns, so that a machine that slows down slows both. Speed counts real
tokens, not padding, over the steps after the warm-up, and the best round of each side is compared.
Needs `pip install trl==1.16.0`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

WARM_UP = 2
RANK, ALPHA = 8, 32
SEED, RATE, LENGTH, PACK = 7, 1e-3, 512, 1024
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        model: the size of the model.
        packed: rows share sequences of `PACK` tokens.
        batch: rows, or packs, of one step.
        micro: rows, or packs, of one forward pass.
        steps: of one training.
        goal: tokens per CPU-second, over those of TRL.
    """

    model: str
    packed: bool
    batch: int
    micro: int
    steps: int
    goal: float

    @property
    def rows(self) -> int:
        """Rows of the data that are trained on, or from which packs are made."""
        return self.batch * self.steps * (PACK // 64 if self.packed else 1)


CASES = {
    "padded-1.3M": Case("1.3M", False, 16, 8, 12, 2.5),
    "packed-1.3M": Case("1.3M", True, 4, 1, 10, 3.0),
    "packed-13M": Case("13M", True, 2, 1, 6, 2.8),
    "packed-101M": Case("101M", True, 1, 1, 4, 2.2),
}
SIZES: dict[str, dict[str, Any]] = {
    "1.3M": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "heads": (4, 2)},
    "13M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 7, "heads": (6, 2)},
    "101M": {
        "hidden_size": 768,
        "intermediate_size": 1984,
        "num_hidden_layers": 16,
        "heads": (12, 4),
    },
}


def main() -> None:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="chat JSONL; by default rows are made up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps of each training")
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--only", choices=("lora", "full"), help="one of the two")
    parser.add_argument("--side", choices=("tunedeck", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lora", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = {name: CASES[name] for name in options.case}
    if options.steps:
        cases = {name: replace(case, steps=options.steps) for name, case in cases.items()}
    if options.side:
        side = {"tunedeck": train_tunedeck, "trl": train_trl}[options.side]
        (case,) = cases.values()
        print(json.dumps(side(options.work, case, options.lora)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options.data, {case.model for case in cases.values()})
        for name, case in cases.items():
            for kind in ("lora", "full"):
                if options.only in (None, kind):
                    compare(work, name, case, kind, options.rounds)


def compare(work: Path, name: str, case: Case, kind: str, rounds: int) -> None:
    """Let both sides train in turn, and print what came of it."""
    runs: dict[str, list[dict[str, Any]]] = {"tunedeck": [], "trl": []}
    for _ in range(rounds):
        for side, done in runs.items():
            done.append(run_side(side, work, name, case, kind))
    ours, theirs = runs["tunedeck"][0], runs["trl"][0]
    assert ours["start"] == theirs["start"], "the two start from different weights"
    assert ours["tokens"] == theirs["tokens"], "the two train on different rows"
    pairs = zip(ours["losses"], theirs["losses"], strict=True)
    apart = max(abs(a - b) for a, b in pairs)
    unit = f"packs of {PACK}" if case.packed else "rows"
    print(f"\n{name}, {kind}: {case.steps} steps of {case.batch} {unit}, {case.micro} at a time")
    print(f"  loss {ours['losses'][0]:.6f} to {ours['losses'][-1]:.6f}; largest difference")
    print(f"  of a step {apart:.1e} (goal: at most 1e-05)")
    rows = (
        (f"tokens per CPU-second (goal {case.goal})", "per_cpu", max, "higher"),
        ("tokens per second", "per_wall", max, "higher"),
        ("peak memory, MiB (goal 0.8)", "peak", min, "lower"),
        ("CPU-seconds to the first step (goal 1)", "first", min, "lower"),
    )
    print(f"  {'':<40}{'tunedeck':>10}{'trl':>10}{'ratio':>8}")
    for label, key, best, better in rows:
        mine, other = (best(run[key] for run in runs[side]) for side in ("tunedeck", "trl"))
        ratio = mine / other
        print(f"  {label:<40}{mine:>10.1f}{other:>10.1f}{ratio:>8.2f}  ({better} is better)")


def run_side(side: str, work: Path, name: str, case: Case, kind: str) -> dict[str, Any]:
    """One training in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--work", str(work), "--case", name]
    command += ["--steps", str(case.steps), *(["--lora"] if kind == "lora" else [])]
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


def prepare(work: Path, data: Path | None, sizes: Iterable[str]) -> None:
    """Write rows, and new models of some sizes with a tokenizer trained on the rows."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    lines = data.read_text().strip().split("\n") if data else list(made_up_rows(2000))
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
    for size in sizes:
        torch.manual_seed(SEED)
        shape = dict(SIZES[size])
        heads, groups = shape.pop("heads")
        config = LlamaConfig(
            vocab_size=4000,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            max_position_embeddings=PACK,
            tie_word_embeddings=True,
            pad_token_id=wrapped.pad_token_id,
            eos_token_id=wrapped.eos_token_id,
            bos_token_id=None,
            **shape,
        )
        LlamaForCausalLM(config).save_pretrained(work / size)
        wrapped.save_pretrained(work / size)


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
            "peak": peak_mib(),
            "first": self._marks[0][0],
        }


def peak_mib() -> float:
    """The most memory of this process; getrusage would count what its parent had at the fork."""
    (line,) = (x for x in Path("/proc/self/status").read_text().split("\n") if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def digest_of(parameters: dict[str, Any]) -> str:
    """Stands for the trained weights at the start, whatever the model is wrapped in."""
    content = hashlib.sha256()
    for name in sorted(parameters, key=lambda name: name.split("layers.")[-1]):
        content.update(parameters[name].detach().numpy().tobytes())
    return content.hexdigest()


def train_tunedeck(work: Path, case: Case, lora: bool) -> dict[str, Any]:
    """Our side: the recipe as it is, with a clock around its step."""
    from tunedeck.core.schema import TrainConfig
    from tunedeck.trainer import sft

    config = TrainConfig.model_validate(
        {
            "model": {"pretrained_model_name_or_path": str(work / case.model)},
            "dataset": {
                "path_or_dataset_id": str(work / "rows.jsonl"),
                "split": f"train[:{case.rows}]",
                "seq_length": LENGTH,
            },
            "packed_sequence": {"packed_sequence_size": PACK if case.packed else 0},
            "dataloader": {"shuffle": False},
            "step_scheduler": {
                "global_batch_size": case.batch,
                "local_batch_size": case.micro,
                "max_steps": case.steps,
                "log_every_steps": 1,
            },
            "optimizer": {"lr": RATE, "weight_decay": 0.0, "max_grad_norm": 1.0},
            "peft": {"dim": RANK, "alpha": ALPHA} if lora else None,
            "rng": {"seed": SEED},
            "checkpoint": {"enabled": False},
        }
    )
    clock, start = Clock(), ""
    module: Any = importlib.import_module("tunedeck.trainer.stepping")
    original = module.train_step

    def timed(loss_sum: Any, optimizer: Any, *rest: Any, **options: Any) -> Any:
        nonlocal start
        model = loss_sum._model
        start = start or digest_of(trained(model))
        result = original(loss_sum, optimizer, *rest, **options)
        clock.losses.append(float(result.loss))
        clock.tokens.append(result.tokens)
        clock.step()
        return result

    module.train_step = timed
    with tempfile.TemporaryDirectory() as folder:
        sft.main(config, Path(folder))
    return clock.result(start)


def trained(model: Any) -> dict[str, Any]:
    """The trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def tokenized(work: Path, case: Case) -> list[dict[str, list[int]]]:
    """The very tokens and labels that ours trains on, packed as they are there."""
    import numpy as np

    from tunedeck.core.chat import open_chat_tokenizer, to_messages, tokenize_chat
    from tunedeck.trainer.data.packing import Packs

    chat = open_chat_tokenizer(work / case.model)
    rows = []
    with (work / "rows.jsonl").open() as lines:
        for line in islice(lines, case.rows):
            tokens = tokenize_chat(chat, to_messages(json.loads(line)), seq_length=LENGTH)
            labels = [
                token if trained else -100
                for token, trained in zip(tokens.input_ids, tokens.trained, strict=True)
            ]
            rows.append({"input_ids": list(tokens.input_ids), "labels": labels})
    if not case.packed:
        return rows
    packs = Packs(np.array([len(row["input_ids"]) for row in rows]), [len(rows)], PACK)
    return [
        {
            "input_ids": [token for n in packs[index] for token in rows[n]["input_ids"]],
            "labels": [label for n in packs[index] for label in rows[n]["labels"]],
            "seq_lengths": [len(rows[n]["input_ids"]) for n in packs[index]],
        }
        for index in range(case.steps * case.batch)
    ]


def train_trl(work: Path, case: Case, lora: bool) -> dict[str, Any]:
    """Their side."""
    import datasets
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows = tokenized(work, case)
    model: Any = AutoModelForCausalLM.from_pretrained(work / case.model, dtype=torch.float32)
    if lora:
        torch.manual_seed(SEED)
        adapter = peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, adapter)
    start = digest_of(trained(model))
    clock = Clock()
    clock.tokens = [
        sum(len(row["input_ids"]) for row in rows[at : at + case.batch])
        for at in range(0, len(rows), case.batch)
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
            max_steps=case.steps,
            per_device_train_batch_size=case.micro,
            gradient_accumulation_steps=case.batch // case.micro,
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
            max_length=PACK if case.packed else LENGTH,
            packing=case.packed,
            dataset_kwargs={"skip_prepare_dataset": True},
            disable_tqdm=True,
            seed=SEED,
        )
        InOrder(
            model=model,
            args=settings,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(work / case.model),
            callbacks=[Steps()],
        ).train()
    return clock.result(start)


if __name__ == "__main__":
    main()
