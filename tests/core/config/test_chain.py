from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.config.compose import compose
from tunedeck.core.errors import UsageError

from .conftest import Write


def test_maps_merge_deep_and_lists_are_replaced(write: Write) -> None:
    write("base.yaml", "a: {x: 1, y: {z: 2}}\nl: [1, 2, 3]\n")
    child = write("child.yaml", "defaults: base.yaml\na: {y: {w: 3}}\nl: [4]\n")
    assert compose(child).values == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "l": [4]}


@pytest.mark.parametrize("name", ["base.yaml", "base", "./base", "[base]", "[_self_, base.yaml]"])
def test_a_parent_is_named_with_or_without_its_ending(write: Write, name: str) -> None:
    write("base.yaml", "a: 1\n")
    child = write("child.yaml", f"defaults: {name}\nb: 2\n")
    composed = compose(child)
    assert composed.values == {"a": 1, "b": 2}
    assert [path.name for path in composed.chain] == ["base.yaml", "child.yaml"]


def test_a_later_parent_wins_with_all_that_it_inherits(write: Write) -> None:
    write("base.yaml", "a: base\nb: base\n")
    write("left.yaml", "defaults: base\na: left\nb: left\nc: left\n")
    write("right.yaml", "defaults: base\nb: right\n")
    child = write("child.yaml", "defaults: [left, right]\n")
    assert compose(child).values == {"a": "base", "b": "right", "c": "left"}


def test_a_parent_is_relative_to_the_file_that_names_it(write: Write) -> None:
    write("common/base.yaml", "defaults: deeper/root\nb: 2\n")
    write("common/deeper/root.yaml", "a: 1\n")
    child = write("steps/child.yaml", "defaults: ../common/base\n")
    assert compose(child).values == {"a": 1, "b": 2}


def test_chains_may_be_very_long(write: Write) -> None:
    write("c0.yaml", "value: 0\nroot: true\n")
    for number in range(1, 1001):
        last = write(f"c{number}.yaml", f"defaults: c{number - 1}\nvalue: {number}\n")
    composed = compose(last)
    assert composed.values == {"value": 1000, "root": True}
    assert len(composed.origins["value"].overrode) == 1000


def test_a_circle_is_told_with_its_files_and_place(write: Write) -> None:
    write("a.yaml", "defaults: c\n")
    write("b.yaml", "defaults: a\n")
    path = write("c.yaml", "x: 1\ndefaults: b\n")
    with pytest.raises(UsageError, match=r"circle: c.yaml → b.yaml → a.yaml → c.yaml") as caught:
        compose(path)
    assert caught.value.place is not None
    assert caught.value.place.file == str(path.parent / "a.yaml")
    assert caught.value.place.line == 1


def test_a_file_that_inherits_from_itself_is_a_circle(write: Write) -> None:
    path = write("a.yaml", "defaults: a\n")
    with pytest.raises(UsageError, match="circle"):
        compose(path)


def test_a_missing_parent_is_told_with_the_nearest_there_is(write: Write) -> None:
    write("default.yaml", "a: 1\n")
    path = write("child.yaml", "a: 2\ndefaults: defualt.yaml\n")
    with pytest.raises(UsageError, match=r"'defualt.yaml'") as caught:
        compose(path)
    assert str(caught.value.place) == f"{path}:2:1"
    assert "default.yaml" in caught.value.fix


@pytest.mark.parametrize("defaults", ["3", "{model: base}", "[{model: base}]", "[1]"])
def test_defaults_of_another_kind_are_refused(write: Write, defaults: str) -> None:
    path = write("child.yaml", f"defaults: {defaults}\n")
    with pytest.raises(UsageError, match="'defaults' must be"):
        compose(path)


def test_a_parent_that_is_a_link_back_to_itself_is_told(write: Write, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    path = write("child.yaml", "defaults: loop\n")
    with pytest.raises(UsageError, match="leads back to itself"):
        compose(path)
