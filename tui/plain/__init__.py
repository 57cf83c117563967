"""The same walk as plain prompts, for screen readers and dumb terminals.

The fields, their words and their checks are those of the form; everything else that is done or
shown is done by the command of the same purpose, which is said first.
"""

from .home import run_prompts

__all__ = ["run_prompts"]
