"""Trains the tokenizer that ships with the package: byte-level BPE, one token a digit, ChatML.

Byte-level, so that any text survives a round trip; single digits, so that sums can be learnt.
The same bytes every time.

    python scripts/assets/make_tokenizer.py [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from make_data import answer
from stories import QUESTIONS, STATEMENTS, every_problem, tell
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

OUTPUT = Path(__file__).parents[2] / "core" / "assets" / "base"
VOCABULARY = 512
END_OF_TEXT, TURN_START, TURN_END, PAD = SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"),
)
MAX_LENGTH = 2048
SEED = 21

# The words between the digits: contractions, words with their space, digits one by one, the rest.
PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# The assistant's turn is marked for `return_assistant_tokens_mask`, its end included: a model that
# is not trained on its stop token never stops.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

# Everyday English for other people's data: the stories alone would teach the merges of few words.
EVERYDAY = """\
The quick answer is that you should first find out how much each person has to pay for the day.
She works eight hours every week and earns twelve dollars an hour, so how much money does she make?
If half of the students want to read another page tomorrow, how many pages will they have read?
A train leaves the station at noon and travels for three hours with the same speed as before.
This means that the total cost of one ticket was more than their parents could give him or her.
Which of these numbers is the largest, and what would be left if we took one third of it away?
After that, they bought a new house with their friends because the old one had been too small.
Calculate the number of miles per gallon. What percent of the total is the difference between them?
"""


def texts() -> list[str]:
    """What the merges are learnt from: stories, worked answers, roles, everyday English."""
    rng = random.Random(SEED)
    problems = rng.sample(every_problem(), 2000)
    stories = [tell(rng.choice((STATEMENTS, QUESTIONS)), problem, rng) for problem in problems]
    answers = [answer(problem) for problem in problems]
    roles = ["system", "user", "assistant", "tool"] * 1000
    return stories + answers + roles + EVERYDAY.splitlines() * 60


def train() -> Tokenizer:
    """A byte-level BPE whose special tokens have the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def main() -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = train()
    tokenizer.save(str(output / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "additional_special_tokens": [TURN_START],
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    (output / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (output / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    print(f"{output}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
