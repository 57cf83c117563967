"""The words that start a plan's processes: what a foreign step says of its start is kept to."""

from __future__ import annotations

import pytest

from tunedeck.core.command import command_words
from tunedeck.core.plan import Launch

SCRIPT = "/steps/rl/dpo/step.py"
CMD = "uv run python {script} --config {config}"
UV_RUN = f"uv run python {SCRIPT} --config /run/c.yaml"


def words(launch: Launch, **profile: object) -> tuple[str, ...]:
    return command_words(launch, profile, python="py", config="/run/c.yaml", torchrun=("--x",))


@pytest.mark.parametrize(
    ("launch", "profile", "expected"),
    [
        (
            Launch("command", SCRIPT, command=CMD),
            {},
            f"uv run python {SCRIPT} --config /run/c.yaml",
        ),
        (Launch("command", SCRIPT, command=CMD), {"run_command": "own {script}"}, f"own {SCRIPT}"),
        (
            Launch("command", SCRIPT, command=CMD, workdir="/opt/a b"),
            {},
            f"set -e\ncd '/opt/a b'\nuv run python {SCRIPT} --config /run/c.yaml",
        ),
        (
            Launch("python", SCRIPT, workdir="/opt/rl"),
            {"setup_lines": "module load cuda"},
            f"set -e\nmodule load cuda\ncd /opt/rl\nexec py {SCRIPT} --config /run/c.yaml",
        ),
    ],
)
def test_a_steps_own_command_line_and_folder_are_kept_to(
    launch: Launch, profile: dict[str, object], expected: str
) -> None:
    assert words(launch, **profile) == ("bash", "-c", expected)


def test_a_script_without_either_is_given_to_the_interpreter() -> None:
    assert words(Launch("python", SCRIPT)) == ("py", SCRIPT, "--config", "/run/c.yaml")
