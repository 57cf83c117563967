"""Uploading what a run made to a repository of the Hub, from within the job as it ends."""

from __future__ import annotations

import shlex


def deliver(repo: str, run_id: str) -> list[str]:
    """Lines that upload what the run made. A failure of it fails the job: it would be lost."""
    return [
        f"if ! python3 - \"$run_dir\" {shlex.quote(repo)} {run_id} << 'TUNEDECK_UPLOAD'",
        *_UPLOAD.splitlines(),
        "TUNEDECK_UPLOAD",
        "then",
        f'  echo "tunedeck: error: what the run made could not be uploaded to {repo}"',
        '  if [ "$code" = 0 ]; then code=1; fi',
        "fi",
    ]


_UPLOAD = """\
import sys
from huggingface_hub import HfApi
folder, repo, run_id = sys.argv[1:]
unfinished = ["*.in_progress/*", "*.replaced/*", "*.removed/*"]
try:
    api = HfApi()
    api.create_repo(repo, private=True, exist_ok=True)
    api.upload_folder(
        repo_id=repo, folder_path=folder, path_in_repo=run_id,
        commit_message=f"Results of {run_id}",
        ignore_patterns=[*unfinished, "checkpoints/latest/*", "checkpoints/best/*"],
    )
except Exception as error:
    sys.exit(f"tunedeck: error: {' '.join(str(error).split())}")
print(f"tunedeck: what the run made is in {repo}, below {run_id}")"""
