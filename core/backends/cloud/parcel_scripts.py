"""The shell that jobs run to put a parcel in its place: carriers, and the start of a run."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import PurePosixPath

from ..layout import Upload
from .parcel import VARIABLE, Split

_WAIT_S = 600


def carrier_script(upload: Upload, shared: str, number: int, count: int) -> str:
    """What a carrier runs: write its part; whoever finds all parts there puts them together."""
    name = str(PurePosixPath(upload.target).relative_to(shared))
    known = hashlib.sha256(name.encode()).hexdigest()[:12]
    return _CARRIER.format(
        parts=shlex.quote(f"{shared}/incoming/{known}"),
        target=shlex.quote(upload.target),
        name=shlex.quote(name),
        number=f"{number:03d}",
        count=count,
        put=_joined(),
    )


def receive(run_id: str, shared: str, parcels: Split) -> list[str]:
    """Shell lines of the run's start: put in place what came along, wait for what went ahead.

    `$rank` is the node's number: the first one writes, and the others wait for its word.
    """
    lines = []
    if parcels.along:
        lines += _RECEIVE.format(
            word=shlex.quote(f"{shared}/incoming/{run_id}"),
            shared=shlex.quote(shared),
            put=_joined(),
            moves="\n".join(_move(upload, shared) for upload in parcels.along),
            wait=_WAIT_S,
        ).splitlines()
    for upload in parcels.ahead:
        lines += _AWAIT.format(target=shlex.quote(upload.target), wait=_WAIT_S).splitlines()
    return lines


def _joined() -> str:
    return f'for name in "${{!{VARIABLE}@}}"; do printf %s "${{!name}}"; done | base64 -d'


def _move(upload: Upload, shared: str) -> str:
    name = shlex.quote(str(PurePosixPath(upload.target).relative_to(shared)))
    target, folder = (
        shlex.quote(upload.target),
        shlex.quote(str(PurePosixPath(upload.target).parent)),
    )
    return (
        f"    mkdir -p {folder} && if [ ! -e {target} ]; then "
        f'mv "$incoming"/{name} {target} || [ -e {target} ]; fi &&'
    )


_CARRIER = """\
# Part {number} of {count} of an input. Written by tunedeck.
set -u -o pipefail
parts={parts} target={target}
if [ -e "$target.ready" ] && [ -e "$target" ]; then exit 0; fi
mkdir -p "$parts" || exit 1
{put} > "$parts/.part.{number}" && mv "$parts/.part.{number}" "$parts/part.{number}" || exit 1
if [ "$(ls "$parts" | grep -c '^part')" = {count} ] && mkdir "$parts/whole" 2> /dev/null; then
  mkdir -p "$(dirname "$target")"
  if cat "$parts"/part.* | tar -xzf - -C "$parts/whole" &&
    {{ [ -e "$target" ] || mv "$parts/whole"/{name} "$target"; }}; then
    rm -f "$target.failed"
    : > "$target.ready"
    rm -rf "$parts"
  else
    echo "tunedeck: error: the parts of $target make no whole"
    : > "$target.failed"
    rm -rf "$parts"
    exit 1
  fi
fi
"""

_RECEIVE = """\
word={word} incoming={word}.files
if [ "$rank" = 0 ]; then
  rm -f "$word.failed"
  if (
    set -o pipefail
    mkdir -p "$incoming" &&
    {put} | tar -xzf - -C "$incoming" &&
{moves}
    true
  ); then
    : > "$word.ready"
  else
    : > "$word.failed"
  fi
  rm -rf "$incoming"
fi
for ((waited = 0; waited < {wait}; waited++)); do
  if [ -e "$word.ready" ] || [ -e "$word.failed" ]; then break; fi
  sleep 1
done
if [ ! -e "$word.ready" ]; then
  echo "tunedeck: error: code and inputs could not be put into" {shared}
  exit 2
fi
unset "${{!TUNEDECK_PARCEL_@}}\""""

_AWAIT = """\
for ((waited = 0; waited < {wait}; waited++)); do
  if [ -e {target}.ready ] || [ -e {target}.failed ]; then break; fi
  sleep 1
done
if [ ! -e {target} ] || [ ! -e {target}.ready ]; then
  echo "tunedeck: error: an input is not on the storage:" {target}
  exit 2
fi"""
