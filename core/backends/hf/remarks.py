"""What can be known to be wrong with a plan for Hugging Face Jobs without asking the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from ...findings import Finding, Fix
from ...keys import table_in
from ...plan import Plan
from .place import storage_of, volumes_of
from .settings import environment, output_repo_of, repository_of, stage_names, stage_words


def check_plan(plan: Plan) -> list[Finding]:
    """Findings that every preview shows."""
    return [*_destination(plan), *_mounts(plan), *_secrets(plan), *_code(plan), *_words(plan)]


def _destination(plan: Plan) -> Iterable[Finding]:
    storage, repo = storage_of(plan), output_repo_of(plan.profile_values)
    if storage is None and repo is None:
        yield Finding(
            "warning",
            "What the run makes is lost with the job: no bucket is mounted that may be written, "
            "and no output_repo is set.",
            profile=plan.profile,
            key="volumes",
            fix=Fix(
                'Mount a bucket: volumes = [{type = "bucket", source = "you/tunedeck", '
                'mount_path = "/workspace"}]. Or set output_repo = "you/results".'
            ),
        )
    folder = table_in(plan.config, "checkpoint").get("checkpoint_dir")
    if folder and not (storage and str(folder).startswith(f"{storage.mount}/")):
        where = f"below {storage.mount}, where a bucket is mounted" if storage else "in a bucket"
        yield Finding(
            "warning",
            f"Checkpoints go to {folder}, which is lost with the job: it is not {where}.",
            profile=plan.profile,
            key="checkpoint.checkpoint_dir",
            fix=Fix("Leave checkpoint.checkpoint_dir out: the run's own folder is kept."),
        )
    if repo and not any(secret.name == "HF_TOKEN" for secret in plan.secrets):
        yield Finding(
            "error",
            f"The job has no token to upload to {repo} with.",
            profile=plan.profile,
            key="secrets",
            fix=Fix('Add HF_TOKEN to the profile: secrets = ["HF_TOKEN"]'),
        )


def _mounts(plan: Plan) -> Iterable[Finding]:
    """Volumes in one place, the run's own bucket among them, which the profile need not name."""
    seen = Counter(v["mountPath"].rstrip("/") for v in volumes_of(plan, storage_of(plan)))
    for path in (path for path, count in seen.items() if count > 1):
        yield Finding(
            "error",
            f"Two volumes are mounted at {path}; what the run makes goes to a bucket, by default "
            "at the profile's workspace.",
            profile=plan.profile,
            key="volumes",
            fix=Fix("Give one of them another mount_path, or set workspace to another folder."),
        )


def _secrets(plan: Plan) -> Iterable[Finding]:
    for secret in plan.secrets:
        if secret.remote:
            yield Finding(
                "error",
                f"Hugging Face Jobs keeps no secrets of its own, so {secret.name} cannot be "
                f"'{secret.source}' there.",
                profile=plan.profile,
                key=f"secrets.{secret.name}",
                fix=Fix(f'List it by name: secrets = ["{secret.name}"], and export it here.'),
            )


def _code(plan: Plan) -> Iterable[Finding]:
    if repository := repository_of(plan):
        url, ref = repository
        if (parts := urlsplit(url)).password or parts.username not in (None, "git"):
            yield Finding(
                "error",
                "REPO_URL holds a credential, which everyone who may see the job could read.",
                profile=plan.profile,
                key="env_vars.REPO_URL",
                fix=Fix(
                    "Take it out of the address. Code that not everyone may read travels by "
                    "bucket: launch from a checkout of it, without REPO_URL."
                ),
            )
            return
        at = f"at {ref}" if ref else "at its default branch, whatever that is then"
        yield Finding("info", f"The code is that of {url} {at}, not this installation's.")


def _words(plan: Plan) -> Iterable[Finding]:
    """What variables such as SFT_ARGS append, read as our trainer will read it over there."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from ...config.validate import check
    from ...schema import schema_for

    schema = schema_for(next(iter(plan.launch.args), None)) if plan.launch.is_ours else None
    env = environment(plan)
    words = [word.removeprefix("--") for word in stage_words(plan, env)]
    if schema is None or not words:
        return
    wrong = [f"'{word}' has no value; write key=value." for word in words if "=" not in word]
    if not wrong:
        try:
            given = OmegaConf.merge(dict(plan.config), OmegaConf.from_dotlist(words))
            values: Any = OmegaConf.to_container(given, resolve=False)
            _, problems = check(schema, values)
            wrong = [problem.message for problem in problems]
        except (YAMLError, OmegaConfBaseException) as error:
            wrong = [f"it cannot be read: {error}"]
    names = stage_names(plan, env)
    for message in wrong:
        yield Finding(
            "error",
            f"{' and '.join(names)}: {message}",
            profile=plan.profile,
            key=f"env_vars.{names[0]}",
            fix=Fix('Write keys of the step\'s config: SFT_ARGS="step_scheduler.max_steps=50".'),
        )
