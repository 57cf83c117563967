"""Pre-trains the base model that ships with the package: a Llama of a million parameters.

It reads sums, short stories with their sum in the margin, and a chat in which bare sums are asked:
enough to know numbers and words, with questions about stories left for fine-tuning. Takes about ten
minutes of one core. Every run reaches the same quality, which it prints; the bytes depend on the
machine. The tokenizer and the dataset must be there (`make_tokenizer.py`, `make_data.py`).

    python scripts/assets/make_model.py [--output FOLDER] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from make_data import OUTPUT as DATASET
from make_tokenizer import END_OF_TEXT, MAX_LENGTH, OUTPUT, SPECIAL
from stories import STATEMENTS, Problem, every_problem, tell
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

STEPS = 2400
WARM_UP = 100
ROWS, ROW_LENGTH = 16, 128
RATE = 3e-3
SEED = 22
LARGEST_FILE = 4_000_000
LOG_EVERY = 100
ASKED = 200
PROBLEMS = every_problem()


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="holds the tokenizer")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.output, padding_side="left")
    torch.manual_seed(SEED)
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters")
    pretrain(model, tokenizer, options.steps)
    model.eval()
    sums = ((f"What is {problem.sum}?", solved(problem)) for problem in asked_sums())
    print(f"sums asked in chat: {exact(model, tokenizer, sums):.0%} right")
    print(f"the dataset's validation rows: {exact(model, tokenizer, questions()):.0%} right")
    model.save_pretrained(options.output)
    weights = options.output / "model.safetensors"
    weights.chmod(0o644)
    size = weights.stat().st_size
    assert size <= LARGEST_FILE, f"{size:,} bytes are too many for the package"
    print(f"{options.output}: {size:,} bytes")


def new_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama with random weights, float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, steps: int) -> None:
    """Train on fresh text in every step: AdamW, a warm-up, then a cosine down to nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    started = time.monotonic()
    for step, ids in zip(range(1, steps + 1), batches(tokenizer), strict=False):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % LOG_EVERY == 0:
            seconds = time.monotonic() - started
            print(f"step={step} loss={loss.item():.4f} seconds={seconds:.0f}", flush=True)


def batches(tokenizer: PreTrainedTokenizerBase) -> Iterator[torch.Tensor]:
    """Token ids [ROWS, ROW_LENGTH], int64; a row begins with a document and is filled with more."""
    rng = random.Random(SEED)
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    while True:
        rows = []
        for _ in range(ROWS):
            row: list[int] = []
            while len(row) < ROW_LENGTH:
                row += [*document(rng, tokenizer), end]
            rows.append(row[:ROW_LENGTH])
        yield torch.tensor(rows)


def document(rng: random.Random, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a table of sums, a story, a sum asked in chat, or an echo."""
    (kind,) = rng.choices(("table", "story", "chat", "echo"), (3, 4, 3, 2))
    if kind == "echo":
        # Any tokens, twice: a token that is never read could not be told from the others later,
        # when fine-tuning leaves the embedding as it is; and stories are about copying numbers.
        heard = rng.choices(range(len(SPECIAL), len(tokenizer)), k=rng.randrange(4, 12))
        return heard + heard
    if kind == "table":
        text = "\n".join(solved(problem) for problem in rng.sample(PROBLEMS, 6))
    elif kind == "story":
        problem = rng.choice(PROBLEMS)
        text = f"{tell(STATEMENTS, problem, rng)}\n{solved(problem)}"
    else:
        text = conversation(rng.choice(PROBLEMS), rng, tokenizer)
    ids: list[int] = tokenizer.encode(text)
    return ids


def conversation(problem: Problem, rng: random.Random, tokenizer: PreTrainedTokenizerBase) -> str:
    """A bare sum, asked in chat."""
    question = rng.choice(("{}", "{} =", "What is {}?", "How many are {}?")).format(problem.sum)
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": solved(problem)},
    ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def solved(problem: Problem) -> str:
    """A sum with its result."""
    return f"{problem.sum} = {problem.result}"


def asked_sums() -> list[Problem]:
    """Sums to examine the model with."""
    return random.Random(SEED + 1).sample(PROBLEMS, ASKED)


def questions() -> Iterator[tuple[str, str]]:
    """Prompts and answers of the dataset's validation rows."""
    for line in (DATASET / "validation.jsonl").read_text(encoding="utf-8").splitlines():
        prompt, answer = json.loads(line)["messages"]
        yield prompt["content"], answer["content"]


@torch.inference_mode()
def exact(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    cases: Iterable[tuple[str, str]],
) -> float:
    """The share of prompts that the model answers to the letter and ends its turn after."""
    prompts, answers = zip(*cases, strict=True)
    batch = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
    )
    out = model.generate(**batch, max_new_tokens=32, do_sample=False)
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :])
    right = [
        text.startswith(answer + tokenizer.eos_token)
        for text, answer in zip(texts, answers, strict=True)
    ]
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
