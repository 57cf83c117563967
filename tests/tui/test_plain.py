from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tunedeck.core.drafts import Draft, list_drafts, save_draft
from tunedeck.core.process import processes_of, signal_all
from tunedeck.core.replays.replay import load_replay
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState
from tunedeck.tui.plain import run_prompts

Prompts = Callable[..., Result]


@pytest.fixture
def prompts() -> Iterator[Prompts]:
    """Answers the prompts line by line; after the last answer the input is at its end."""

    def answer(*lines: str, read_only: bool = False) -> Result:
        @click.command()
        def opened() -> None:
            raise SystemExit(run_prompts(read_only=read_only))

        done = CliRunner().invoke(opened, input="".join(f"{line}\n" for line in lines))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    yield answer
    for record in Registry().list():
        signal_all(processes_of(record.run_id, None), 9)


_TO_FIELDS = ("new", "peft/automodel", "tiny")


def test_what_was_chosen_is_kept_where_the_input_ends(prompts: Prompts) -> None:
    done = prompts(*_TO_FIELDS, "optimizer.lr", "5e-4", "rng.seed=7")
    assert done.exit_code == 0
    (draft,) = list_drafts()
    assert draft.selection.overrides == ("optimizer.lr=5e-4", "rng.seed=7")
    assert draft.stage == "config"


def test_an_unfinished_launch_is_gone_on_with_by_enter(prompts: Prompts) -> None:
    save_draft(Draft.begin(Selection("peft/automodel", config="tiny"), "review"))
    done = prompts("", "changes")
    assert "No run of peft/automodel with this config to compare with yet" in done.output


def test_wrong_answers_are_told_and_asked_again(prompts: Prompts) -> None:
    done = prompts(
        "99", "nwe", "new", "peft", "peft/automodel", "no-such.yaml", "peft/automodel", "tiny",
        "optimizer.lrr", "peft.dim=-3", "n", "=", "\x1b[2Jx", "yaml"
    )  # fmt: skip
    assert "Did you mean 'new'?" in done.output
    assert "no-such.yaml" in done.output
    assert "Did you mean 'optimizer.lr'?" in done.output
    assert "integer ≥ 1" in done.output
    assert "\x1b[2J" not in done.output.replace("Change: \x1b[2Jx", "")  # the echo of what is typed
    assert "recipe: sft" in done.output
    assert list_drafts()[0].selection.overrides == ()


def test_the_yaml_tells_the_changed_lines_and_reset_undoes_them(prompts: Prompts) -> None:
    done = prompts(*_TO_FIELDS, "peft.dim=32", "yaml", "changed", "reset peft.dim", "changed")
    assert "-   dim: 8" in done.output
    assert "+   dim: 32" in done.output
    assert "peft.dim = 32 (changed)" in done.output
    assert "Nothing is changed." in done.output
    assert list_drafts()[0].selection.overrides == ()


def test_the_rows_are_looked_at(prompts: Prompts) -> None:
    done = prompts(*_TO_FIELDS, "data")
    assert "⟦32 + 34 = 66. The answer is 66.<|im_end|>⟧" in done.output
    assert "tunedeck data look peft/automodel -c tiny" in done.output


def test_a_profile_is_edited_in_its_file_and_chosen(prompts: Prompts, working_folder: Path) -> None:
    file = working_folder / "env.toml"
    file.write_text('[here]  # mine\nexecutor = "local"\n\n# other\n[more]\nexecutor = "local"\n')
    done = prompts(
        *_TO_FIELDS, "", "edit here", "venvv", "list command", "run_command", "python", "", "y",
        "show here", "here", "back"
    )  # fmt: skip
    assert "no key 'venvv'" in done.output
    assert file.read_text() == (
        '[here]  # mine\nexecutor = "local"\nrun_command = "python"\n\n'
        '# other\n[more]\nexecutor = "local"\n'
    )
    assert list_drafts()[0].selection.profile == "here"


