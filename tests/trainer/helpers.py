"""Tiny architectures, rows of sums, and the lines of a run."""

from __future__ import annotations

import json
import random
import shlex
import time
from pathlib import Path
from typing import Any

from tunedeck.trainer.checkpoints.checksums import read_sums

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": None,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "mistral": {"sliding_window": 16},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "qwen3_moe": {
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 32,
    },
    "qwen2": {},
    "phi3": {},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sums in words, of different lengths."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        numbers = [draw.randint(1, 99) for _ in range(draw.randint(2, 6))]
        asked = " + ".join(map(str, numbers))
        made.append(
            {
                "messages": [
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": str(sum(numbers))},
                ]
            }
        )
    return made


def write_rows(file: Path, content: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    return file


def metric_lines(printed: str, key: str = "loss") -> list[dict[str, str]]:
    """The logfmt lines that hold a key."""
    lines = []
    for line in printed.splitlines():
        pairs = [word.split("=", 1) for word in shlex.split(line) if "=" in word]
        values = {pair[0]: pair[1] for pair in pairs}
        if key in values:
            lines.append(values)
    return lines


def wait_until_it_listens(pid: int, number: int) -> None:
    """Wait until a process has a handler for a signal."""
    until = time.monotonic() + 60
    listens = 0
    while not listens >> (number - 1) & 1:
        assert time.monotonic() < until
        time.sleep(0.01)
        status = Path(f"/proc/{pid}/status").read_text()
        listens = int(next(line for line in status.splitlines() if "SigCgt" in line).split()[1], 16)


def losses(printed: str) -> list[str]:
    return [values["loss"] for values in metric_lines(printed)]


def saved(run_dir: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return run_dir / "checkpoints" / f"step_{step:06d}"


def digests(folder: Path, suffix: str = ".safetensors") -> dict[str, str]:
    """The recorded digests of a checkpoint's weights."""
    return {name: digest for name, digest in read_sums(folder).items() if name.endswith(suffix)}
