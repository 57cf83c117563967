"""Writes the chat dataset that ships with the package: short stories, asked and worked out.

The same bytes every time. No sum of the validation file is in the training file.

    python scripts/assets/make_data.py [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from stories import QUESTIONS, Problem, every_problem, tell

OUTPUT = Path(__file__).parents[2] / "core" / "assets" / "word_problems"
SIZES = {"train": 600, "validation": 100}
SEED = 20


def answer(problem: Problem) -> str:
    """The worked answer that the adapter has to learn; the last number is the one to check."""
    return f"{problem.sum} = {problem.result}. The answer is {problem.result}."


def row(problem: Problem, rng: random.Random) -> str:
    """One line of chat JSONL."""
    messages = [
        {"role": "user", "content": tell(QUESTIONS, problem, rng)},
        {"role": "assistant", "content": answer(problem)},
    ]
    return json.dumps({"messages": messages}) + "\n"


def main() -> None:
    """Write `train.jsonl` and `validation.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    problems = rng.sample(every_problem(), sum(SIZES.values()))
    start = 0
    for name, size in SIZES.items():
        rows = [row(problem, rng) for problem in problems[start : start + size]]
        (output / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
        print(f"{output / name}.jsonl: {size} rows")
        start += size


if __name__ == "__main__":
    main()
