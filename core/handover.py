"""How what one run made becomes the input of the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from .catalog import Catalog, Step
    from .runs.record import RunRecord
    from .selection import Selection


def handed_over(step: Step, selection: Selection, catalog: Catalog) -> str:
    """The override that fills the step's fitting input with what a run produced.

    Raises:
        UsageError: if the step takes nothing that the run's step produces.
        NotFoundError: if there is no such run, it left no result, or the result is elsewhere and
            has not been brought home.
    """
    from .runs.outcome import produced_types, product, read_result
    from .runs.registry import Registry

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


def is_read_by(record: RunRecord, selection: Selection) -> bool:
    """Whether what a run made can be read where a selection runs; a run that made nothing is."""
    from .runs.outcome import product, read_result

    artifact = product(read_result(record))
    try:
        return artifact is None or bool(_where_it_is_read(artifact, record, selection))
    except NotFoundError:
        return False


def _where_it_is_read(artifact: str, record: RunRecord, selection: Selection) -> str:
    """The path of a run's product as the new run sees it: over there, or what was brought home.

    Raises:
        NotFoundError: if it is elsewhere and has not been brought home.
    """
    from .runs.outcome import is_here

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
