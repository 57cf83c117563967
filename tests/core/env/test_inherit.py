from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tunedeck.core.env.inherit import Inheritance, nested, overlay
from tunedeck.core.env.load import EnvFiles
from tunedeck.core.errors import UsageError
from tunedeck.core.keys import leaf_paths
from tunedeck.core.origins import Origin, Sourced

from .conftest import Load


def values(files: EnvFiles, name: str) -> dict[str, object]:
    return nested({path: leaf.value for path, leaf in Inheritance(files).tree(name).items()})


def test_maps_merge_deep_and_lists_are_replaced(load: Load) -> None:
    files = load(
        """
        [base]
        executor = "slurm"
        mounts = ["/a:/a", "/b:/b"]
        env_vars = { A = "1", B = "2" }
        [kid]
        extends = "base"
        mounts = ["/c:/c"]
        env_vars = { B = "3" }
        """
    )
    assert values(files, "kid") == {
        "executor": "slurm",
        "mounts": ["/c:/c"],
        "env_vars": {"A": "1", "B": "3"},
    }


def test_of_several_parents_the_later_one_wins_and_the_profile_over_all(load: Load) -> None:
    files = load(
        """
        [one]
        executor = "slurm"
        nodes = 1
        time = "1:00:00"
        [two]
        nodes = 2
        mem = "2G"
        [kid]
        extends = ["one", "two"]
        mem = "3G"
        """
    )
    assert values(files, "kid") == {
        "executor": "slurm",
        "nodes": 2,
        "time": "1:00:00",
        "mem": "3G",
    }


def test_each_value_knows_its_profile_its_line_and_what_it_overrode(load: Load) -> None:
    files = load(
        """
        [a]
        nodes = 1
        [b]
        extends = "a"
        nodes = 2
        [c]
        extends = "b"
        nodes = 3
        """
    )
    nodes = Inheritance(files).tree("c")["nodes",]
    assert (nodes.origin.layer, nodes.origin.place.line) == ("profile c", 9)
    past = [(value, origin.layer, origin.place.line) for value, origin in nodes.overrode]
    assert past == [(2, "profile b", 6), (1, "profile a", 3)]


def test_another_spelling_of_a_key_replaces_the_inherited_one(load: Load) -> None:
    files = load(
        """
        [base]
        executor = "lepton"
        nprocs_per_node = 8
        [kid]
        extends = "base"
        nproc_per_node = 2
        """
    )
    assert values(files, "kid") == {"executor": "lepton", "nproc_per_node": 2}


def test_an_unknown_parent_is_an_error_at_its_place_with_the_nearest_name(load: Load) -> None:
    files = load('[slurm_base]\nnodes = 1\n[kid]\nextends = "slurm_bse"')
    with pytest.raises(UsageError, match="'slurm_bse'") as caught:
        Inheritance(files).tree("kid")
    assert caught.value.place is not None
    assert caught.value.place.line == 4
    assert "slurm_base" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ('[a]\nextends = "a"', "a → a"),
        ('[a]\nextends = "b"\n[b]\nextends = "c"\n[c]\nextends = "a"', "a → b → c → a"),
        ('[x]\n[a]\nextends = ["x", "b"]\n[b]\nextends = "a"', "a → b → a"),
    ],
)
def test_a_circle_is_an_error_that_shows_the_way_round(load: Load, text: str, way: str) -> None:
    with pytest.raises(UsageError, match="circle") as caught:
        Inheritance(load(text)).tree("a")
    assert way in caught.value.message
    assert caught.value.place


def test_a_parent_that_is_reached_twice_is_no_circle(load: Load) -> None:
    text = """
    [root]
    nodes = 4
    [left]
    extends = "root"
    [right]
    extends = "root"
    [kid]
    extends = ["left", "right"]
    """
    assert values(load(text), "kid") == {"nodes": 4}


@pytest.mark.parametrize("extends", ["3", "[1]", "{ a = 1 }", "true"])
def test_extends_must_name_profiles(load: Load, extends: str) -> None:
    with pytest.raises(UsageError, match="extends"):
        Inheritance(load(f"[a]\nextends = {extends}")).tree("a")


def test_a_chain_of_a_thousand_is_walked_without_recursion(load: Load) -> None:
    chain = "".join(f'[p{n}]\nextends = "p{n - 1}"\nnodes = {n}\n' for n in range(1, 1001))
    tree = Inheritance(load("[p0]\nnodes = 1\nmem = '1G'\n" + chain)).tree("p1000")
    assert tree["nodes",].value == 1000
    assert len(tree["nodes",].overrode) == 1000
    assert tree["mem",].origin.layer == "profile p0"


def test_a_circle_of_a_thousand_is_told_in_one_line(load: Load) -> None:
    chain = "".join(f'[p{n}]\nextends = "p{(n + 1) % 1000}"\n' for n in range(1000))
    with pytest.raises(UsageError, match="circle") as caught:
        Inheritance(load(chain)).tree("p0")
    assert len(caught.value.message) < 200


_scalars = st.one_of(st.integers(0, 9), st.text("ab", max_size=2), st.lists(st.integers(0, 3)))
_tables = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _scalars, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | _scalars, max_size=3),
    max_leaves=8,
)


def _same_kinds(one: object, other: object) -> bool:
    """OmegaConf refuses to merge a map with anything else; such pairs are no oracle."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same_kinds(one[key], other[key]) for key in one.keys() & other.keys())
    return isinstance(one, dict) == isinstance(other, dict)


@given(_tables, _tables)
def test_merging_does_what_omegaconf_does(
    parent: dict[str, object], child: dict[str, object]
) -> None:
    assume(_same_kinds(parent, child))
    tree: dict[tuple[str, ...], Sourced] = {}
    for table in (parent, child):
        overlay(tree, {path: Sourced(value, Origin("t")) for path, value in leaf_paths(table)})
    ours = nested({path: leaf.value for path, leaf in tree.items()})
    theirs = OmegaConf.merge(OmegaConf.create(parent), OmegaConf.create(child))
    assert ours == OmegaConf.to_container(theirs)


def test_a_map_and_a_value_replace_each_other(load: Load) -> None:
    text = '[a]\nsecrets = ["X"]\n[b]\nextends = "a"\nsecrets = { X = "n/k" }\n'
    assert values(load(text), "b") == {"secrets": {"X": "n/k"}}
    text = '[a]\nsecrets = { X = "n/k" }\n[b]\nextends = "a"\nsecrets = ["X"]\n'
    assert values(load(text), "b") == {"secrets": ["X"]}
