"""The script that a job starts with: shell, to be read by people, with secrets nowhere in it.

`start.sh` beside this file is the whole script with `@names@` where a plan decides. It unpacks the
code, provides what the step needs, runs it, keeps what it made, and says its last word.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bundle import requirements
from ...command import as_list, script_words
from ...errors import UsageError
from ...keys import table_in
from ...plan import Plan
from ..node_shell import CONFIG_MARK, command_text, node_command, tell_processes

CONFIG = "config.yaml"
RESUME_CONFIG = "resume.yaml"
_MARGIN, _LEAST_S, _MOST_S = 1 / 20, 60, 600
"""The part of a job's time that is left for keeping its last checkpoint, and its bounds."""

_KEEP_PACE_S = 15
_LONGEST = (128 << 10) - 1
"""Linux's MAX_ARG_STRLEN, without the zero at the end."""

_END_OF_FILE = "TUNEDECK_END_OF_FILE"
_RESTORED_MARK = "__tunedeck_restored__"
_TEMPLATE = Path(__file__).with_name("start.sh")
_NAME = re.compile(r"@([a-z_]+)@")


@dataclass(frozen=True, slots=True)
class Start:
    """What a backend decides of the script.

    Attributes:
        run_dir: where the run's files lie while it runs; may use `$scratch`, the job's own disk.
        keep_dir: where they are copied to before it ends; empty where `run_dir` outlives the job.
        code: shell lines that put the code into `$code` and whatever else the job needs in place.
        config: the config with all paths as the job sees them.
        words: words to append to the command.
        timeout_s: seconds after which the service ends the job; None if it never does.
        rendezvous: shell lines that set and export MASTER_ADDR, MASTER_PORT, NODE_RANK, and `rank`,
            for several nodes.
        deliver: shell lines that run at the end, before the last word; `$code` is the exit code.
        path: folders before `$code` on the module path.
        provide: the script that installs what the step lacks; may use `$code` and `$scratch`.
        cwd: the folder that the step runs in; the run's own by default.
        exports: further environment variables.
    """

    run_dir: str
    keep_dir: str
    code: Sequence[str]
    config: Mapping[str, Any]
    words: Sequence[str] = ()
    timeout_s: int | None = None
    rendezvous: Sequence[str] = ()
    deliver: Sequence[str] = ()
    path: Sequence[str] = ()
    provide: str = "$code/tunedeck/core/backends/provide.py"
    cwd: str = ""
    exports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Script:
    """The text, and the command that it comes to."""

    text: str
    command: tuple[str, ...]


def render_start(plan: Plan, start: Start) -> Script:
    """The script of a plan, for `bash -c`.

    Raises:
        UsageError: if the plan's command cannot be made, or the script is too long for `bash -c`.
    """
    going_on = _resumable(start.config)
    restore = str(table_in(start.config, "checkpoint").get("restore_from") or "")
    files = {CONFIG: _yaml(_restored(start.config) if restore else start.config)}
    if going_on:
        files[RESUME_CONFIG] = _yaml(_restored(start.config))
    command = _command(plan, start, f"{start.run_dir}/{CONFIG}")
    parts = {
        "about": f"{plan.step} as {plan.run_id} on {plan.launch.shape}. Written by tunedeck.",
        "run_id": plan.run_id,
        "run_dir": _path(start.run_dir),
        "keep_dir": shlex.quote(start.keep_dir),
        "keep_pace": str(_KEEP_PACE_S),
        "exports": _lines(_exports(plan, start)),
        "command": _lines([*_place(start), _body(_command(plan, start, CONFIG_MARK))]),
        "rendezvous": _lines(start.rendezvous),
        "files": "\n".join(_file(name, text) for name, text in files.items()),
        "code": _lines(start.code),
        "restore": shlex.quote(restore),
        "startup": _lines(_startup(plan, start)),
        "deadline": _lines(_deadline(start.timeout_s)),
        "tell": _lines(tell_processes(plan)),
        "deliver": _lines(start.deliver),
    }
    text = _NAME.sub(lambda match: parts[match[1]], _TEMPLATE.read_text(encoding="utf-8"))
    if len(text.encode()) > _LONGEST:
        raise UsageError(
            f"The job's script is {len(text.encode()) >> 10} KiB, more than one argument of a "
            "process may be; most of it is the config.",
            fix="Put what is long in the config, such as a chat template, into a file of its own.",
        )
    return Script(text, command)


def unpack(archive: str) -> list[str]:
    """Lines that put the code in place from an archive that the job sees."""
    return ['mkdir -p "$code"', f'tar -xzf {shlex.quote(archive)} -C "$code"']


