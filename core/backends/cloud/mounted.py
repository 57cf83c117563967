"""A run whose files lie on storage that is mounted into its job: where, and how they get there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...bundle import bundle
from ...env.models.base import Mounted
from ...errors import UsageError
from ...findings import Finding, Fix
from ...keys import table_in
from ...plan import Plan
from ...submission import Submission, SubmissionFile
from ..layout import Layout, Upload
from . import told
from .parcel import HERE, Split, described, pack, split, summary, variables
from .parcel_scripts import receive
from .start import Script, Start, unpack

RUNS = "tunedeck"
"""The folder for runs in a `workspace`, where the profile names no other."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of a run.

    Attributes:
        layout: where run, code and inputs lie, as the job sees them.
        uploads: what must be there before the step starts.
        parcels: how each of them gets there; None where this machine writes them itself.
    """

    layout: Layout
    uploads: tuple[Upload, ...]
    parcels: Split | None

    @classmethod
    def of(cls, plan: Plan, mounted: Sequence[Mounted], keys: Sequence[str]) -> Place:
        """The place of a plan.

        Args:
            plan: the plan.
            mounted: what the profile mounts.
            keys: the profile keys that may name the folder for runs, the first that is set counts.

        Raises:
            UsageError: if the profile names no folder, or one that is lost with the job.
        """
        values = plan.profile_values
        root = job_root(values, keys)
        if not any(_below(root, mount.target) for mount in mounted):
            raise UsageError(
                f"Runs would go to {root}, which no mount of the profile holds: it would be lost "
                "with the job.",
                fix="Mount storage there, or choose a folder below a mount.",
            )
        layout = Layout.under(root, plan)
        code, *inputs = layout.uploads(plan)
        folder = str(values.get("code_src_dir") or "").rstrip("/")
        if folder:
            short = posixpath.basename(code.target)
            code = Upload(code.kind, code.source, f"{folder}/{short}", code.digest)
        archive = Upload(code.kind, code.source, f"{code.target}.tar.gz", bundle().digest)
        uploads = (archive, *inputs)
        here = bool(values.get("launched_from_cluster"))
        return cls(layout, uploads, None if here else split(uploads))

    @property
    def shared(self) -> str:
        """The folder that all uploads lie below."""
        folder = f"{self.layout.root}/.tunedeck"
        return posixpath.commonpath([folder, *(upload.target for upload in self.uploads)])

    def start(self, plan: Plan, **more: Any) -> Start:
        """The script's facts. The run's folder outlives the job: nothing is copied at its end."""
        here = receive(plan.run_id, self.shared, self.parcels) if self.parcels else []
        archive = next(upload for upload in self.uploads if upload.kind == "code")
        return Start(
            run_dir=self.layout.run_dir,
            keep_dir="",
            code=[*told.WRITE, *here, *unpack(archive.target)],
            config=self.layout.config(plan),
            **more,
        )

    def submission(
        self, plan: Plan, backend: str, script: Script, payload: Mapping[str, Any]
    ) -> Submission:
        """What is sent: the service's own payload, and what must be here before the step starts.

        What travels in the job's environment stands in it by size and digest.
        """
        run_dir = self.layout.run_dir
        return Submission(
            run_id=plan.run_id,
            backend=backend,
            argv=script.command,
            env=dict(plan.env),
            secrets=plan.secrets,
            files=(SubmissionFile.of_json(f"{run_dir}/plan.json", plan.to_json()),),
            script=script.text,
            payload={**payload, "shared": self.shared, "uploads": self.summary()},
            cwd=run_dir,
        )

    def variables(self, plan: Plan) -> list[dict[str, str]]:
        """What travels in the job's environment: the plan, and the parcel by its digests."""
        along = self.parcels.along if self.parcels else ()
        return [
            {"name": told.VARIABLE, "value": told.plan_text(plan)},
            *({"name": name, "value": value} for name, value in _described(along, self.shared)),
        ]

    def summary(self) -> list[Mapping[str, object]]:
        """What the preview says of the uploads."""
        if self.parcels is None:
            return [{**upload.to_json(), "by": HERE} for upload in self.uploads]
        return summary(self.parcels)


@lru_cache(maxsize=8)
def _described(along: tuple[Upload, ...], shared: str) -> tuple[tuple[str, str], ...]:
    """Name and description of each variable. Uploads are named by their content."""
    if not along:
        return ()
    rows = described(variables(pack(along, shared)))
    return tuple((row["name"], row["value"]) for row in rows)


def job_root(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The folder for runs, as jobs see it.

    Raises:
        UsageError: if the profile names none, or one that is not absolute.
    """
    root = next((str(values[key]) for key in keys if values.get(key)), "")
    if not root and values.get("workspace"):
        root = f"{str(values['workspace']).rstrip('/')}/{RUNS}"
    if not root.startswith("/"):
        said = f"'{root}' is no absolute path" if root else "The profile names no folder for runs"
        raise UsageError(
            f"{said}.", fix=f'Set {keys[0]} to a folder below a mount: {keys[0]} = "/…"'
        )
    return root.rstrip("/")


def _below(path: str, folder: str) -> bool:
    return f"{posixpath.normpath(path)}/".startswith(f"{posixpath.normpath(folder).rstrip('/')}/")


def check_mounted(plan: Plan, mounts: Sequence[str]) -> list[Finding]:
    """What may be lost by a plan whose run ends with its job. Needs no network.

    Args:
        plan: the plan.
        mounts: where storage that outlives the job is mounted.
    """
    found = []
    if not plan.profile_values.get("time"):
        text = "No time limit is set: the job runs until it ends by itself or is cancelled."
        fix = Fix('Set one, and the run saves before it: time = "04:00:00"')
        found.append(Finding("info", text, profile=plan.profile, key="time", fix=fix))
    folder = str(table_in(plan.config, "checkpoint").get("checkpoint_dir") or "")
    if folder and not any(f"{folder}/".startswith(f"{at.rstrip('/')}/") for at in mounts):
        found.append(
            Finding(
                "warning",
                f"Checkpoints go to {folder}, which is lost with the job: nothing that outlives it "
                "is mounted there.",
                profile=plan.profile,
                key="checkpoint.checkpoint_dir",
                fix=Fix("Leave checkpoint.checkpoint_dir out: the run's own folder is kept."),
            )
        )
    return found