def test_left_in_the_middle_of_a_profile_its_file_is_as_it_was(
    prompts: Prompts, working_folder: Path
) -> None:
    file = working_folder / "env.toml"
    file.write_text('[here]\nexecutor = "local"\n')
    prompts(*_TO_FIELDS, "", "edit here", "venv=/x")
    assert file.read_text() == '[here]\nexecutor = "local"\n'


def test_an_env_file_is_made_and_what_is_wrong_in_one_is_mended(
    prompts: Prompts, working_folder: Path
) -> None:
    (working_folder / "env.toml").write_text(
        '[lab]\nexecutor = "slurm"\nhost = "h"\naccount = "a"\npartition = "p"\n'
        'remote_job_dir = "/x"\ntime = "2h"\n'
    )
    done = prompts(*_TO_FIELDS, "", "fix lab", "new local", "rename lab", "site")
    assert "[site]" in (working_folder / "env.toml").read_text()
    assert 'time = "02:00:00"' in (working_folder / "env.toml").read_text()
    assert (working_folder / "env.local.toml").exists(), done.output


def test_a_reviewed_launch_is_saved_and_told_from_what_it_was(prompts: Prompts) -> None:
    prompts("demo", "save mine", "back", "back")
    assert load_replay("mine").ingredients.config == "tiny"
    done = prompts("mine", "edit", "tiny", "rng.seed=3", "", "local", "changes", "sent", "config")
    assert "1 value other than 'mine' was saved with" in done.output
    assert "rng.seed" in done.output
    assert "tunedeck.trainer" in done.output


def test_a_launch_is_sent_told_of_and_cancelled(prompts: Prompts, working_folder: Path) -> None:
    script = working_folder / "sleeps.py"
    script.write_text("import time\nprint('step=1 loss=2.5', flush=True)\ntime.sleep(90)\n")
    (working_folder / "env.toml").write_text(
        f'[sleeps]\nexecutor = "local"\nrun_command = "{sys.executable} {script}"\n'
    )
    done = prompts(*_TO_FIELDS, "", "sleeps", "leave")
    (record,) = Registry().list()
    assert record.run_id in done.output
    assert list_drafts() == []
    assert "goes on. See it: tunedeck runs logs -f" in done.output
    done = prompts("1", "facts", "resume", "next", "cancel", "n", "cancel", "y", "log", "back")
    assert "only a run that has ended can be resumed" in done.output
    assert Registry().get(record.run_id).state is RunState.CANCELLED
    done = prompts("1", "again", "back")
    assert list_drafts()[0].selection.profile == "sleeps"


def test_read_only_changes_nothing_and_says_why(prompts: Prompts, working_folder: Path) -> None:
    (working_folder / "env.toml").write_text('[here]\nexecutor = "local"\n')
    done = prompts(
        *_TO_FIELDS, "", "edit here", "new slurm", "fix here", "rename here",
        "delete here", "here", "save x", "submit", read_only=True,
    )  # fmt: skip
    assert done.output.count("--read-only") >= 7
    assert Registry().list() == []
    assert list_drafts() == []
    assert sorted(path.name for path in working_folder.iterdir()) == ["env.toml"]


def test_what_stands_in_the_way_leads_to_its_field(prompts: Prompts) -> None:
    chosen = Selection("peft/automodel", config="tiny", overrides=("peft.dim=-3",))
    save_draft(Draft.begin(chosen, "review"))
    done = prompts("")
    assert "This cannot be launched as it is." in done.output
    assert "Config [tiny]" in done.output


def test_drafts_are_forgotten_by_number_and_nothing_else_is(prompts: Prompts) -> None:
    save_draft(Draft.begin(Selection("peft/automodel", config="tiny"), "review"))
    done = prompts("forget 2", "forget x", "forget 1")
    assert done.output.count("Only unfinished launches are forgotten here") == 2
    assert list_drafts() == []
