from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.env.find import find_env_files, passed_over
from tunedeck.core.errors import UsageError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in find_env_files(folder).files]


def test_all_env_files_of_one_folder_are_used_env_toml_first(tmp_path: Path) -> None:
    for name in ("env_b.toml", "env.slurm.toml", "env-a.toml", "env.toml"):
        touch(tmp_path / name)
    for name in ("environment.toml", "envx.toml", "my.env.toml", "env.toml.bak", "env.yaml"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["env.toml", "env-a.toml", "env.slurm.toml", "env_b.toml"]


def test_the_search_goes_up_to_the_first_folder_that_has_one(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    touch(tmp_path / "env.toml")
    touch(tmp_path / "a" / "env.slurm.toml")
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    assert find_env_files(deep).files == (tmp_path / "a" / "env.slurm.toml",)


def test_the_search_ends_at_the_repositorys_root(tmp_path: Path) -> None:
    touch(tmp_path / "env.toml")
    root = tmp_path / "repository"
    touch(root / ".git")  # a worktree's .git is a file
    (root / "src").mkdir()
    found = find_env_files(root / "src")
    assert found.files == ()
    assert str(root) in found.reason


def test_outside_a_repository_only_the_working_directory_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "env.toml")
    inside = tmp_path / "inside"
    inside.mkdir()
    assert find_env_files(inside).files == ()
    assert find_env_files(tmp_path).files == (tmp_path / "env.toml",)


def test_a_file_that_is_named_comes_before_the_variables_and_these_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "env.toml")
    ours, theirs, asked = (touch(tmp_path / name) for name in ("o.toml", "n.toml", "a.toml"))
    monkeypatch.setenv("NEMOTRON_ENV_FILE", str(theirs))
    assert find_env_files(tmp_path).files == (theirs,)
    monkeypatch.setenv("TUNEDECK_ENV_FILE", str(ours))
    assert find_env_files(tmp_path).files == (ours,)
    assert find_env_files(tmp_path, asked).files == (asked,)


def test_a_relative_name_starts_from_the_working_directory_and_a_tilde_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "site.toml")
    monkeypatch.setenv("TUNEDECK_ENV_FILE", "~/site.toml")
    assert find_env_files(tmp_path / "x").files == (tmp_path / "site.toml",)
    assert find_env_files(tmp_path, "site.toml").files == (tmp_path / "site.toml",)


def test_an_empty_variable_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEDECK_ENV_FILE", "")
    touch(tmp_path / "env.toml")
    assert names(tmp_path) == ["env.toml"]


def test_a_named_file_that_is_not_there_is_an_error_that_says_who_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMOTRON_ENV_FILE", "gone.toml")
    with pytest.raises(UsageError, match="NEMOTRON_ENV_FILE") as caught:
        find_env_files(tmp_path)
    assert caught.value.place is not None
    assert caught.value.fix


def test_each_file_that_was_passed_over_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    outside = touch(tmp_path / "env.toml")
    above = touch(tmp_path / "repository" / "env.toml")
    used = touch(tmp_path / "repository" / "work" / "env.toml")
    found = find_env_files(used.parent)
    reasons = {item.file: item.reason for item in passed_over(found, used.parent)}
    assert set(reasons) >= {above, outside}
    assert "further up" in reasons[above]
    assert "outside the repository" in reasons[outside]

    monkeypatch.setenv("NEMOTRON_ENV_FILE", str(outside))
    named = find_env_files(used.parent, above)
    reasons = {i.file: i.reason for i in passed_over(named, used.parent, above)}
    assert "--env-file comes first" in reasons[outside]
    assert "--env-file names the file" in reasons[used]


def test_a_folder_that_may_not_be_listed_has_no_env_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert find_env_files(tmp_path).files == ()
