"""LoRA on a model of the shape of Llama 3.1 8B, on one GPU, beside TRL's SFTTrainer.

    python benchmarks/gpu_lora.py [--steps 12] [--rounds 2] [--micro 1] [--compile]
    python benchmarks/gpu_lora.py --tiny --device cpu      # tries the whole of it, anywhere

Tokens per second, the share of the card's peak (MFU), and peak memory, in bfloat16 on packs of
4,096 tokens, with random weights: nothing is downloaded. Both sides load the same file, put
adapters of the same rank on the same layers, and train on the same packs in the same order, at a
constant rate, with fused AdamW, clipping at 1, no dropout and no activation checkpointing. Each
training is a process of its own, and the two take turns. TRL reads its loss once at the end, as
ours does, so that neither waits for the GPU within a step; the first steps, in which kernels are
set up, are left out.

TRL is given flash attention where that package is installed, and else the kernel that ours uses,
which torch carries: TRL hands it the boundaries of the documents as well. What it took is printed.

The roofline is the rate of this card's products, measured in the same run on matrices of the sizes
of the model, over the arithmetic that a token takes: 4 operations for each frozen weight, 6 for
each of the adapter's, the head for supervised tokens alone, and attention within documents.

Needs a GPU, 16 GB on the disk, and `pip install trl==1.16.0`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_roofline import measure
from llama_8b import LLAMA_8B, TINY, write

WARM_UP = 3
RANK, ALPHA = 16, 32
SEED, RATE = 7, 1e-4
GOAL, PUBLISHED = 14_000, 12_473


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        device: `cuda` or `cpu`.
        tiny: a model of two small layers.
        length: tokens of a pack.
        batch: packs of a step.
        micro: packs of a forward pass.
        steps: of each training, the warm-up among them.
        trl_attention: by transformers' name.
    """

    device: str
    tiny: bool
    length: int
    batch: int
    micro: int
    steps: int
    trl_attention: str

    @property
    def rows(self) -> int:
        """Rows that fill all packs of a training; those made here have 150 tokens or more."""
        return self.batch * self.steps * self.length // 100 + 1


def main() -> int:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two small layers, packs of 512")
    parser.add_argument("--steps", type=int, default=12, help="of each training")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--length", type=int, help="tokens of a pack (4096)")
    parser.add_argument("--batch", type=int, default=8, help="packs of a step")
    parser.add_argument("--micro", type=int, default=1, help="packs of a forward pass")
    parser.add_argument("--compile", action="store_true", help="ours with compiled blocks as well")
    parser.add_argument("--only", choices=("tunedeck", "trl"), help="one of the two")
    parser.add_argument("--trl-attention", help="by transformers' name; see above")
    parser.add_argument("--work", type=Path, help="folder for model and rows; kept if given")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps <= WARM_UP:
        parser.error(f"--steps: {WARM_UP} are warm-up, take more")
    if options.batch % options.micro:
        parser.error("--batch has to be a multiple of --micro")
    if problem := missing(options.device, trl=options.only != "tunedeck"):
        sys.stderr.write(f"gpu_lora: error: {problem}\n")
        return 2
    case = Case(
        options.device,
        options.tiny,
        options.length or (512 if options.tiny else 4096),
        options.batch,
        options.micro,
        options.steps,
        options.trl_attention or best_attention(options.device),
    )
    if options.side:
        print(json.dumps(SIDES[options.side](options.work, case)))
        return 0
    sides = [options.only] if options.only else ["tunedeck", "trl"]
    if options.compile and "tunedeck" in sides:
        sides.insert(1, "compiled")
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        run_side("prepare", work, options)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                runs[side].append(run_side(side, work, options))
        report(case, runs, run_side("roofline", work, options))
    return 0


