"""How a plan's tasks get into a container: by Pyxis, by Apptainer, or not at all."""

from __future__ import annotations

import posixpath
import shlex

from ...command import as_list
from ...plan import Plan
from ..layout import Layout


def runtime(plan: Plan) -> str:
    """`pyxis`, `apptainer` or `none`: what the profile says, else Pyxis where there is an image."""
    values = plan.profile_values
    if named := values.get("container_runtime"):
        return str(named)
    return "pyxis" if values.get("container_image") else "none"


def srun_options(plan: Plan, layout: Layout) -> list[str]:
    """Pyxis's own options of srun."""
    if runtime(plan) != "pyxis":
        return []
    return [
        f"--container-image={plan.profile_values.get('container_image')}",
        f"--container-mounts={','.join(mounts(plan, layout))}",
        f"--container-workdir={layout.run_dir}",
        "--no-container-mount-home",
    ]


def container_words(plan: Plan, layout: Layout) -> list[str]:
    """What stands before the task's own command, quoted: Apptainer with its binds."""
    if runtime(plan) != "apptainer":
        return []
    words = ["apptainer", "exec", "--pwd", layout.run_dir]
    if plan.launch.gpus_per_node or plan.profile_values.get("gres"):
        words.append("--nv")
    for mount in mounts(plan, layout):
        words += ["--bind", mount]
    return [*map(shlex.quote, words), shlex.quote(_apptainer_image(plan))]


def mounts(plan: Plan, layout: Layout) -> list[str]:
    """The profile's mounts, and the folder for runs where none of them shows it at its place."""
    listed = as_list(plan.profile_values.get("mounts"))
    listed += as_list(plan.profile_values.get("lustre_mount") or None)
    if any(_shows(mount, layout.root) for mount in listed):
        return listed
    return [*listed, f"{layout.root}:{layout.root}"]


def mount_sources(plan: Plan) -> list[str]:
    """The folders of the cluster that the profile mounts."""
    listed = as_list(plan.profile_values.get("mounts"))
    listed += as_list(plan.profile_values.get("lustre_mount") or None)
    return [mount.split(":")[0] for mount in listed]


def _shows(mount: str, folder: str) -> bool:
    source, target, *options = [*mount.split(":"), ""]
    same = posixpath.normpath(source) == posixpath.normpath(target or "/nowhere")
    below = f"{folder}/".startswith(f"{posixpath.normpath(source).rstrip('/')}/")
    return same and below and "ro" not in options


def _apptainer_image(plan: Plan) -> str:
    image = str(plan.profile_values.get("container_image"))
    is_file = image.startswith(("/", ".", "~")) or image.endswith((".sif", ".sqsh"))
    return image if is_file or "://" in image else f"docker://{image}"
