"""The words of the tiny assets: people, things, and what happens to them.

The base model reads `statements` and `sums`; it never sees a question about a story, nor a worked
answer. Those are the dataset's (`make_data.py`), and what fine-tuning has to teach.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Operation = Literal["+", "-"]

PEOPLE = (
    *("Ada", "Ben", "Carl", "Dana", "Eva", "Finn", "Grace", "Hugo"),
    *("Ines", "Jack", "Kim", "Leo", "Mia", "Nora", "Omar", "Rosa"),
)
THINGS = (
    *("apples", "balls", "books", "boxes", "cards", "coins", "cups", "eggs"),
    *("flowers", "keys", "marbles", "pears", "pencils", "shells", "stamps", "stones"),
)
PLACES = ("in the box", "on the table", "in the garden", "at school", "on the shelf", "at home")
LARGEST = 99


@dataclass(frozen=True)
class Problem:
    """A sum of two numbers from 2 to 99, whose result is one as well."""

    left: int
    operation: Operation
    right: int

    @property
    def result(self) -> int:
        """What comes out."""
        return self.left + self.right if self.operation == "+" else self.left - self.right

    @property
    def sum(self) -> str:
        """The problem in digits, without its result."""
        return f"{self.left} {self.operation} {self.right}"


def every_problem() -> list[Problem]:
    """All additions and subtractions within the range, in a fixed order."""
    additions = [
        Problem(left, "+", right)
        for left in range(2, LARGEST - 1)
        for right in range(2, LARGEST - left + 1)
    ]
    subtractions = [
        Problem(left, "-", right) for left in range(4, LARGEST + 1) for right in range(2, left - 1)
    ]
    return additions + subtractions


# One row a situation: how a statement tells it with its outcome, and how the dataset asks for it.
STATEMENTS: dict[Operation, tuple[str, ...]] = {
    "+": (
        "{who} has {a} {things}. {other} gives {who} {b} more. Now {who} has {c} {things}.",
        "{who} finds {a} {things} in the morning and {b} in the afternoon. In all {who} finds {c}.",
        "There are {a} {things} {place}. {who} brings {b} more. "
        "Now there are {c} {things} {place}.",
        "{who} has {a} {things} and {other} has {b}. Together they have {c} {things}.",
    ),
    "-": (
        "{who} has {a} {things}. {who} gives {b} of them to {other}. Now {who} has {c} {things}.",
        "{who} has {a} {things} and {other} has {b}. {who} has {c} more {things} than {other}.",
        "There are {a} {things} {place}. {who} takes {b} of them away. "
        "There are {c} {things} left.",
        "{who} needs {a} {things} and has {b}. {who} still needs {c} {things}.",
    ),
}
QUESTIONS: dict[Operation, tuple[str, ...]] = {
    "+": (
        "{who} has {a} {things}. {other} gives {who} {b} more. "
        "How many {things} does {who} have now?",
        "{who} finds {a} {things} in the morning and {b} in the afternoon. "
        "How many {things} does {who} find in all?",
        "There are {a} {things} {place}. {who} brings {b} more. "
        "How many {things} are there {place} now?",
        "{who} has {a} {things} and {other} has {b}. How many {things} do they have together?",
    ),
    "-": (
        "{who} has {a} {things}. {who} gives {b} of them to {other}. "
        "How many {things} does {who} have now?",
        "{who} has {a} {things} and {other} has {b}. "
        "How many more {things} does {who} have than {other}?",
        "There are {a} {things} {place}. {who} takes {b} of them away. How many {things} are left?",
        "{who} needs {a} {things} and has {b}. How many {things} does {who} still need?",
    ),
}


def tell(wordings: dict[Operation, tuple[str, ...]], problem: Problem, rng: random.Random) -> str:
    """The problem in one of the wordings, with people, things and a place drawn by chance."""
    who, other = rng.sample(PEOPLE, 2)
    return rng.choice(wordings[problem.operation]).format(
        who=who,
        other=other,
        things=rng.choice(THINGS),
        place=rng.choice(PLACES),
        a=problem.left,
        b=problem.right,
        c=problem.result,
    )
