from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tunedeck.core import locations
from tunedeck.core.drafts import Draft, delete_draft, list_drafts, save_draft
from tunedeck.core.selection import Selection


def _draft(**changes: object) -> Draft:
    facts = {"step": "peft/automodel", "overrides": ("optimizer.lr=1e-4",), **changes}
    return Draft.begin(Selection(**facts), "config")  # type: ignore[arg-type]  # a test's shorthand


def test_a_saved_draft_comes_back_as_it_was(home: Path) -> None:
    draft = save_draft(_draft(env_file=Path("/x/env.toml"), from_run="rabc", cwd=Path("/tmp")))
    assert list_drafts() == [draft]


def test_the_draft_saved_last_is_the_first(home: Path) -> None:
    first, second = save_draft(_draft()), save_draft(_draft())
    first = save_draft(first)
    assert [draft.draft_id for draft in list_drafts()] == [first.draft_id, second.draft_id]


def test_a_deleted_draft_is_gone_and_may_be_deleted_again(home: Path) -> None:
    draft = save_draft(_draft())
    delete_draft(draft.draft_id)
    delete_draft(draft.draft_id)
    assert list_drafts() == []


def test_half_a_file_hides_no_other_draft_and_is_kept(home: Path) -> None:
    draft = save_draft(_draft())
    broken = locations.drafts_dir() / "dbroken.json"
    broken.write_text('{"step": ')
    (locations.drafts_dir() / "dlist.json").write_text("[]")
    assert list_drafts() == [draft]
    assert broken.exists()


def test_nobody_else_may_read_a_draft(home: Path) -> None:
    draft = save_draft(_draft())
    mode = (locations.drafts_dir() / f"{draft.draft_id}.json").stat().st_mode
    assert mode & 0o077 == 0


def test_answers_for_an_env_file_are_kept_but_for_secrets(home: Path) -> None:
    given = {"slurm": {"slurm_base.host": "login.test", "slurm_base.account": "hf_" + "aB3" * 12}}
    save_draft(replace(_draft(), answers=given))
    assert list_drafts()[0].answers == {"slurm": {"slurm_base.host": "login.test"}}


def test_a_draft_of_another_version_lacks_what_it_lacks_and_is_offered(home: Path) -> None:
    draft = save_draft(_draft(overrides=()))
    file = locations.drafts_dir() / f"{draft.draft_id}.json"
    data = json.loads(file.read_text())
    for later in ("answers", "from_run", "name", "catalog", "env_file", "overrides", "stage"):
        del data[later]
    file.write_text(json.dumps({**data, "of a later version": [1]}))
    assert list_drafts() == [replace(draft, stage="step")]
