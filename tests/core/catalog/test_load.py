from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tunedeck.core.catalog import load_catalog
from tunedeck.core.errors import Place, UsageError
from tunedeck.core.findings import Finding

WriteStep = Callable[..., Path]
LAUNCH = '[launch]\nkind = "python"\nmodule = "json.tool"\n'


def error_in(own: Path, step_in: WriteStep, body: str) -> tuple[Finding, Path]:
    """The one error that a shipped step with this body leads to."""
    folder = step_in(own, "sft/one", LAUNCH + body)
    catalog = load_catalog()
    assert [step.id for step in catalog.steps] == []
    (error,) = [f for f in catalog.findings if f.severity == "error"]
    return error, folder / "step.toml"


@pytest.mark.parametrize(
    ("body", "key", "line", "column", "words"),
    [
        ("[[models]]\nname = 'm'\nmin_gpu = 2\n", "models[0].min_gpu", 10, 1, "'min_gpus'"),
        ("[[models]]\nname = 'm'\nmin_gpus = '2'\n", "models[0].min_gpus", 10, 1, "valid integer"),
        ("[[models]]\nname = 'm'\nmin_gpus = -1\n", "models[0].min_gpus", 10, 1, "greater than"),
        ("[[models]]\ndescription = ''\n", "models[0].name", 8, 3, "is missing"),
        ("[consumes]\ntype = 'data'\n", "consumes", 8, 2, "[[consumes]]"),
        ("[[consumes]]\ntype = 3\n", "consumes[0].type", 9, 1, "valid string"),
        ("[[consumes]]\ntype = 'data'\nrequired = 1\n", "consumes[0].required", 10, 1, "boolean"),
        (
            "[[errors]]\nname='e'\nrecovery='r'\npattern='('\n",
            "errors[0].pattern",
            11,
            1,
            "regular",
        ),
        ("[paramters]\n", "paramters", 8, 2, "'parameters'"),
        ("[resources]\nnodes = 0\n", "resources.nodes", 9, 1, "greater than"),
        (
            "[[models]]\nname='a'\ndefault=true\n[[models]]\nname='b'\ndefault=true\n",
            "models",
            8,
            3,
            "only one",
        ),
    ],
)
def test_a_mistake_in_a_manifest_is_placed_named_and_mended(
    own: Path,
    step_in: WriteStep,
    body: str,
    key: str,
    line: int,
    column: int,
    words: str,
) -> None:
    error, file = error_in(own, step_in, body)
    assert (error.key, error.place) == (key, Place(str(file), line, column))
    assert error.fix is not None
    assert words in f"{error.message} {error.fix.words}"


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ('kind = "torchrum"', "'torchrun'"),
        ('kind = "python"', "needs a 'module'"),
        ('kind = "command"', "belong together"),
        ('kind = "python"\nmodule = "a-b"', "pattern"),
    ],
)
def test_launch_facts_that_start_nothing_are_refused(
    own: Path, step_in: WriteStep, launch: str, words: str
) -> None:
    step_in(own, "sft/one", f"[launch]\n{launch}\n")
    (error,) = load_catalog().findings
    assert error.fix is not None
    assert words in f"{error.message} {error.fix.words}"
    assert error.place.line in (5, 6, 7)


def test_a_bad_step_hides_no_other_and_says_why_when_it_is_asked_for(
    own: Path, step_in: WriteStep
) -> None:
    step_in(own, "sft/bad", "[[models]]\nmin_gpus = 'x'\n")
    step_in(own, "sft/broken", header="[step\n")
    step_in(own, "sft/good", LAUNCH)
    catalog = load_catalog()
    assert [step.id for step in catalog.steps] == ["sft/good"]
    with pytest.raises(UsageError, match=r"models\[0\].name") as caught:
        catalog.find("sft/bad")
    assert caught.value.place == Place(str(own / "sft/bad/step.toml"), 5, 3)
    with pytest.raises(UsageError, match="not valid TOML"):
        catalog.find("broken")


def test_unknown_keys_of_an_added_folder_are_noted_and_ignored(
    own: Path, foreign: Path, step_in: WriteStep
) -> None:
    step_in(foreign, "sft/one", LAUNCH + "[[consumes]]\ntype = 'data'\nshape = 3\n[new.table]\n")
    catalog = load_catalog([foreign])
    (step,) = catalog.steps
    assert step.source == str(foreign)
    assert [(note.severity, note.key) for note in step.notes] == [
        ("info", "consumes[0].shape"),
        ("info", "new"),
    ]
    assert step.notes[0].place.line == 10


