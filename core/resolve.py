"""From a selection to a plan: everything that has to be decided is decided here, once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import locations
from .code_digest import code_digest
from .errors import UsageError
from .handover import handed_over
from .inputs import content_digest, is_here
from .keys import table_in
from .origins import Origin, Sourced
from .plan import Launch, LocalInput, Plan, SecretRef, digest_of, new_run_id

if TYPE_CHECKING:
    from .catalog import Catalog, Step
    from .config.compose import ComposedConfig
    from .env.resolve import ResolvedProfile
    from .selection import Selection

MACHINE_KEYS = frozenset({"identity", "known_hosts"})
"""Profile keys that name files of the machine one launches from: no part of what is launched."""


def resolve(selection: Selection, catalog: Catalog | None = None) -> Plan:
    """Resolve a selection into a frozen plan. Reads local files only; writes nothing.

    Raises:
        UsageError: if the step, config, an override, the profile or an input is wrong.
        NotFoundError: if `from_run` names no run.
    """
    from .catalog import load_catalog
    from .config.compose import compose
    from .schema import schema_for

    catalog = catalog or load_catalog(selection.catalog)
    step = catalog.find(selection.step)
    schema = schema_for(step.launch.schema)
    overrides = selection.overrides
    if selection.from_run is not None:
        overrides = (handed_over(step, selection, catalog), *overrides)
    config = compose(step.config_path(selection.config, selection.cwd), overrides, schema=schema)
    profile = _profile(selection, step, config)
    run_id = new_run_id()
    run_dir = locations.run_dir(run_id)

    values = {key: value for key, value in config.values.items() if key != "run"}
    _fill_wandb(values, profile)
    absolute, inputs = _local_paths(config, values, schema, selection.cwd)
    launch = _launch(step, profile)
    name = (selection.name or "").strip() or f"{step.id.replace('/', '-')}-{config.path.stem}"
    if not name.isprintable():
        raise UsageError(
            f"{name!r} is no name for a run.", fix="Use one line without control characters."
        )
    secrets = _secrets(profile, values)
    env = dict(profile.env_vars)
    digest = digest_of(
        {
            "step": {"id": step.id, "digest": step.digest},
            "config": _portable(values, inputs),
            "profile": {k: v for k, v in profile.values.items() if k not in MACHINE_KEYS},
            "launch": [launch.kind, step.launch.module, launch.args, launch.world_size],
            "inputs": [[item.key, item.digest] for item in inputs],
            "secrets": [secret.name for secret in secrets],
        }
    )
    return Plan(
        run_id=run_id,
        name=name,
        step=step.id,
        step_source=step.source,
        config_name=selection.config or config.path.stem,
        config=absolute,
        profile=profile.name,
        executor=profile.executor,
        profile_values=profile.values,
        launch=launch,
        env={**env, "TUNEDECK_RUN_ID": run_id, "TUNEDECK_RUN_NAME": name},
        secrets=secrets,
        inputs=inputs,
        run_dir=run_dir,
        digest=digest,
        created_at=time.time(),
        overrides=overrides,
        selection=selection.to_json(),
        config_origins=config.origins,
        profile_origins=profile.origins,
        remarks=config.remarks,
        notes=tuple(_placement_notes(profile)),
        step_digest=step.digest,
        code=code_digest(),
    )


def _profile(selection: Selection, step: Step, config: ComposedConfig) -> ResolvedProfile:
    from .env.check import mistyped
    from .env.find import find_env_files
    from .env.load import load_env_files
    from .env.resolve import raise_first, resolve_profile

    files = load_env_files(find_env_files(selection.cwd, selection.env_file))
    from_config: dict[str, Sourced] = {}
    from_command: dict[str, Sourced] = {}
    for key, sourced in config.origins.items():
        if key.startswith("run.env."):
            layer = from_command if sourced.origin.layer == "command line" else from_config
            layer[key.removeprefix("run.env.")] = sourced
    layers = {"run_env": from_config, "command_line": from_command}
    profile = resolve_profile(files, selection.profile, **layers)
    # What a step asks of a cluster is no reason to start eight processes on a laptop.
    if profile.executor != "local":
        layers["step_defaults"] = _step_defaults(step)
        profile = resolve_profile(files, selection.profile, **layers)
    raise_first(mistyped(profile))
    return profile


def _fill_wandb(values: dict[str, Any], profile: ResolvedProfile) -> None:
    """Where the config turns W&B on and names no project or entity, the env file's are taken."""
    table = table_in(values, "wandb")
    if table.get("mode") in ("online", "offline"):
        filled = {k: profile.wandb[k] for k in ("project", "entity") if k in profile.wandb}
        values["wandb"] = {**table, **{k: v for k, v in filled.items() if table.get(k) is None}}