def missing(device: str, *, trl: bool) -> str | None:
    """What the comparison cannot do without."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "there is no GPU that torch can use; --tiny --device cpu tries the rest"
    if trl and importlib.util.find_spec("trl") is None:
        return "TRL is not installed: pip install trl==1.16.0, or --only tunedeck"
    return None


def best_attention(device: str) -> str:
    """The fastest attention over documents that TRL can be given here."""
    from transformers.utils.import_utils import (
        is_flash_attn_2_available,
        is_flash_attn_3_available,
    )

    if device == "cuda" and is_flash_attn_3_available():
        return "flash_attention_3"
    if device == "cuda" and is_flash_attn_2_available():
        return "flash_attention_2"
    return "documents"


def run_side(side: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One training, or another part of the comparison, in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--work", str(work)]
    for name in ("device", "steps", "length", "batch", "micro", "trl_attention", "only"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--tiny"] if options.tiny else []
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        # One GPU: transformers' trainer would split batches over all it sees.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "TUNEDECK_HOME": str(work / "home"),
    }
    begun = time.perf_counter()
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout[-2000:] + done.stderr[-6000:])
        raise SystemExit(f"gpu_lora: error: {side} ended with {done.returncode}")
    seconds = time.perf_counter() - begun
    print(f"{side}: {seconds:.0f} s in all", file=sys.stderr, flush=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def prepare(work: Path, case: Case) -> dict[str, Any]:
    """Write rows, a tokenizer trained on them, and a new model; a folder that has them is kept."""
    if not (work / "model" / "config.json").is_file():
        write(work, TINY if case.tiny else LLAMA_8B, device=case.device, rows=case.rows, seed=SEED)
    return {}


class Clock:
    """Times the steps after the warm-up, waiting for the device only where it starts and ends."""

    def __init__(self, case: Case) -> None:
        self._case, self._marks = case, dict[int, float]()
        self.losses: list[Any] = []
        self.tokens: list[int] = []
        self.flops: list[int] = []
        self.steps = 0

    def step(self) -> None:
        """A step was taken."""
        self.steps += 1
        if self.steps in (WARM_UP, self._case.steps):
            self.wait()
            self._marks[self.steps] = time.perf_counter()

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self._case.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def result(self, start: str) -> dict[str, Any]:
        """What is compared."""
        return {
            "start": start,
            "seconds": self._marks[self._case.steps] - self._marks[WARM_UP],
            "losses": [float(loss) for loss in self.losses],
            "tokens": self.tokens,
            "flops": self.flops,
            "peak": self._peak(),
        }

    def _peak(self) -> float:
        if self._case.device == "cuda":
            import torch

            return torch.cuda.max_memory_allocated() / 2**30
        (line,) = (
            x for x in Path("/proc/self/status").read_text().split("\n") if x.startswith("VmHWM")
        )
        return int(line.split()[1]) / 2**20


def digest_of(model: Any) -> str:
    """Stands for the adapter at the start, whatever the model is wrapped in."""
    content = hashlib.sha256()
    trained = {n.split("layers.")[-1]: p for n, p in model.named_parameters() if p.requires_grad}
    for name in sorted(trained):
        content.update(trained[name].detach().float().cpu().numpy().tobytes())
    return content.hexdigest()


def train_tunedeck(work: Path, case: Case, *, compiled: bool = False) -> dict[str, Any]:
    """Our side: the recipe as it is, with a clock around its step."""
    from tunedeck.core.schema import TrainConfig
    from tunedeck.trainer import sft, stepping
    from tunedeck.trainer.model import compilation

    config = TrainConfig.model_validate(
        {
            "model": {
                "pretrained_model_name_or_path": str(work / "model"),
                "torch_dtype": "bfloat16",
            },
            "dataset": {
                "path_or_dataset_id": str(work / "rows.jsonl"),
                "seq_length": case.length,
            },
            "packed_sequence": {"packed_sequence_size": case.length},
            "dataloader": {"shuffle": False},
            "step_scheduler": {
                "global_batch_size": case.batch,
                "local_batch_size": case.micro,
                "max_steps": case.steps,
                "log_every_steps": case.steps,
            },
            "optimizer": {"lr": RATE, "weight_decay": 0.0, "max_grad_norm": 1.0},
            "peft": {"dim": RANK, "alpha": ALPHA, "match_all_linear": True},
            "rng": {"seed": SEED},
            "compile": {"enabled": compiled},
            "checkpoint": {"enabled": False},
        }
    )
    clock, start = Clock(case), ""
    module: Any = stepping
    original = module.train_step
    if compiled:
        compilation._WORTH_STEPS = 0

    def timed(loss_sum: Any, optimizer: Any, batches: Any, **options: Any) -> Any:
        nonlocal start
        start = start or digest_of(loss_sum._model)
        result = original(loss_sum, optimizer, batches, **options)
        clock.losses.append(result.loss)
        clock.tokens.append(result.tokens)
        clock.flops.append(result.flops)
        clock.step()
        return result

    module.train_step = timed
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        sft.main(config, Path(folder))
    return clock.result(start)


def packed(work: Path, case: Case) -> Iterator[dict[str, list[int]]]:
    """The very packs that ours trains on, as TRL takes them."""
    import numpy as np

    from tunedeck.core.chat import open_chat_tokenizer, to_messages, tokenize_chat
    from tunedeck.trainer.data.packing import Packs

    chat, rows = open_chat_tokenizer(work / "model"), []
    for line in (work / "rows.jsonl").read_text().splitlines():
        tokens = tokenize_chat(chat, to_messages(json.loads(line)), seq_length=case.length)
        pairs = zip(tokens.input_ids, tokens.trained, strict=True)
        rows.append((list(tokens.input_ids), [t if trained else -100 for t, trained in pairs]))
    packs = Packs(np.array([len(ids) for ids, _ in rows]), [len(rows)], case.length)
    for index in range(case.steps * case.batch):
        chosen = [rows[number] for number in packs[index]]
        yield {
            "input_ids": [token for ids, _ in chosen for token in ids],
            "labels": [label for _, labels in chosen for label in labels],
            "seq_lengths": [len(ids) for ids, _ in chosen],
        }


def train_trl(work: Path, case: Case) -> dict[str, Any]:
    """Their side."""
    import datasets
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    if case.trl_attention == "documents":
        importlib.import_module("tunedeck.trainer.model.attention")
    rows = datasets.Dataset.from_list(list(packed(work, case)))
    model: Any = AutoModelForCausalLM.from_pretrained(
        work / "model", dtype=torch.bfloat16, attn_implementation=case.trl_attention
    )
    model.to(case.device)
    torch.manual_seed(SEED)
    adapter = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, adapter)
    start, clock = digest_of(model), Clock(case)
    clock.tokens = [
        sum(len(ids) for ids in rows[at : at + case.batch]["input_ids"])
        for at in range(0, len(rows), case.batch)
    ]

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

        def training_step(self, *inputs: Any, **options: Any) -> Any:
            theirs: Any = super()
            loss = theirs.training_step(*inputs, **options)
            if len(clock.losses) == clock.steps:
                clock.losses.append(torch.zeros((), device=loss.device))
            clock.losses[-1] += loss
            return loss

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        settings = SFTConfig(
            output_dir=folder,
            max_steps=case.steps,
            per_device_train_batch_size=case.micro,
            gradient_accumulation_steps=case.batch // case.micro,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            logging_steps=case.steps,
            # It would wait for the GPU in each micro-batch.
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            bf16=True,
            gradient_checkpointing=False,
            use_cpu=case.device == "cpu",
            max_length=case.length,
            packing=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            disable_tqdm=True,
            seed=SEED,
        )
        InOrder(
            model=model,
            args=settings,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(work / "model"),
            callbacks=[Steps()],
        ).train()
    return clock.result(start)


def roofline(_work: Path, case: Case) -> dict[str, Any]:
    """What the card multiplies: the best of the model's own shapes and a large one."""
    sizes = TINY if case.tiny else LLAMA_8B
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    rows = case.micro * case.length
    shapes = [(rows, width, width), (rows, width, inner), (rows, inner, width)]
    shapes += [] if case.tiny else [(8192, 8192, 8192)]
    found: dict[str, Any] = measure(case.device, shapes)
    return found