def clone(url: str, ref: str) -> list[str]:
    """Lines that put a git repository into `$scratch/repo`, at exactly the ref that is asked for.

    A branch, a tag or a commit. One that is not there ends the job: other code than was asked for
    must not run in its place.
    """
    lines = [
        f'git clone --quiet {shlex.quote(url)} "$scratch/repo" || '
        f"{{ echo {shlex.quote('tunedeck: error: REPO_URL could not be cloned')}; exit 2; }}"
    ]
    if ref:
        missing = shlex.quote(f"tunedeck: error: GIT_REF {ref} is not in the repository")
        at, quoted = 'git -C "$scratch/repo"', shlex.quote(ref)
        lines += [
            f"{at} fetch --quiet origin {quoted} 2> /dev/null || true  # a commit of no branch",
            f"{at} checkout --quiet --detach origin/{quoted} 2> /dev/null ||",
            f"  {at} checkout --quiet --detach {quoted} 2> /dev/null ||",
            f"  {{ echo {missing}; exit 2; }}",
        ]
    return [*lines, 'echo "tunedeck: code is $(git -C "$scratch/repo" rev-parse HEAD)"']


def _resumable(config: Mapping[str, Any]) -> bool:
    checkpoint = table_in(config, "checkpoint")
    return bool(checkpoint and checkpoint.get("enabled", True))


def _restored(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config that goes on from the checkpoint which the script has found."""
    changed = copy.deepcopy(dict(config))
    changed["checkpoint"]["restore_from"] = _RESTORED_MARK
    return changed


def _file(name: str, text: str) -> str:
    """Lines that write a file, whole at once: nodes may share the folder.

    Only the place of a checkpoint is filled in by the job.
    """
    filled = "" if _RESTORED_MARK not in text else f' | sed "s|{_RESTORED_MARK}|$scratch/restored|"'
    draft, place = f'"$run_dir/.{name}.$rank"', f'"$run_dir/{name}"'
    return f"cat << '{_END_OF_FILE}'{filled} > {draft}\n{text}{_END_OF_FILE}\nmv {draft} {place}"


def _exports(plan: Plan, start: Start) -> Iterable[str]:
    yield 'export TUNEDECK_RUN_DIR="$run_dir" TUNEDECK_EXIT_FILE="$run_dir/exit_code"'
    yield "export PYTHONUNBUFFERED=1"
    if "-m" in script_words(plan.launch) and not start.path:
        yield "export PYTHONSAFEPATH=1"
    for name, value in start.exports.items():
        yield f"export {name}={shlex.quote(value)}"


def _place(start: Start) -> list[str]:
    return [f"cd {_path(start.cwd)} || exit 1"] if start.cwd else []


def _command(plan: Plan, start: Start, config: str) -> tuple[str, ...]:
    """What each node runs."""
    nodes = plan.launch.nodes
    rendezvous = (
        (
            *("--nnodes", str(nodes), "--node-rank", "$NODE_RANK"),
            *("--master-addr", "$MASTER_ADDR", "--master-port", "$MASTER_PORT"),
        )
        if nodes > 1
        else ("--nnodes", "1", "--standalone")
    )
    words = node_command(
        plan.launch,
        plan.profile_values,
        python="python3",
        config=config,
        torchrun=(*rendezvous, "--nproc-per-node", str(plan.launch.nproc_per_node)),
    )
    if words[:2] == ("bash", "-c") and start.words:
        return (*words[:2], f"{words[2]} {shlex.join(start.words)}")
    return (*words, *start.words)


def _body(command: Sequence[str]) -> str:
    """The command as the script has it, with what only the job knows as variables."""
    text = command_text(command)
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        text = text.replace(f"'${name}'", f'"${name}"')
    return text


def _startup(plan: Plan, start: Start) -> list[str]:
    """What a node does before the command: packages, the profile's own lines, then the code."""
    values = plan.profile_values
    lines = []
    if extras := as_list(values.get("pip_extras")):
        lines.append(f"python3 -m pip install --quiet {shlex.join(extras)}")
    for key in ("setup_lines", "pre_launch_commands", "startup_commands"):
        lines += as_list(values.get(key))
    path = ":".join([*start.path, "$code", "$site"])
    lines.append(f'export PYTHONPATH="{path}${{PYTHONPATH:+:$PYTHONPATH}}"')
    if plan.launch.is_ours:
        needs = shlex.join(requirements(plan.launch, plan.config))
        lines.append(f'python3 "{start.provide}" "$site" {needs}')
    return lines


def _deadline(timeout_s: int | None) -> list[str]:
    """Unix seconds by which the run must have saved. Short jobs get at least half their time."""
    if timeout_s is None:
        return []
    margin = min(max(int(timeout_s * _MARGIN), _LEAST_S), _MOST_S, timeout_s // 2)
    usable = timeout_s - margin
    return [f"export TUNEDECK_DEADLINE=$((started_at + {usable}))"]


def _path(text: str) -> str:
    """A path as a word of the script; it may begin with `$scratch`."""
    if text.startswith("$scratch"):
        return f'"$scratch"{shlex.quote(text.removeprefix("$scratch"))}'
    return shlex.quote(text)


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _lines(lines: Iterable[str]) -> str:
    """Lines of a shell script; `:` where there is none, so that every place stays valid.

    They stay as they are: an indent would break here-documents and quoted newlines in them.
    """
    return "\n".join(lines) or ":"
