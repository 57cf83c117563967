"""From a selection to a plan: everything that has to be decided is decided here, once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import locations
from .code_digest import code_digest
from .errors import NotFoundError, UsageError
from .files import write_atomic
from .inputs import content_digest
from .origins import Origin, Sourced
from .plan import Launch, LocalInput, Plan, SecretRef, digest_of, new_run_id

if TYPE_CHECKING:
    from .catalog import Catalog, Step
    from .config.compose import ComposedConfig
    from .env.resolve import ResolvedProfile
    from .record import RunRecord

MACHINE_KEYS = frozenset({"identity", "known_hosts"})
"""Profile keys that name files of the machine one launches from: no part of what is launched."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person chose: the input of `resolve`, and the ingredients of a replay.

    Attributes:
        step: a step id or an unambiguous tail of one.
        config: a config's name or path; None takes the step's default.
        overrides: `key=value` in OmegaConf's dotlist syntax; `run.env.*` goes to the profile.
        profile: the env profile; `local` always exists.
        env_file: an env file to use instead of the ones that are found.
        catalog: additional folders of steps.
        name: a name for the run; None makes one from step and config.
        from_run: a run whose product fills the step's input of the fitting type.
        cwd: the folder that relative paths start from.
        detached: whether the launcher leaves once it is submitted; a profile may have partitions
            of its own for that.
    """

    step: str
    config: str | None = None
    overrides: tuple[str, ...] = ()
    profile: str = "local"
    env_file: Path | None = None
    catalog: tuple[Path, ...] = ()
    name: str | None = None
    from_run: str | None = None
    cwd: Path = field(default_factory=Path.cwd)
    detached: bool = False

    def to_json(self) -> dict[str, Any]:
        """The selection as plain data, for records and replays."""
        return {
            "step": self.step,
            "config": self.config,
            "overrides": list(self.overrides),
            "profile": self.profile,
            "env_file": str(self.env_file) if self.env_file else None,
            "catalog": [str(folder) for folder in self.catalog],
            "name": self.name,
            "cwd": str(self.cwd),
            "detached": self.detached,
        }


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
    if selection.from_run:
        overrides = (_handed_over(step, selection, catalog), *overrides)
    config = compose(step.config_path(selection.config, selection.cwd), overrides, schema=schema)
    profile = _profile(selection, step, config)
    run_id = new_run_id()
    run_dir = locations.run_dir(run_id)

    values = {key: value for key, value in config.values.items() if key != "run"}
    _fill_wandb(values, profile)
    absolute, inputs = _local_paths(config, values, schema, selection.cwd)
    launch = _launch(step, profile)
    name = selection.name or f"{step.id.replace('/', '-')}-{config.path.stem}"
    secrets = _secrets(profile, values)
    env = dict(profile.env_vars)
    digest = digest_of(
        {
            "step": {"id": step.id, "digest": step.digest},
            "config": _portable(values, inputs),
            "profile": {k: v for k, v in profile.values.items() if k not in MACHINE_KEYS},
            "launch": [launch.kind, launch.module, launch.args, launch.world_size],
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


def resume_selection(record: Any, overrides: Iterable[str]) -> Selection:
    """The selection that goes on from an ended run's last published checkpoint.

    The config is the one that the run recorded, so that nothing which changed since changes the
    run; `overrides` come on top.

    Raises:
        UsageError: if the run published no checkpoint.
    """
    run_dir = Path(record.run_dir)
    away = record.backend != "local" and (record.handle or {}).get("run_dir")
    recorded = record.plan["config_values"].get("checkpoint") or {}
    folder = recorded.get("checkpoint_dir") or f"{away or run_dir}/checkpoints"
    latest = Path(folder) / "latest"
    if not away and not latest.exists():
        raise UsageError(
            f"Run {record.run_id} published no checkpoint to resume from.",
            fix=f"Start it again instead: tunedeck replays save NAME --from {record.run_id}, "
            "then tunedeck replay NAME.",
        )
    chosen = record.plan["selection"]
    config = run_dir / "config.yaml"
    if away:  # what lies here, if anything, was brought home and names paths of over there
        config = run_dir / "planned.yaml"
        write_atomic(config, json.dumps(record.plan["config_values"], indent=2))  # JSON is YAML
    return Selection(
        step=record.step,
        config=str(config),
        overrides=(f"checkpoint.restore_from={latest if away else latest.resolve()}", *overrides),
        profile=record.profile,
        env_file=Path(chosen["env_file"]) if chosen.get("env_file") else None,
        catalog=tuple(Path(folder) for folder in chosen.get("catalog", ())),
        name=record.name,
        cwd=Path(chosen["cwd"]),
    )


def _handed_over(step: Step, selection: Selection, catalog: Catalog) -> str:
    """The override that fills the step's fitting input with what a run produced."""
    from .outcome import produced_types, product, read_result
    from .registry import Registry

    assert selection.from_run is not None
    record = Registry().find(selection.from_run)
    result = read_result(record)
    produced = produced_types(result, catalog.find(record.step))
    key = next(
        (
            wanted.key
            for wanted in step.manifest.consumes
            if wanted.key and any(catalog.artifacts.fits(made, wanted.type) for made in produced)
        ),
        None,
    )
    if key is None:
        raise UsageError(
            f"{step.id} takes nothing that {record.step} produces ({', '.join(produced)}).",
            fix="See which steps fit: tunedeck steps list --consumes "
            f"{produced[0] if produced else 'TYPE'}",
        )
    artifact = product(result)
    if artifact is None:
        raise NotFoundError(
            f"Run {record.run_id} ({record.state}) has left no result to hand on.",
            fix=f"See how it ended: tunedeck runs show {record.run_id}",
        )
    return f"{key}={_where_it_is_read(artifact, record, selection)}"