def report(case: Case, runs: dict[str, list[dict[str, Any]]], card: dict[str, Any]) -> None:
    """Print what was found."""
    model = "a tiny Llama" if case.tiny else "the shape of Llama 3.1 8B"
    print(f"\nLoRA of rank {RANK} on all linear layers of {model}, bfloat16, {card['card']}")
    print(f"  torch {card['torch']}; {case.steps - WARM_UP} steps of {case.batch} packs of")
    print(f"  {case.length} tokens after {WARM_UP} of warm-up, {case.micro} at a time")
    if "trl" in runs:
        own = case.trl_attention == "documents"
        beside = " (torch's kernel, as ours: flash-attn is not installed)" if own else ""
        print(f"  TRL's attention: {case.trl_attention}{beside}")
    every = [run for found in runs.values() for run in found]
    if len({run["start"] for run in every}) > 1:
        print("  WARNING: the adapters did not start from the same bits")
    tokens, flops = (max(sum(run[key][WARM_UP:]) for run in every) for key in ("tokens", "flops"))
    if any(run["tokens"] != every[0]["tokens"] for run in every):
        print("  WARNING: the two did not train on the same packs")
    speeds = {side: tokens / min(run["seconds"] for run in found) for side, found in runs.items()}
    peaks = {side: min(run["peak"] for run in found) for side, found in runs.items()}
    rows = [("tokens per second", speeds, ",.0f"), ("peak memory, GiB", peaks, ".2f")]
    if flops:
        used = {side: flops / tokens * speed for side, speed in speeds.items()}
        rows.append(("TFLOP/s", {side: rate / 1e12 for side, rate in used.items()}, ".3f"))
        share = {side: rate / card["rate"] for side, rate in used.items()}
        rows.append(("share of the measured product rate", share, ".1%"))
        if card["peak"]:
            share = {side: rate / card["peak"] for side, rate in used.items()}
            rows.append(("share of the data sheet's rate (MFU)", share, ".1%"))
    print(f"\n  {'':<38}" + "".join(f"{side:>12}" for side in runs))
    for label, values, form in rows:
        print(f"  {label:<38}" + "".join(f"{values[side]:>12{form}}" for side in runs))
    print()
    for side in runs.keys() - {"trl"} if "trl" in runs else ():
        losses = runs[side][0]["losses"], runs["trl"][0]["losses"]
        apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
        faster, room = speeds[side] / speeds["trl"], peaks[side] / peaks["trl"]
        print(f"  {side} over TRL: {faster:.2f} times the tokens, {room:.2f} of the memory;")
        print(f"    losses of a step differ by {apart:.1e} at the most")
    if flops:
        each = flops / tokens
        print(f"  The card multiplies {card['rate'] / 1e12:.2f} TFLOP/s, and a token takes")
        print(f"  {each / 1e9:.4f} GFLOP: at most {card['rate'] / each:,.0f} tokens/s.")
    if case.tiny or case.device == "cpu":
        print("  This was a trial of the benchmark: its speeds mean nothing.")
    else:
        print(f"  Goal on an H100: {GOAL:,} tokens/s; Automodel publishes {PUBLISHED:,}.")


SIDES: dict[str, Any] = {
    "prepare": prepare,
    "tunedeck": train_tunedeck,
    "compiled": lambda work, case: train_tunedeck(work, case, compiled=True),
    "trl": train_trl,
    "roofline": roofline,
}

if __name__ == "__main__":
    sys.exit(main())
