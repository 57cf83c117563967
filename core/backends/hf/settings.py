"""What a profile and its variables say of a job: whose it is, how long, by which code."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ...env.rules.walltime import hf_seconds
from ...errors import UsageError
from ...plan import Plan

_STAGES = {
    "pretrain": ("BASE_ARGS", "PRETRAIN_ARGS"),
    "peft": ("SFT_ARGS", "PEFT_ARGS"),
    "sft": ("SFT_ARGS",),
    "rl": ("RL_ARGS",),
    "eval": ("EVAL_ARGS",),
}
"""Category of a step → the variables whose words are appended to its command."""

_STAGE_ARGS = frozenset(name for names in _STAGES.values() for name in names)
_SETTINGS = ("RUN", "NPROC_PER_NODE", "REPO_URL", "GIT_REF")
"""Variables that steer a job where they have a value, and mean nothing where they have none."""


def namespace_of(values: Mapping[str, Any]) -> str:
    """Whose the job is.

    Raises:
        UsageError: if the profile does not say.
    """
    if namespace := values.get("namespace"):
        return str(namespace)
    raise UsageError(
        "The profile does not say whose the job is.",
        fix='Set namespace to your user name or an organization (namespace = "ada"). '
        "See yours: hf auth whoami",
    )


def timeout_of(values: Mapping[str, Any]) -> int:
    """The time limit in seconds. The service's own of 30 minutes would end most runs unsaid.

    Raises:
        UsageError: if there is none, or it cannot be read.
    """
    text = str(values.get("timeout") or values.get("time") or "").strip()
    seconds = hf_seconds(text)
    if seconds:
        return seconds
    said = f"'{text}' is no time limit" if text else "The profile sets no time limit"
    raise UsageError(
        f"{said}; without one the service ends the job after 30 minutes.",
        fix='Set timeout to a number with s, m, h or d: timeout = "4h"',
    )


def repository_of(plan: Plan) -> tuple[str, str] | None:
    """The git repository and ref that the code comes from; None where it travels as a bundle.

    Raises:
        UsageError: if the ref could be taken for an option of git's.
    """
    url, ref = (str(plan.env.get(name) or "") for name in ("REPO_URL", "GIT_REF"))
    if ref.startswith("-"):
        raise UsageError(f"GIT_REF '{ref}' is no ref.", fix="Give a branch, a tag or a commit.")
    return (url, ref) if url else None


def output_repo_of(values: Mapping[str, Any]) -> str | None:
    """The Hub repository that outputs are uploaded to, if the profile names one."""
    return str(values["output_repo"]) if values.get("output_repo") else None


def environment(plan: Plan) -> dict[str, str]:
    """The job's environment variables, without secrets."""
    env = {k: v for k, v in plan.env.items() if v or not (k in _SETTINGS or k in _STAGE_ARGS)}
    if env.get("RUN"):
        env["TUNEDECK_RUN_NAME"] = env["RUN"]
    return env


def stage_names(plan: Plan, env: Mapping[str, str]) -> list[str]:
    """The variables such as SFT_ARGS that are set and concern the step."""
    return [name for name in _STAGES.get(plan.step.partition("/")[0], ()) if env.get(name)]


def stage_words(plan: Plan, env: Mapping[str, str]) -> list[str]:
    """The words that variables such as SFT_ARGS append to the step's command.

    Raises:
        UsageError: if a quote in them is not closed.
    """
    words = []
    for name in stage_names(plan, env):
        try:
            words += shlex.split(env[name])
        except ValueError as error:
            text = f"{name} cannot be read as words: {error}."
            raise UsageError(text, fix=f"Close the quotes in {name}.") from error
    return words