def test_a_wrong_value_of_an_added_folder_is_still_an_error(
    own: Path, foreign: Path, step_in: WriteStep
) -> None:
    step_in(foreign, "sft/one", "[[models]]\nname = 'm'\nmin_gpus = 'x'\nnew = 1\n")
    catalog = load_catalog([foreign])
    assert not catalog.steps
    assert "error" in {finding.severity for finding in catalog.findings}


def test_an_id_that_is_there_twice_is_the_added_folders_with_a_note(
    own: Path, foreign: Path, step_in: WriteStep
) -> None:
    step_in(own, "sft/one", LAUNCH)
    step_in(own, "sft/two", LAUNCH)
    step_in(foreign, "sft/one", LAUNCH)
    catalog = load_catalog([foreign])
    assert [(step.id, step.source) for step in catalog.steps] == [
        ("sft/one", str(foreign)),
        ("sft/two", "tunedeck"),
    ]
    (note,) = [f for f in catalog.findings if f.severity == "info"]
    assert "sft/one" in note.message
    assert "replaces that of tunedeck" in note.message


def test_an_id_twice_in_one_folder_is_an_error_that_names_both(
    own: Path, step_in: WriteStep
) -> None:
    step_in(own, "sft/a", header='[step]\nid = "sft/x"\nname = "A"\ncategory = "sft"\n')
    step_in(own, "sft/b", header='[step]\nid = "sft/x"\nname = "B"\ncategory = "sft"\n')
    catalog = load_catalog()
    assert catalog.find("sft/x").manifest.step.name == "A"
    (error,) = [f for f in catalog.findings if f.severity == "error"]
    assert str(own / "sft/a/step.toml") in error.message
    assert error.place.file == str(own / "sft/b/step.toml")


def test_the_command_line_beats_the_environment_and_both_beat_what_ships(
    own: Path,
    foreign: Path,
    tmp_path: Path,
    step_in: WriteStep,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (own, first, second, foreign):
        step_in(folder, "sft/one", LAUNCH)
    for folder in (first, second):
        step_in(folder, "sft/two", LAUNCH)
    monkeypatch.setenv("TUNEDECK_STEPS", os.pathsep.join([str(first), "", str(second)]))
    catalog = load_catalog([foreign])
    assert catalog.find("sft/one").source == str(foreign)
    assert catalog.find("sft/two").source == str(second)


def test_a_folder_that_is_not_there_is_refused_and_an_empty_one_is_noted(
    own: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        load_catalog([foreign / "none"])
    assert "--catalog" in caught.value.fix
    (foreign / "file").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        load_catalog([foreign / "file"])
    assert any("holds no step.toml" in f.message for f in load_catalog([foreign]).findings)
    monkeypatch.setenv("TUNEDECK_STEPS", str(foreign / "none"))
    with pytest.raises(UsageError) as caught:
        load_catalog()
    assert "TUNEDECK_STEPS" in caught.value.fix


def test_steps_are_found_below_a_checkouts_root_but_not_in_hidden_folders_or_link_circles(
    own: Path, foreign: Path, step_in: WriteStep
) -> None:
    step_in(foreign / "src/pkg/steps", "rl/deep/dpo", LAUNCH)
    step_in(foreign / ".git/x", "sft/hidden", LAUNCH)
    (foreign / "src/loop").symlink_to(foreign)
    assert [step.id for step in load_catalog([foreign]).steps] == ["rl/deep/dpo"]


def test_types_of_added_folders_join_the_graph(
    own: Path, foreign: Path, step_in: WriteStep
) -> None:
    (foreign / "types.toml").write_text(
        "[rare]\nis_a = ['data']\n[adapter]\nconvert_to = { model = 'x/y' }\n[bad]\nis_a = 3\n"
    )
    step_in(foreign, "sft/one", LAUNCH + "[[consumes]]\ntype = 'rae'\n")
    catalog = load_catalog([foreign])
    assert catalog.artifacts.fits("rare", "data")
    assert [c.step for c in catalog.artifacts.conversions("adapter", "model") or ()] == ["x/y"]
    keys = {finding.key for finding in catalog.findings}
    assert {"bad.is_a", "consumes.type"} <= keys
    stranger = next(f for f in catalog.findings if f.key == "consumes.type")
    assert stranger.fix is not None
    assert "'rare'" in stranger.fix.words