def _step_defaults(step: Step) -> dict[str, Sourced]:
    origin = Origin(f"step {step.id}")
    return {key: Sourced(value, origin) for key, value in step.resources.items()}


def _local_paths(
    config: ComposedConfig, values: dict[str, Any], schema: Any, cwd: Path
) -> tuple[dict[str, Any], tuple[LocalInput, ...]]:
    """Make the config's local paths absolute and take the digests of those that exist."""
    import copy
    import glob

    from .config.paths import local_path_fields, set_path

    absolute = copy.deepcopy(values)
    inputs: list[LocalInput] = []
    if schema is None:
        return absolute, ()
    for key, value, direction in local_path_fields(schema, values):
        path = (cwd / Path(value).expanduser()).absolute()
        if not path.exists() and glob.has_magic(value):
            path = Path(glob.escape(str(cwd.absolute())), Path(value).expanduser())
        here = is_here(path)
        if direction == "output" or here:
            set_path(absolute, key, str(path))
        if direction == "input" and here:
            digest, size = content_digest(path)
            inputs.append(LocalInput(key, str(path), digest, size))
    return absolute, tuple(inputs)


def _portable(values: Mapping[str, Any], inputs: Iterable[LocalInput]) -> dict[str, Any]:
    """The config with each local input named by its content, and without what is not set."""
    import copy

    from .config.paths import set_path

    portable = copy.deepcopy(dict(values))
    for item in inputs:
        set_path(portable, item.key, item.digest)
    return _without_nulls(portable)


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def _launch(step: Step, profile: ResolvedProfile) -> Launch:
    values, facts = profile.values, step.launch
    gpus = _gpus(values)
    kind = "command" if values.get("run_command") else facts.kind
    several = kind in ("torchrun", "command")
    named = [values.get(k) for k in ("nproc_per_node", "nprocs_per_node", "ntasks_per_node")]
    if profile.executor == "hf_jobs":  # its users know this variable
        named.append(_process_count(profile.env_vars.get("NPROC_PER_NODE")))
    processes = next((int(value) for value in (*named, gpus) if value), 1)
    return Launch(
        kind=kind,
        module=facts.module or str(facts.script or ""),
        args=tuple(facts.args),
        nodes=int(values.get("nodes") or 1) if several else 1,
        nproc_per_node=processes if several else 1,
        gpus_per_node=gpus,
        command=facts.command or "",
        workdir=facts.workdir or "",
    )


def _process_count(text: str | None) -> int | None:
    if not text:
        return None
    if text.isdigit() and int(text):
        return int(text)
    raise UsageError(
        f"NPROC_PER_NODE is '{text}', which is no number of processes.",
        fix="Set it to the processes of a node, as many as its GPUs: NPROC_PER_NODE=8",
    )


def _gpus(values: Mapping[str, Any]) -> int:
    """The GPUs of a node: those that are asked for, else those that the flavor has."""
    from .env.rules.gpus import gpus_of_flavor

    asked, flavor = values.get("gpus_per_node"), values.get("flavor")
    if asked is None and isinstance(flavor, str):
        return gpus_of_flavor(flavor) or 0
    return int(asked or 0)


def _secrets(profile: ResolvedProfile, values: Mapping[str, Any]) -> tuple[SecretRef, ...]:
    """The profile's secrets, and the W&B key where the config asks for W&B online."""
    known = {secret.name: secret for secret in profile.secrets}
    if table_in(values, "wandb").get("mode") == "online":
        known.setdefault("WANDB_API_KEY", SecretRef("WANDB_API_KEY", "WANDB_API_KEY"))
    return tuple(known.values())


def _placement_notes(profile: ResolvedProfile) -> Iterable[str]:
    """What the config sets over the profile; the configs it inherits from are its own affair."""
    for key, sourced in profile.origins.items():
        if not sourced.origin.layer.startswith("config"):
            continue
        beaten = [one for one in sourced.overrode if one[1].layer.startswith("profile")]
        for before, origin in beaten[:1]:
            yield f"{sourced.origin} sets {key} = {sourced.value}, over {before} of {origin}."