def _where_it_is_read(artifact: str, record: RunRecord, selection: Selection) -> str:
    """The path of a run's product as the new run sees it: over there, or what was brought home.

    Raises:
        NotFoundError: if it is elsewhere and has not been brought home.
    """
    from .outcome import is_here

    away = (record.handle or {}).get("run_dir") if record.backend != "local" else None
    if away is None or not artifact.startswith("/") or _same_place(record, selection):
        return artifact
    inside = artifact.startswith(f"{away}/")
    home = record.run_dir / Path(artifact).relative_to(away) if inside else Path(artifact)
    for found in (home, home.with_name("best"), home.with_name("latest")):
        if is_here(str(found)):
            return str(found)
    raise NotFoundError(
        f"What run {record.run_id} made is not on this machine: {artifact}",
        fix=f"Bring it home first: tunedeck runs fetch {record.run_id}. Or run the step where it "
        f"is, with profile '{record.profile}'.",
    )


def _same_place(record: RunRecord, selection: Selection) -> bool:
    """Whether a new run reads the same file system as an old one that was elsewhere."""
    from .env.find import find_env_files
    from .env.load import load_env_files
    from .env.resolve import resolve_profile

    if selection.profile == record.profile:
        return True
    files = load_env_files(find_env_files(selection.cwd, selection.env_file))
    there, then = resolve_profile(files, selection.profile), record.plan["profile_values"]
    keys = ("host", "namespace", "node_group", "project_name", "remote_job_dir")
    return there.executor == record.backend and all(
        there.values.get(key) == then.get(key) for key in keys
    )


def _profile(selection: Selection, step: Step, config: ComposedConfig) -> ResolvedProfile:
    from .env.find import find_env_files
    from .env.load import load_env_files
    from .env.resolve import resolve_profile

    files = load_env_files(find_env_files(selection.cwd, selection.env_file))
    from_config: dict[str, Sourced] = {}
    from_command: dict[str, Sourced] = {}
    for key, sourced in config.origins.items():
        if key.startswith("run.env."):
            layer = from_command if sourced.origin.layer == "command line" else from_config
            layer[key.removeprefix("run.env.")] = sourced
    layers = {"run_env": from_config, "command_line": from_command}
    try:
        profile = resolve_profile(files, selection.profile, **layers)
    except NotFoundError as error:  # a launch that cannot be: a mistake in the command
        raise UsageError(error.message, place=error.place, fix=error.fix) from error
    if profile.executor == "local":
        # What a step asks of a cluster is no reason to start eight processes on a laptop.
        return profile
    return resolve_profile(files, selection.profile, step_defaults=_step_defaults(step), **layers)


def _fill_wandb(values: dict[str, Any], profile: ResolvedProfile) -> None:
    """Where the config turns W&B on and names no project or entity, the env file's are taken."""
    table = values.get("wandb") or {}
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

    from .config.paths import local_path_fields, set_path

    absolute = copy.deepcopy(values)
    inputs: list[LocalInput] = []
    if schema is None:
        return absolute, ()
    for key, value, direction in local_path_fields(schema, values):
        path = (cwd / Path(value).expanduser()).absolute()
        if direction == "output" or path.exists():
            set_path(absolute, key, str(path))
        if direction == "input" and path.exists():
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
        module=facts.module or facts.command or str(facts.script or ""),
        args=tuple(facts.args),
        nodes=int(values.get("nodes") or 1) if several else 1,
        nproc_per_node=processes if several else 1,
        gpus_per_node=gpus,
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
    if (values.get("wandb") or {}).get("mode") == "online":
        known.setdefault("WANDB_API_KEY", SecretRef("WANDB_API_KEY", "WANDB_API_KEY"))
    return tuple(known.values())


def _placement_notes(profile: ResolvedProfile) -> Iterable[str]:
    for key, sourced in profile.origins.items():
        if sourced.origin.layer.startswith("config") and sourced.overrode:
            before, origin = sourced.overrode[0]
            yield f"{sourced.origin} sets {key} = {sourced.value}, over {before} of {origin}."
